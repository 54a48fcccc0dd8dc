"""The coordinate check: do the updates of wider models change as much as those of narrow ones?

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
from torch.nn import functional

from isoloss.arrays import FloatArray
from isoloss.errors import InvalidInput
from isoloss.proxies.across_seeds import Spread, power_of_width
from isoloss.proxies.configuration import ProxyConfig
from isoloss.proxies.data import TokenData
from isoloss.proxies.model import Transformer
from isoloss.proxies.training import Training

STEADY = 0.25
"""By which power of the width changes may go: half of 1/2, the least by which a wrong rule lets them go."""

FADES = 0.75
"""The same for logits downwards: what their first weights make of moved activations goes as width^-1/2 under muP,
and outweighs what is learnt as long as that is little."""

PROBE_SEQUENCES = 4
LOGITS, HEAD = "logits", "head"


@dataclass(frozen=True)
class Layer:
    """What a layer's update did to activations: `change` (seeds, widths), and by which `power` of the width."""

    name: str
    change: FloatArray
    power: Spread

    @property
    def verdict(self) -> str:
        """steady, grows, shrinks, or undecided where the interval says neither."""
        limits = (-FADES if self.name == LOGITS else -STEADY, STEADY)
        if self.power.lies_within(*limits):
            return "steady"
        if self.power.lies_beyond(*limits):
            return "grows" if self.power.value > 0 else "shrinks"
        return "undecided"


@dataclass(frozen=True)
class CoordinateCheck:
    """What updates did to activations after `steps` steps, for every layer, over `widths` and seeds."""

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
        powers = [layer.power.value for layer in self.layers if layer.name != LOGITS]
        least, most = min(powers, default=0.0), max(powers, default=0.0)
        return (
            f"passes: {where} what layers' updates change goes as powers {least:.2f} to {most:.2f} of the width; "
            f"up to {STEADY} either way counts as steady. "
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
    steps: int = 5,
    device: str = "cpu",
) -> CoordinateCheck:
    """Train models of several widths for a few steps, at the configuration's peak learning rate throughout.

    The change of a layer is what its own update adds to its output, (W - W before the first step) times its present
    input, as a root mean square over some validation text; so the update of a layer is not hidden behind what
    earlier layers pass on. That of the logits is the whole one. Raises InvalidInput for fewer than two widths or
    seeds, and for a step count of nothing.
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
    configs = [[replace(plain, width=width, seed=seed) for width in widths] for seed in seeds]
    if not configs or not configs[0]:
        raise InvalidInput(field="widths", reason="there must be a width and a seed to train")
    found = [[changes(one) for one in row] for row in configs]
    of = np.array(widths, dtype=np.float64)
    layers = []
    for name in found[0][0]:
        change = np.array([[one[name] for one in row] for row in found])
        layers.append(Layer(name, change, power_of_width(of, change)))
    return CoordinateCheck(config.parametrization, steps, tuple(widths), tuple(seeds), tuple(layers))


def _changes(config: ProxyConfig, data: TokenData, device: str) -> dict[str, float]:
    training = Training.start(config, data, device)
    model = training.model
    probe = torch.from_numpy(data.validation(config)[:PROBE_SEQUENCES, :-1]).to(training.device)
    first = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        before = model(probe)
    training.advance()
    taken: dict[str, Tensor] = {}
    with torch.no_grad():
        with _inputs(model, taken):
            found = {LOGITS: _root_mean_square(model(probe) - before)}
        for name, given in taken.items():
            owner = "embedding" if name == HEAD and model.head is None else name
            change = model.get_parameter(f"{owner}.weight") - first[f"{owner}.weight"]
            found[name] = _root_mean_square(_put_out(change, given))
    return found


def _put_out(weight: Tensor, given: Tensor) -> Tensor:
    """Return what a matrix makes of features, or an embedding of tokens."""
    is_features = given.is_floating_point()
    return functional.linear(given, weight) if is_features else functional.embedding(given, weight)


@contextmanager
def _inputs(model: Transformer, taken: dict[str, Tensor]) -> Iterator[None]:
    """Keep what each matrix of the model is given, by the matrix's name."""

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, given: taken.__setitem__(name, given[0])  # noqa: ARG005

    def keep_for_head(module: nn.Module, given: Any, put_out: Tensor) -> None:  # noqa: ARG001
        taken[HEAD] = put_out * model.output_multiplier

    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    ]
    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in layers if name != HEAD]
    hooks.append(model.output_norm.register_forward_hook(keep_for_head))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _root_mean_square(change: Tensor) -> float:
    return float(change.double().square().mean().sqrt())
