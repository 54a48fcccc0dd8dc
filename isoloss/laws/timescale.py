"""The best timescale of AdamW's weights over tokens per parameter, from which the weight decay follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.laws.power_product import scaling, slope
from isoloss.laws.sweep_law import Axis, Labels, SweepLaw

TIMESCALE = Axis("timescale", "\\tau", "1", ("tokens_per_param",))

SHARE = "mean_lr_share"
"""The mean learning rate of a run as a share of its peak."""

DECAY_SHARE = "mean_decay_share"
"""The same of what a step takes off the weights: 1 where that does not go with the learning rate."""

SAME_SHAPE = 0.05
"""By how much such shares may differ, relatively, within one shape of schedule: half as much as those of linear
decay (.5) and of cosine decay to a tenth (.55) do."""

FOLLOWS, CONSTANT = "lr", "constant"
"""What an independent decay goes with (`weight_decay_schedule`): the learning rate's schedule, or nothing."""


def timescale_of(
    batch_tokens: FloatArray, lr: FloatArray, weight_decay: FloatArray, n_tokens: FloatArray
) -> FloatArray:
    """Return tau = B / (eta lambda D), the fraction of training that the weights remember (laws.md 3).

    B and D in tokens, lambda the weight decay of steps w *= 1 - eta lambda. With the peak learning rate eta it is
    the tau of Bergsma et al. 2025, which compares runs of one shape of schedule alone; with its mean over the run
    it is 1 / (lambda * sum of eta), of any shape.
    """
    return batch_tokens / (lr * weight_decay * n_tokens)


def weight_decay_of_timescale(
    tau: FloatArray, batch_tokens: FloatArray, lr: FloatArray, n_tokens: FloatArray
) -> FloatArray:
    """Return the weight decay lambda = B / (eta tau D) that a timescale asks for; all as in `timescale_of`."""
    return batch_tokens / (lr * tau * n_tokens)


def of_usual_shape(shares: FloatArray) -> BoolArray:
    """Return which runs (runs,) are of the shape of schedule that most known ones have; none whose share is NaN."""
    known = shares[np.isfinite(shares)]
    within = [(known >= least) & (known <= least * (1 + SAME_SHAPE)) for least in np.unique(known)]
    if not within:
        return np.zeros(shares.size, dtype=bool)
    usual = known[max(within, key=np.count_nonzero)]
    return np.asarray((shares >= usual.min()) & (shares <= usual.max()))


class Timescale(SweepLaw):
    """tau(D/N) = coefficient (D/N)^exponent: the timescale of least loss, swept by the weight decay.

    tau = B / (eta lambda D) with the learning rate eta, B and D in tokens, lambda scaled by the learning rate. It
    concerns the matrices that are decayed. The published tau has the peak learning rate, and holds for runs of one
    shape of schedule; that of the mean learning rate, 1 / (lambda * sum of eta), compares any shapes. Source:
    Bergsma et al. 2025, arXiv 2505.13738, section 3 (laws.md 3).
    """

    name = "timescale"
    title = "Best timescale of the weights over tokens per parameter"
    formula = "tau(D/N) = coefficient * (D/N)^exponent, weight_decay = B / (eta * tau * D), eta peak or mean"
    reference = "Bergsma et al. 2025, 'Power Lines', arXiv:2505.13738"
    quantity = "timescale"
    unit = "1"
    columns = ("n_params", "n_tokens")
    axes = (TIMESCALE,)
    varies = ("the numbers of tokens per parameter",)
    remedy = "sweep the weight decay at a wider range of tokens per parameter"
    requires = (
        "config.n_params", "config.n_tokens", "config.batch_tokens", "config.peak_lr", "config.weight_decay",
        "summary.final_loss", "a schedule or config.mean_lr_share where schedules are of several shapes",
    )  # fmt: skip
    conventions: ClassVar = {
        "supported": "peak where all runs have one shape of schedule, effective where they have several or a decay "
        "does not go with the learning rate",
        "peak": "tau = B / (eta * lambda * D) with the peak learning rate, as published: of one shape of schedule",
        "effective": "tau = 1 / (lambda * sum of eta) = B / (eta * lambda * D) with the mean learning rate: of any "
        "shapes of schedule",
    }
    parameters = (
        scaling("c", "1", "the best timescale at one token per parameter"),
        slope("exponent", "m", "how the best timescale changes with the tokens per parameter D/N"),
    )

    @property
    def is_effective(self) -> bool:
        return self.convention == "effective"

    @property
    def cell(self) -> tuple[str, ...]:  # type: ignore[override]
        # Runs of two shapes are two sweeps: their losses differ by more than the decay does.
        usual = ("n_params", "n_tokens", "batch_tokens", "peak_lr")
        return (*usual, DECAY_SHARE) if self.is_effective else usual

    @property
    def alike(self) -> tuple[str, ...]:  # type: ignore[override]
        return (SHARE,) if self.is_effective else ()

    @property
    def of_one_shape(self) -> str | None:
        return DECAY_SHARE if self.convention == "peak" else None

    def variables(self, columns: Mapping[str, FloatArray]) -> list[FloatArray]:
        return [columns["n_tokens"] / columns["n_params"]]

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the tokens per parameter."""
        return columns["n_tokens"] / columns["n_params"]

    @property
    def run_columns(self) -> tuple[str, ...]:
        return (*self.cell, "weight_decay")

    @property
    def swept_by(self) -> str:
        return "weight_decay"

    def with_settings(self, columns: Mapping[str, FloatArray], labels: Labels) -> Mapping[str, FloatArray]:
        """Return the columns with `timescale`, `tokens_per_param`, and the decay's mean as a share of its peak.

        There is no timescale where nothing decays. An independent decay lambda, of steps w *= 1 - lambda, is as
        much as lambda / eta that is scaled by the peak eta. Where it goes with the schedule its mean is the
        learning rate's share of its peak, where it is constant all of it: then tau = 1 / (lambda * steps).
        """
        batch, rate, decay, data = (
            columns[name] for name in ("batch_tokens", "peak_lr", "weight_decay", "n_tokens")
        )
        scaled = np.where(_independent(labels, decay.size), decay / rate, decay)
        stated = columns.get(SHARE, np.full(decay.size, np.nan))
        known = np.where((stated > 0) & (stated <= 1), stated, np.nan)
        share = np.where(_constant(labels, decay.size), 1.0, known)
        tau = timescale_of(batch, rate * share if self.is_effective else rate, scaled, data)
        found = {"timescale": tau, DECAY_SHARE: share, SHARE: stated}
        return {**columns, **found, "tokens_per_param": data / columns["n_params"]}

    def refused(self, columns: Mapping[str, FloatArray], labels: Labels) -> Mapping[int, str]:
        """Return the runs whose decay has no timescale, or none that is known.

        A decay in the gradient Adam scales away.
        """
        share, stated = columns[DECAY_SHARE], columns[SHARE]
        reasons = {}
        for row, (kind, goes_with) in enumerate(zip(*_kinds(labels, share.size), strict=True)):
            if kind == "l2":
                reasons[row] = "its weight decay is of the kind l2, in the gradient: it has no timescale"
            elif goes_with not in (None, FOLLOWS, CONSTANT):
                reasons[row] = (
                    f"its weight_decay_schedule {goes_with!r} is neither {FOLLOWS!r} nor {CONSTANT!r}"
                )
            elif goes_with == CONSTANT and kind != "independent":
                reasons[row] = "a weight decay that is scaled by the learning rate is not constant"
            elif np.isfinite(stated[row]) and not 0 < stated[row] <= 1:
                reasons[row] = (
                    f"its {SHARE} is {stated[row]:g}: a mean lies above 0 and at most at the peak, 1"
                )
            elif self.is_effective and np.isnan(share[row]):
                reasons[row] = (
                    f"it states no schedule, nor config.{SHARE}: its mean learning rate is not known"
                )
        return reasons

    def read_for(self, columns: Mapping[str, FloatArray], labels: Labels) -> Self:
        """Return the law of the mean learning rate where shapes differ or a decay is constant, else of the peak."""
        if self.convention != "supported":
            return self
        share = columns[DECAY_SHARE].copy()
        share[~np.isfinite(columns["timescale"])] = np.nan
        share[list(self.refused(columns, labels))] = np.nan
        known = share[np.isfinite(share)]
        constant = _constant(labels, share.size)[np.isfinite(share)]
        several = not of_usual_shape(known).all()
        return self.under("effective" if several or constant.any() else "peak")

    def remarks(self, columns: Mapping[str, FloatArray]) -> Iterator[str]:
        """Yield which learning rate the timescale has, and what schedules it holds for."""
        share = columns[DECAY_SHARE][np.isfinite(columns[DECAY_SHARE])]
        if self.is_effective:
            between = (
                f"from {share.min():.0%} to {share.max():.0%} of the peak" if share.size else "not known"
            )
            yield f"tau is that of the mean learning rate (effective), which is {between}"
        elif share.size:
            yield (
                f"tau is that of the peak learning rate: it holds for schedules whose mean is {np.mean(share):.0%} "
                "of their peak, as these are"
            )
        else:
            yield "tau is that of the peak learning rate: the runs, which state no schedule, must be of one shape"

    def other_readings(self, columns: Mapping[str, FloatArray]) -> Mapping[str, float]:
        """Return the coefficient in the other of both readings, for the one shape of schedule of these runs."""
        share = columns[DECAY_SHARE][np.isfinite(columns[DECAY_SHARE])]
        if not share.size or not of_usual_shape(share).all():
            return {}
        mean = float(np.mean(share))
        return {"coefficient_peak": mean} if self.is_effective else {"coefficient_effective": 1 / mean}


def _kinds(labels: Labels, n_runs: int) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    nothing = (None,) * n_runs
    return labels.get("weight_decay_kind", nothing), labels.get("weight_decay_schedule", nothing)


def _independent(labels: Labels, n_runs: int) -> BoolArray:
    return np.array([kind == "independent" for kind in _kinds(labels, n_runs)[0]], dtype=bool)


def _constant(labels: Labels, n_runs: int) -> BoolArray:
    goes_with = np.array([one == CONSTANT for one in _kinds(labels, n_runs)[1]], dtype=bool)
    return _independent(labels, n_runs) & goes_with
