"""Which curves and points enter a fit, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting.options import FitOptions
from isoloss.observations import Curve

LeftOut = list[dict[str, str]]


def screen(
    curves: Sequence[Curve], options: FitOptions, unread: Sequence[dict[str, str]] = ()
) -> tuple[list[Curve], LeftOut]:
    """Return the curves to fit, cut to the asked steps, and what was left out with its reason.

    `unread` are the runs that the caller could not read as curves; they head the list.

    Raises InvalidInput for two curves of one run and for mixed kinds of parameter counts, and UnusableData
    where nothing is left.
    """
    for name, times in Counter(curve.run_id for curve in curves).items():
        if times > 1:
            raise InvalidInput(field="select", reason=f"run {name!r} stands in it {times} times")
    kept: list[Curve] = []
    left_out: LeftOut = list(unread)
    for curve in curves:
        cut = curve.from_step(first_fitted_step(curve, options))
        twin = next((one for one in kept if _same_points(one, cut)), None)
        if not cut.n_points:
            left_out.append({"run_id": curve.run_id, "reason": "it has no points behind the skipped steps"})
        elif twin is not None:
            left_out.append(
                {"run_id": curve.run_id, "reason": f"its points are those of run {twin.run_id!r}"}
            )
        else:
            kept.append(cut)
    _check_sizes(kept)
    if not kept:
        why = f": {left_out[0]['reason']}" if left_out else ""
        raise UnusableData(reason=f"no run is left to fit{why}")
    return kept, left_out


def _same_points(one: Curve, other: Curve) -> bool:
    """Return whether two runs are one run under two names: it would count twice."""
    return np.array_equal(one.step, other.step) and np.array_equal(one.loss_nats, other.loss_nats)


def first_fitted_step(curve: Curve, options: FitOptions) -> int:
    """Return the first step whose point enters: behind `skip_steps`, or behind the warm-up where none is given."""
    skipped = curve.schedule.warmup_steps if options.skip_steps is None else options.skip_steps
    return skipped + 1


def _check_sizes(curves: Sequence[Curve]) -> None:
    kinds = sorted({curve.n_params_kind for curve in curves if curve.n_params_kind is not None})
    if len(kinds) > 1:
        reason = f"the runs count their parameters in {' and '.join(kinds)}; ask for one by n_params_kind"
        raise InvalidInput(field="n_params_kind", reason=reason)
    without = [curve.run_id for curve in curves if curve.n_params is None]
    if without and len(without) < len(curves):
        reason = f"missing in run {without[0]!r} ({len(without)} runs) and given in others"
        raise InvalidInput(field="config.n_params", reason=reason)


def split(curves: Sequence[Curve], options: FitOptions) -> tuple[list[Curve], list[Curve]]:
    """Return (runs to fit, runs to predict).

    A fraction holds out the runs that trained furthest, by their sum of learning rates: the direction in which
    the law will be used.
    """
    if options.holdout is None:
        return list(curves), []
    if "run_ids" in options.holdout:
        held = set(options.holdout["run_ids"])
        unknown = sorted(held - {curve.run_id for curve in curves})
        if unknown:
            raise InvalidInput(
                field="holdout.run_ids", reason=f"run {unknown[0]!r} is not among the runs to fit"
            )
    else:
        count = int(np.ceil(options.holdout["fraction"] * len(curves)))
        furthest = sorted(
            curves, key=lambda curve: (float(curve.schedule.area(curve.step[-1:])[0]), curve.run_id)
        )
        held = {curve.run_id for curve in furthest[len(curves) - count :]}
    fitted = [curve for curve in curves if curve.run_id not in held]
    if not fitted:
        raise InvalidInput(field="holdout", reason="leaves no run to fit")
    return fitted, [curve for curve in curves if curve.run_id in held]
