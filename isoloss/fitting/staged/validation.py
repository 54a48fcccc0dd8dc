"""How well the largest are predicted from the smaller by a law that is fitted in stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoloss.arrays import BoolArray, FloatArray
from isoloss.fitting.datasets import STAGES
from isoloss.fitting.options import FitOptions
from isoloss.fitting.staged.chains import Chain, Found, Points, Study
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable


@dataclass(frozen=True)
class Stage:
    """Points, named in words, that were predicted from others: `told` (points,) of them.

    `by_noise` is the standard deviation, in logarithms, of their mean as noise moves it.
    """

    what: str
    n_fitted: int
    points: Points
    told: FloatArray
    by_noise: float

    @property
    def error(self) -> FloatArray:
        """Return by how much each is off, (points,) in logarithms."""
        return np.asarray(np.log(self.told / self.points.outcome))


def by_moves(chain: Chain) -> Study:
    """Return the study of a chain for the runs as they are, and then for each run one standard deviation higher.

    The differences are what noise does to all that was found (the delta method, by finite differences).
    """

    def study(law: StagedLaw, table: RunTable, asked: FitOptions, *, whole: bool = True) -> Found:  # noqa: ARG001
        showed = np.log(table.column(law.reads) if law.reads is not None else table.outcome)[None]
        noise = chain(table, showed).noise
        return chain(table, np.concatenate([showed, showed + noise * np.eye(table.n_runs)]))

    return study


def validated(
    law: StagedLaw, table: RunTable, asked: FitOptions, all_found: Found, study: Study
) -> list[Stage]:
    """Return the stages in which the largest points can be predicted from smaller ones, the largest first.

    Large are points by the column `law.cut_by`. Those of one curve are predicted from the other curves too.
    """
    points = all_found.points
    size = points.columns[law.cut_by]
    stages = []
    for largest in np.unique(size)[::-1][:STAGES]:
        what = f"the {_named(law.cut_by, float(largest))}, from smaller ones"
        stages.append(_stage(law, table, asked, all_found, study, size == largest, size < largest, what))
    curve = points.columns.get("curve", np.zeros(size.size))
    for one in np.unique(curve) if np.unique(curve).size > 1 else ():
        what = (
            f"the readings of {points.names[int(np.argmax(curve == one))].partition(',')[0]}, from the others"
        )
        stages.append(_stage(law, table, asked, all_found, study, curve == one, curve != one, what))
    return [one for one in stages if one is not None]


def _stage(
    law: StagedLaw,
    table: RunTable,
    options: FitOptions,
    all_found: Found,
    study: Study,
    predicted: BoolArray,
    fitted: BoolArray,
    what: str,
) -> Stage | None:
    """Return points predicted from others, None where these do not determine the law."""
    points = all_found.points
    rows = sorted({row for place in np.flatnonzero(fitted) for row in points.rows[int(place)]})
    if not rows or not predicted.any():
        return None
    found = study(law, table.only(rows), options, whole=False)
    lacking = found.missing.keys() - all_found.missing.keys() - set(found.open)
    if lacking or not np.all(np.isfinite(found.theta[0])):
        return None
    asked = points.only(np.flatnonzero(predicted))
    told = told_of(law, found.theta, asked)
    return Stage(what, len(rows), asked, told[0], _error_of_mean(told, drawn=found.drawn))


def _named(column: str, value: float) -> str:
    words = {
        "n_params": f"runs of {value:g} parameters",
        "batch_tokens": f"batches of {value:g} tokens",
        "window": f"readings from {value:.3g} tokens on",
    }
    return words[column]


def told_of(law: StagedLaw, theta: FloatArray, points: Points) -> FloatArray:
    """Return what the law with theta (members, parameters) says of points, (members, points)."""
    columns = {name: points.columns[name] for name in law.columns}
    return law.predict(theta, law.prepare(columns))


def _error_of_mean(told: FloatArray, *, drawn: bool) -> float:
    """Return the standard error of the mean logarithm of `told` (members, points); members as in `Found`."""
    means = np.log(told).mean(axis=1)
    moves = means[1:] - means[0]
    if drawn:
        known = moves[np.isfinite(moves)]
        return float(np.sqrt(np.mean(known**2))) if known.size else 0.0
    return float(np.sqrt(np.sum(moves[np.isfinite(moves)] ** 2)))
