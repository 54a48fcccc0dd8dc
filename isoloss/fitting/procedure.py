"""What a caller asks for: a fit of a law, of the law that suits best, or a comparison of laws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.fitting import staged, sweeps
from isoloss.fitting.doubts import doubted, doubts, stale
from isoloss.fitting.estimate import Progress, silent
from isoloss.fitting.one_law import Observations, fit_law
from isoloss.fitting.options import FitOptions
from isoloss.fitting.result import Fit
from isoloss.fitting.selection import Comparison, choose
from isoloss.fitting.selection import compare as compare_laws
from isoloss.laws import LAWS, StagedLaw, SweepLaw
from isoloss.observations import Curve, RunTable

AUTO = "auto"
"""Asks for the law that predicts runs best from others."""


def fit(
    law: str,
    observations: Observations,
    *,
    progress: Progress | None = None,
    left_out: Sequence[dict[str, str]] = (),
    previous: Fit | None = None,
    **options: Any,
) -> Fit:
    """Fit a law to curves, or to a table of finished runs, and say what the data determine.

    `law` is a name in `LAWS`, or "auto" for the one that predicts runs best from others; where none wins, its
    predictions are averages. `options` are those of `FitOptions`, the same as the API's. `progress(fraction,
    message)` is called as the work goes on; `left_out` lists runs that the caller could not read, for the
    record. `previous` is an earlier fit of the law: it is returned as it is, with what is left out now, where the
    data and options have not changed, and the search starts from its optimum where they have. Otherwise the same
    observations, options
    and seed give the same numbers. Raises InvalidInput for options and observations that contradict themselves,
    UnusableData where nothing can be used, and FitFailed where the law has no optimum.
    """
    asked = FitOptions.from_mapping(options)
    observations = _checked(observations)
    _check_beside(progress, left_out, previous)
    about: dict[str, Any] = {"given": options, "progress": progress or silent, "left_out": left_out}
    found = _fit(law, observations, asked, **about, previous=previous)
    if not isinstance(observations, RunTable):
        return found
    said = doubts(found.left_out, observations.n_runs)
    if previous is not None and stale(found, said):
        found = _fit(law, observations, asked, **about, previous=None)
    return doubted(found, said)


def _fit(law: str, observations: Observations, asked: FitOptions, **about: Any) -> Fit:
    if law == AUTO:
        return choose(observations, asked, **about)
    read = LAWS.get(law) if isinstance(law, str) else None
    if isinstance(read, SweepLaw):
        return sweeps.fit_sweeps(read, observations, asked, **about)
    if isinstance(read, StagedLaw):
        return staged.fit_staged(read, observations, asked, **about)
    return fit_law(law, observations, asked, **about)


def check_options(law: str, asked: FitOptions) -> None:
    """Raise InvalidInput for options that a law has no use for, before there are observations to fit."""
    read = LAWS[law]
    if isinstance(read, SweepLaw):
        sweeps.check_options(read, asked)
    elif isinstance(read, StagedLaw):
        staged.check_options(read, asked)
    else:
        asked.constrain(read)


def compare(observations: Observations, laws: Sequence[str] | None = None, **options: Any) -> Comparison:
    """Score laws, all of their kind where none are named, on runs that each predicts from the others.

    Raises as `fit` does.
    """
    if laws is not None and (isinstance(laws, str) or not isinstance(laws, Iterable)):
        raise InvalidInput(field="laws", reason=f"must be a list of names, not {type(laws).__name__}")
    asked = FitOptions.from_mapping(options)
    named = None if laws is None else list(laws)
    return compare_laws(_checked(observations), asked, laws=named, given=options, progress=silent)


def _checked(observations: object) -> Observations:
    """Return the table, or the curves as a list: what they come in may be one that is read only once."""
    if isinstance(observations, RunTable):
        return observations
    if not isinstance(observations, Iterable) or isinstance(observations, str | bytes | Mapping):
        raise _no_observations(f"not {type(observations).__name__}")
    curves = list(observations)
    for number, one in enumerate(curves):
        if not isinstance(one, Curve):
            raise _no_observations(f"but its item {number} is {type(one).__name__}")
    return curves


def _check_beside(progress: object, left_out: object, previous: object) -> None:
    """Refuse what a worker would only stumble over in the midst of a fit."""
    if progress is not None and not callable(progress):
        raise InvalidInput(field="progress", reason="must be a function of a share and a message")
    if previous is not None and not isinstance(previous, Fit):
        raise InvalidInput(field="previous", reason=f"must be a Fit, not {type(previous).__name__}")
    said = isinstance(left_out, Sequence) and all(
        isinstance(one, Mapping) and {"run_id", "reason"} <= one.keys() for one in left_out
    )
    if not said:
        raise InvalidInput(field="left_out", reason="must be a list of mappings with run_id and reason")


def _no_observations(what: str) -> InvalidInput:
    expected = "must be a list of curves (isoloss.read_curves) or a table of runs (isoloss.read_runs)"
    return InvalidInput(field="observations", reason=f"{expected}, {what}")
