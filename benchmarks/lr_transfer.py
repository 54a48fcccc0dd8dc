"""What transfers over widths under muP and under standard parametrisation: sizes of updates, and the best rate.

`python -m benchmarks lr_transfer`: models of depth 2 on the text of the standard library, all widths on the same
number of tokens, learning rates a factor of 2 apart, more at either end until the best one is inside. Every
finished run is kept in a file outside of the checkout, and is not done again. Draws both.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import PLOTS
from benchmarks.tables import print_table
from isoloss.proxies import ProxyConfig, Training, coordinate_check, load_data
from isoloss.proxies.checks import CoordinateCheck
from isoloss.proxies.lr_optima import LrTransfer, Valley, lr_transfer_by

WIDTHS = (32, 64, 128, 256)
SEEDS = (0, 1, 2)
PARAMETRIZATIONS = ("mup", "standard")
BASE = ProxyConfig(
    width=32,
    depth=2,
    head_width=16,
    base_width=32,
    sequence_length=128,
    batch_tokens=1024,
    n_tokens=131_072,
    peak_lr=2**-6,
    weight_decay=0.0,
    eval_every=1.0,
)
"""Without weight decay both parametrisations are one at the base width, whose runs serve for both."""

CACHE = Path(os.environ.get("ISOLOSS_BENCHMARK_CACHE", Path.home() / ".cache" / "isoloss" / "benchmarks"))


class KeptRuns:
    """Final validation losses of runs, by configuration, in a file of JSON lines; infinite where one diverged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        self._data = load_data(BASE.data)
        self._found: dict[str, float] = {one["key"]: float(one["loss"]) for one in whole}

    def loss(self, config: ProxyConfig) -> float:
        """Return the final validation loss of a configuration, training it if that has not been done."""
        if config.width == config.base_width:
            config = replace(config, parametrization="standard")
        key = json.dumps(config.document(), sort_keys=True)
        if key not in self._found:
            training = Training.start(config, self._data)
            last = training.advance()["val_loss"][-1]
            self._keep(key, float(last) if training.status == "finished" else math.inf)
        return self._found[key]

    def _keep(self, key: str, loss: float) -> None:
        self._found[key] = loss
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "loss": loss if math.isfinite(loss) else "inf"}) + "\n")


def transfers(runs: KeptRuns, widths: Sequence[int]) -> dict[str, LrTransfer]:
    """Return the valleys of these widths under each parametrisation."""
    return {
        kind: lr_transfer_by(replace(BASE, parametrization=kind), runs.loss, widths, SEEDS, 2.0)
        for kind in PARAMETRIZATIONS
    }


def coordinates() -> dict[str, CoordinateCheck]:
    """Return the coordinate check of each parametrisation, at a rate that both train at."""
    data, config = load_data(BASE.data), replace(BASE, peak_lr=2**-8)
    return {
        kind: coordinate_check(replace(config, parametrization=kind), data, WIDTHS)
        for kind in PARAMETRIZATIONS
    }


def figure_of_coordinates(found: Mapping[str, CoordinateCheck]) -> Figure:
    """Draw what the update of each layer changes over widths, as a share of that at the first."""
    drawn = Figure(figsize=(9.5, 3.9), layout="constrained")
    axes = drawn.subplots(1, 2, sharey=True)
    for ax, (kind, check) in zip(axes, found.items(), strict=True):
        for index, layer in enumerate(check.layers):
            label = f"{layer.name} {layer.power.value:+.2f}"
            for change in layer.change / layer.change[:, 0].mean():
                ax.loglog(check.widths, change, color=f"C{index % 10}", alpha=0.5, label=label)
                label = "_"
        ax.set(title={"mup": "muP", "standard": "standard"}[kind], xlabel="width")
        ax.legend(frameon=False, fontsize=6, title="power of the width", title_fontsize=7)
    axes[0].set_ylabel("change by a layer's own update")
    return drawn


def figure(found: Mapping[str, LrTransfer]) -> Figure:
    """Draw losses over learning rates for every width, with each seed, and where the valleys have their bottoms."""
    drawn = Figure(figsize=(9.5, 3.9), layout="constrained")
    axes = drawn.subplots(1, 2, sharey=True)
    lowest = min(one.loss for transfer in found.values() for one in transfer.valleys)
    for ax, (kind, transfer) in zip(axes, found.items(), strict=True):
        for index, valley in enumerate(transfer.valleys):
            _draw(ax, valley, f"C{index}")
        title = {"mup": "muP", "standard": "standard"}[kind]
        ax.set(title=f"{title}: best rate as width^{transfer.power.words()}", xlabel="peak learning rate")
        ax.set_xscale("log", base=2)
        ax.set_ylim(lowest - 0.05, lowest + 1.2)
    axes[0].set_ylabel("final validation loss, nats/token")
    axes[1].legend(frameon=False, title="width")
    return drawn


def _draw(ax: Axes, valley: Valley, color: str) -> None:
    mean = valley.losses.mean(axis=0)
    ax.plot(valley.lrs, mean, "-", color=color, label=f"{valley.width}")
    for one in valley.losses:
        ax.plot(valley.lrs, one, ".", color=color, alpha=0.5, markersize=4)
    best = valley.best
    ax.errorbar(
        [best.value],
        [valley.loss],
        xerr=[[best.value - best.lower], [best.upper - best.value]],
        fmt="v",
        color=color,
        capsize=3,
    )


def rows(found: Mapping[str, LrTransfer]) -> list[dict[str, object]]:
    """Return a row for each parametrisation and width."""
    return [
        {
            "parametrisation": kind,
            "width": valley.width,
            "best peak LR": f"{valley.best.value:.4f}",
            "90 % over seeds": f"{valley.best.lower:.4f} to {valley.best.upper:.4f}",
            "loss there": f"{valley.loss:.3f}",
            "loss at the LR next to width 32's best": _loss(valley.loss_at(transfer.valleys[0].best.value)),
            "learning rates tried": f"{valley.lrs[0]:.4f} to {valley.lrs[-1]:.4f}",
        }
        for kind, transfer in found.items()
        for valley in transfer.valleys
    ]


def rows_of_coordinates(found: Mapping[str, CoordinateCheck]) -> list[dict[str, object]]:
    """Return a row for each layer: the power under each parametrisation, with its interval and verdict."""
    rows: dict[str, dict[str, object]] = {}
    for kind, check in found.items():
        for layer in check.layers:
            row = rows.setdefault(layer.name, {"layer": layer.name})
            row[kind] = f"{layer.power.words()}, {layer.verdict}"
    return list(rows.values())


def save(drawn: Figure, name: str) -> None:
    """Write a figure among the plots, and a link to it."""
    PLOTS.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "isoloss", "svg.fonttype": "none"}):
        drawn.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    print(f"\n![{name}](plots/{name}.svg)")


def _loss(value: float | None) -> str:
    if value is None:
        return "not tried"
    return f"{value:.3f}" if math.isfinite(value) else "diverges"


def main() -> None:
    """Train what is missing, narrow widths first; print where the optima lie and draw them."""
    checked = coordinates()
    print_table("Coordinate check: power of the width by which changes go", rows_of_coordinates(checked))
    for kind, check in checked.items():
        print(f"\n{kind}: {check.words}.")
    save(figure_of_coordinates(checked), "coordinates")
    runs = KeptRuns(CACHE / "lr_transfer.jsonl")
    transfers(runs, WIDTHS[:-1])
    found = transfers(runs, WIDTHS)
    steps = f"{BASE.total_steps} steps of {BASE.batch_tokens:,} tokens"
    print_table(f"Best learning rate over widths: depth {BASE.depth}, {steps}, 3 seeds", rows(found))
    for kind, transfer in found.items():
        print(f"\n{kind}: {transfer.words}.")
    save(figure(found), "lr_transfer")


if __name__ == "__main__":
    main()
