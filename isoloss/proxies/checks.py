"""The coordinate check: do activations of wider models move as far as those of narrow ones?

Passing says that sizes are right at the start of training; that a learning rate transfers is another question,
which `lr_optima` asks (laws.md 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput
from isoloss.proxies.across_seeds import Spread, power_of_width
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData
from isoloss.proxies.model import Transformer
from isoloss.proxies.training import Training

STEADY = (-0.4, 0.25)
"""By which powers of the width changes may go. A wrong rule lets them grow by a power of 1/2 or 1. Downwards there
is more room: what the first weights make of the logits fades as width^-1/2 under muP, beside what is learnt."""

PROBE_SEQUENCES = 4
LOGITS = "logits"


@dataclass(frozen=True)
class Layer:
    """How far one layer's activations moved: `change` (seeds, widths) root mean squares, `power` of the width."""

    name: str
    change: FloatArray
    power: Spread

    @property
    def verdict(self) -> str:
        """steady, grows, shrinks, or undecided where the interval says neither."""
        if self.power.lies_within(*STEADY):
            return "steady"
        if self.power.lies_beyond(*STEADY):
            return "grows" if self.power.value > 0 else "shrinks"
        return "undecided"


@dataclass(frozen=True)
class CoordinateCheck:
    """Changes of activations after `steps` steps, for every layer, over `widths` and seeds."""

    parametrization: str
    steps: int
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def passes(self) -> bool | None:
        """Whether all layers are steady; None where some are undecided and none is wrong."""
        verdicts = {layer.verdict for layer in self.layers}
        if verdicts & {"grows", "shrinks"}:
            return False
        return None if "undecided" in verdicts else True

    @property
    def words(self) -> str:
        """The verdict in words."""
        where = f"after {self.steps} steps over widths {self.widths[0]} to {self.widths[-1]}"
        wrong = [layer for layer in self.layers if layer.verdict in ("grows", "shrinks")]
        if wrong:
            worst = max(wrong, key=lambda layer: abs(layer.power.value))
            return (
                f"fails: {where} the changes of {len(wrong)} of {len(self.layers)} layers go with the width, those "
                f"of {worst.name} most, as its power {worst.power.words()}. Settings of a narrow model do not "
                "carry over"
            )
        if self.passes is None:
            unsure = [layer.name for layer in self.layers if layer.verdict == "undecided"]
            return f"undecided: {where} the powers of {', '.join(unsure)} are too uncertain; take more seeds"
        least, most = (
            pick(self.layers, key=lambda layer: layer.power.value).power.value for pick in (min, max)
        )
        return (
            f"passes: {where} changes go as powers {least:.2f} to {most:.2f} of the width; "
            f"{STEADY[0]} to {STEADY[1]} count as steady. "
            "This is no proof that a learning rate carries over: compare its optimum at two widths"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each layer: name, power of the width with its interval, verdict, changes by width."""
        return [
            {
                "layer": layer.name,
                "power": layer.power.value,
                "lower": layer.power.lower,
                "upper": layer.power.upper,
                "verdict": layer.verdict,
                "change": dict(zip(self.widths, np.exp(np.log(layer.change).mean(0)).tolist(), strict=True)),
            }
            for layer in self.layers
        ]


def coordinate_check(
    config: ProxyConfig,
    data: TokenData,
    widths: Sequence[int] = (32, 64, 128, 256),
    seeds: Sequence[int] = (0, 1, 2, 3),
    steps: int = 8,
    device: str = "cpu",
) -> CoordinateCheck:
    """Train models of several widths for a few steps, at the configuration's peak learning rate throughout.

    A change is the root mean square, over some validation text, of how far activations of a layer lie from those
    before the first step. Raises InvalidInput for fewer than two widths or seeds, and for a step count of nothing.
    """
    return checked_coordinates(config, widths, seeds, steps, lambda one: _changes(one, data, device))


def checked_coordinates(
    config: ProxyConfig,
    widths: Sequence[int],
    seeds: Sequence[int],
    steps: int,
    changes: Callable[[ProxyConfig], Mapping[str, float]],
) -> CoordinateCheck:
    """Judge what `changes` measures of each configuration: the change of every layer by its name."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInput(field="steps", reason="must be a whole number, at least 1")
    still = {"kind": "constant"}
    plain = replace(config, n_tokens=steps * config.batch_tokens, schedule=still, measure=(), eval_every=1.0)
    found = [[changes(replace(plain, width=width, seed=seed)) for width in widths] for seed in seeds]
    of = np.array(widths, dtype=np.float64)
    layers = []
    for name in found[0][0] if found and found[0] else ():
        change = np.array([[one[name] for one in row] for row in found])
        layers.append(Layer(name, change, power_of_width(of, change)))
    if not layers:
        raise InvalidInput(field="widths", reason="there must be a width and a seed to train")
    return CoordinateCheck(config.parametrization, steps, tuple(widths), tuple(seeds), tuple(layers))


def _changes(config: ProxyConfig, data: TokenData, device: str) -> dict[str, float]:
    training = Training.start(config, data, device)
    probe = torch.from_numpy(data.validation(config)[:PROBE_SEQUENCES, :-1]).to(training.device)
    before = _activations(training.model, probe)
    training.advance()
    after = _activations(training.model, probe)
    return {name: _root_mean_square(after[name] - before[name]) for name in before}


def _activations(model: Transformer, tokens: Tensor) -> dict[str, Tensor]:
    """Return what each layer puts out for tokens [sequences, time], before nonlinearities, and the logits."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), _watched(model, seen):
        seen[LOGITS] = model(tokens)
    return seen


@contextmanager
def _watched(model: Transformer, seen: dict[str, Tensor]) -> Iterator[None]:
    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, given, put_out: seen.__setitem__(name, put_out)  # noqa: ARG005

    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding) and name != "head"
    }
    hooks = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _root_mean_square(change: Tensor) -> float:
    return float(change.double().square().mean().sqrt())
