"""The shape of a model of a given size, and what the width rule says of its settings beside the laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.advice.constraints import Constraints
from isoloss.advice.quantities import Quantity
from isoloss.advice.readings import Reading
from isoloss.distributions import normal_quantile
from isoloss.fitting import Fit
from isoloss.observations import RunTable

SAME_SHAPE = 0.1
"""How far, as a share, the parameters of runs may lie from one multiple of depth times width squared."""

SAME = 1.1
"""How many times apart the data, or the batches, of two runs are that count as fixed for the width rule."""

EXPONENTS = {"peak_lr": -1.0, "weight_decay": 0.5}
"""By which power of the width a setting of hidden matrices goes (laws.md 6; Fan et al. 2025, arXiv 2510.15262)."""


@dataclass(frozen=True)
class Shape:
    """Width and depth of a model of the asked size, None where they do not follow, with the `reason`.

    Parameters are `factor` times depth times width squared, as in the runs, whose width over depth lies in
    `aspects`.
    """

    width: float | None
    depth: float | None
    factor: float | None = None
    aspects: tuple[float, float] | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "depth": self.depth,
            "params_per_depth_width2": self.factor,
            "aspect_ratios": None if self.aspects is None else list(self.aspects),
            "reason": self.reason,
        }

    @property
    def warning(self) -> str | None:
        """What to mind: a width over depth that no run had."""
        if self.width is None or self.depth is None or self.aspects is None:
            return None
        low, high = self.aspects
        if low / SAME <= self.width / self.depth <= high * SAME:
            return None
        return (
            f"its width over depth is {self.width / self.depth:.3g}, and those of the runs lie between {low:.3g} "
            f"and {high:.3g}: whether the laws hold for such a shape is not known"
        )


def shape_of(runs: RunTable, n_params: float, limits: Constraints) -> Shape | None:
    """Return the shape of a model of `n_params` with the fixed width or depth; None where neither is fixed."""
    if limits.width is None and limits.depth is None:
        return None
    size, width, depth = (runs.column(name) for name in ("n_params", "width", "depth"))
    known = np.isfinite(size) & (width > 0) & (depth > 0)
    if not known.any():
        return Shape(
            limits.width, limits.depth, reason="the runs state no width and depth with their n_params"
        )
    factors = size[known] / (depth[known] * width[known] ** 2)
    factor = float(np.median(factors))
    aspects = (float(np.min((width / depth)[known])), float(np.max((width / depth)[known])))
    off = float(np.max(np.abs(factors / factor - 1)))
    if off > SAME_SHAPE:
        reason = (
            f"the runs' parameters are no one multiple of depth * width^2 ({off:.0%} off): count them without "
            "embeddings"
        )
        return Shape(limits.width, limits.depth, None, aspects, reason)
    if limits.width is not None and limits.depth is not None:
        told = factor * limits.depth * limits.width**2
        far = max(told / n_params, n_params / told) > 1 + SAME_SHAPE
        odd = f"this width and depth have {told:.3g} parameters, not {n_params:.3g}" if far else None
        return Shape(limits.width, limits.depth, factor, aspects, odd)
    if limits.width is not None:
        return Shape(limits.width, n_params / (factor * limits.width**2), factor, aspects)
    assert limits.depth is not None
    return Shape(float(np.sqrt(n_params / (factor * limits.depth))), limits.depth, factor, aspects)


def width_rule(
    runs: RunTable,
    fits: Mapping[str, Fit],
    target: Mapping[str, float],
    width: float | None,
    batch: Quantity | None,
) -> dict[str, list[Reading]]:
    """Return the learning rate and weight decay of the widest tuned run, carried to a width; nothing without one.

    Learning rate as 1 / width, as it is under muP, and weight decay as its root: at equal data and batch alone. At
    other data or batches it contradicts the timescale law, and is refused (laws.md 6).
    """
    if width is None:
        return {}
    found: dict[str, list[Reading]] = {}
    for name, law in (("peak_lr", "optimal_lr"), ("weight_decay", "timescale")):
        own = _widest(runs, fits.get(law), target, batch)
        found[name] = [_carried(name, own, width) if isinstance(own, Tuned) else _refused(own)]
    return found


@dataclass(frozen=True)
class Tuned:
    """A sweep of one width: what it is of, its own best setting, and the error of that in logarithms."""

    width: float
    parametrization: str | None
    of: Mapping[str, float]
    value: float
    log_error: float


def _widest(
    runs: RunTable, fit: Fit | None, target: Mapping[str, float], batch: Quantity | None
) -> Tuned | str:
    """Return the widest sweep at the target's data and batch, or why there is none."""
    if fit is None or batch is None:
        return "there is no sweep of it, or no batch, to carry over"
    tuned = [
        one
        for group in fit.groups
        if group["parameters"] and group["parameters"][0]["value"] is not None
        for one in _tuned(runs, group)
        if _same(one.of["n_tokens"], target["n_tokens"])
        and _same(one.of["batch_tokens"], float(np.exp(batch.log_value)))
    ]
    if tuned:
        return max(tuned, key=lambda one: one.width)
    return (
        "the width rule holds at fixed data and batch, and no sweep has the width, the data and the batch of the "
        "target: otherwise the timescale law sets the weight decay"
    )


def _tuned(runs: RunTable, group: Mapping[str, Any]) -> Sequence[Tuned]:
    """Return a sweep with its width, none where its runs state none or several."""
    by, own = group["by"], group["parameters"]
    rows = np.all([_near(runs.column(name), by[name]) for name in ("n_params", "n_tokens")], axis=0)
    widths = {float(value) for value in runs.column("width")[rows] if value > 0}
    if len(widths) != 1:
        return []
    best = {one["name"]: one["value"] for one in own}
    batches = runs.column("batch_tokens")[rows]
    batch = by.get("batch_tokens", best.get("batch_tokens", float(np.median(batches))))
    said = {value for value, kept in zip(runs.label("parametrization"), rows, strict=True) if kept}
    first = own[0]
    value, error = first["value"], first["std_error"] / first["value"]
    if first["name"] == "timescale":  # as the weight decay that gives it
        value = batch / (by["peak_lr"] * by.get("mean_decay_share", 1.0) * value * by["n_tokens"])
    of = {**{name: by[name] for name in ("n_params", "n_tokens")}, "batch_tokens": float(batch)}
    return [Tuned(widths.pop(), said.pop() if len(said) == 1 else None, of, float(value), float(error))]


def _near(values: Any, at: float) -> Any:
    return np.abs(values / at - 1) < 1e-6


def _same(one: float, other: float) -> bool:
    return max(one / other, other / one) <= SAME


def _carried(name: str, own: Tuned, width: float) -> Reading:
    exponent = 0.0 if name == "peak_lr" and own.parametrization == "mup" else EXPONENTS[name]
    log_value = float(np.log(own.value) + exponent * np.log(width / own.width))
    # Its quantiles, in the place of resamples: the error of an optimum is Gaussian in the logarithm.
    spread = own.log_error * normal_quantile((np.arange(1000) + 0.5) / 1000)
    at = {**own.of, "width": width, "tuned_at_width": own.width}
    return Reading("width_rule", "1", at, log_value, log_value + spread)


def _refused(reason: str) -> Reading:
    return Reading("width_rule", "1", {}, reason=reason)
