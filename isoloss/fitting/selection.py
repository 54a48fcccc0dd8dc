"""Which law: each is scored on runs that it predicts from others; the best is taken, or an average of equals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from isoloss.errors import FitFailed, InvalidInput, UnusableData
from isoloss.fitting.estimate import Progress, silent
from isoloss.fitting.one_law import Observations, fit_law, rescored, still_holds, with_present_left_out
from isoloss.fitting.options import FitOptions
from isoloss.fitting.result import Fit
from isoloss.laws import LAWS, CurveLaw, TableLaw
from isoloss.observations import RunTable

OF_ONE_LAW = ("fix", "bounds", "expr", "priors", "prior_strength", "convention")
"""Options that name a law's own parameters, and mean nothing while the law is not chosen."""

TIE = 0.1
"""Laws whose scores lie within this share of the best one are equals: none of them wins."""


@dataclass(frozen=True)
class Comparison:
    """Laws by the error that they make on runs predicted from others.

    `fits` without resamples, the best law first; `scores` the root mean square log error over the `folds` that
    all of them could predict; `weights` of the laws that none beats, the best alone where it wins; `margin` by
    what share the best is better than the second, None where there is no second; `not_compared` the other laws
    with why.
    """

    fits: Mapping[str, Fit]
    scores: Mapping[str, float]
    weights: Mapping[str, float]
    margin: float | None
    folds: tuple[str, ...]
    not_compared: Mapping[str, str]

    @property
    def best(self) -> str:
        return next(iter(self.fits))

    def as_dict(self) -> dict[str, Any]:
        """Return what a result says of the choice, as plain JSON values."""
        return {
            "best": self.best,
            "wins": len(self.weights) == 1,
            "margin": self.margin,
            "scores": dict(self.scores),
            "weights": dict(self.weights),
            "folds": list(self.folds),
            "not_compared": dict(self.not_compared),
        }


def compare(
    observations: Observations,
    asked: FitOptions,
    *,
    laws: Sequence[str] | None = None,
    given: Mapping[str, Any],
    progress: Progress,
    left_out: Sequence[dict[str, str]] = (),
) -> Comparison:
    """Score laws on the same observations; all of their kind where none are named.

    Raises InvalidInput for options of a single law, UnusableData where no law could be scored.
    """
    check_of_any_law(given)
    names = list(laws) if laws is not None else _of_kind(observations)
    if not names:
        raise InvalidInput(field="laws", reason="must name at least one law")
    quick = replace(asked, bootstrap=0)
    observations, unread = _of_all(observations, names)
    left_out = [*left_out, *unread]
    fits: dict[str, Fit] = {}
    not_compared: dict[str, str] = {}
    for number, name in enumerate(names):
        progress(number / len(names), f"scoring {name}")
        try:
            fits[name] = fit_law(name, observations, quick, given=given, progress=silent, left_out=left_out)
        except (UnusableData, FitFailed) as error:
            not_compared[name] = str(error)
    return _ranked(fits, not_compared)


def check_of_any_law(given: Mapping[str, Any]) -> None:
    """Raise InvalidInput for options that name a law's own parameters."""
    for name in OF_ONE_LAW:
        if name in given and given[name] not in ({}, None):
            raise InvalidInput(field=name, reason="belongs to one law: name the law that it is meant for")


def choose(
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    progress: Progress,
    left_out: Sequence[dict[str, str]] = (),
    previous: Fit | None = None,
) -> Fit:
    """Fit the law that wins; where none does, the best, whose predictions are averages over its equals."""
    of_one = partial(fit_law, observations=observations, asked=asked, given=given, left_out=left_out)
    about = (observations, asked)
    if (
        previous is not None
        and previous.selection is not None
        and still_holds(previous, *about, given=given, left_out=left_out)
    ):
        return with_present_left_out(previous, *about, given=given, left_out=left_out)
    compared = compare(*about, given=given, progress=_part(progress, 0.0, 0.3), left_out=left_out)
    members = []
    for number, name in enumerate(compared.weights):
        low, high = (0.3 + 0.7 * part / len(compared.weights) for part in (number, number + 1))
        before = previous if previous is not None and previous.law_name == name else compared.fits[name]
        member = of_one(name, progress=_part(progress, low, high), previous=before)
        members.append((compared.weights[name], member))
    first, others = members[0][1], tuple(members[1:])
    others_said = [f"{name} was not compared: {why}" for name, why in compared.not_compared.items()]
    said = [_statement(compared), *first.reasons, *others_said]
    chosen = replace(first, selection=compared.as_dict(), equals=others, reasons=said)
    return rescored(chosen, *about, given=given, left_out=left_out) if others else chosen


def _of_all(observations: Observations, names: Sequence[str]) -> tuple[Observations, list[dict[str, str]]]:
    """Return the runs of a table that all of these laws can read, so that their scores are of the same runs.

    Beside them the others with the reason. All runs, where no run is known to all laws.
    """
    laws = [law for name in names if isinstance(law := LAWS.get(name), TableLaw)]
    if not isinstance(observations, RunTable) or not laws:
        return observations, []
    columns = sorted({column for law in laws for column in law.columns})
    known = np.all([np.isfinite(observations.column(column)) for column in columns], axis=0)
    if not known.any():
        return observations, []
    why = f"laws are compared on runs that have {' and '.join(columns)}"
    others = [{"run_id": observations.run_ids[row], "reason": why} for row in np.flatnonzero(~known)]
    return observations.only(np.flatnonzero(known)), others


def _of_kind(observations: Observations) -> list[str]:
    kind = TableLaw if isinstance(observations, RunTable) else CurveLaw
    return [
        name
        for name, law in LAWS.items()
        if isinstance(law, kind) and not (isinstance(law, TableLaw) and not law.predicts_outcomes)
    ]


def _ranked(fits: Mapping[str, Fit], not_compared: dict[str, str]) -> Comparison:
    errors = {name: _errors(fit) for name, fit in fits.items()}
    for name in [name for name, found in errors.items() if not found]:
        not_compared[name] = _why_not(fits[name])
        del errors[name]
    if not errors:
        why = "; ".join(f"{name}: {reason}" for name, reason in not_compared.items())
        raise UnusableData(reason=f"no law could be scored on runs that it predicts from others: {why}")
    most = len(_widest(errors))
    folds = [
        fold for fold in max(errors.values(), key=len) if all(fold in found for found in errors.values())
    ]
    for name, found in list(errors.items()):
        if len(found) < most and not folds:
            not_compared[name] = "it predicts no runs that the other laws predict too"
            del errors[name]
    folds = folds or list(_widest(errors))
    scores = {
        name: float(np.sqrt(np.mean([found[fold] ** 2 for fold in folds]))) for name, found in errors.items()
    }
    order = sorted(scores, key=scores.__getitem__)
    return Comparison(
        fits={name: fits[name] for name in order},
        scores={name: scores[name] for name in order},
        weights=_weights(scores, order),
        margin=None if len(order) < 2 else 1 - scores[order[0]] / max(scores[order[1]], 1e-300),
        folds=tuple(folds),
        not_compared=not_compared,
    )


def _widest(errors: Mapping[str, dict[str, float]]) -> dict[str, float]:
    return max(errors.values(), key=lambda found: len(found))


def _errors(fit: Fit) -> dict[str, float]:
    """Return the root mean square log error of each fold by its name; nothing for an unidentified law."""
    if fit.verdict == "unidentified" or fit.holdout is None:
        return {}
    training = fit.holdout.get("training", fit.holdout) or {}
    return {
        one["predicted"]: one["score"] for one in (training, *training.get("others", ())) if "score" in one
    }


def _why_not(fit: Fit) -> str:
    if fit.verdict == "unidentified":
        return "; ".join(fit.reasons[:2])
    return "no runs could be predicted from the others"


def _weights(scores: Mapping[str, float], order: Sequence[str]) -> dict[str, float]:
    """Return the weights of the laws within `TIE` of the best: inverse squares of their scores."""
    equals = [name for name in order if scores[name] <= scores[order[0]] * (1 + TIE)]
    raw = {name: 1 / max(scores[name], 1e-12) ** 2 for name in equals}
    return {name: weight / sum(raw.values()) for name, weight in raw.items()}


def _statement(compared: Comparison) -> str:
    best = compared.best
    error = f"{100 * compared.scores[best]:.2g} percent off on runs predicted from others"
    if compared.margin is None:
        return f"{best} is the only law that could be scored, {error}"
    if len(compared.weights) == 1:
        return f"{best} was chosen: {error}, {compared.margin:.0%} better than the next law"
    names = ", ".join(f"{name} {weight:.0%}" for name, weight in compared.weights.items())
    return f"no law wins ({best} is {error}): predictions average {names}"


def _part(progress: Progress, low: float, high: float) -> Progress:
    return lambda fraction, message: progress(low + fraction * (high - low), message)
