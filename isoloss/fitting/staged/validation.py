"""How well the largest models are predicted from the smaller ones by a law that is fitted in stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import STAGES
from isoloss.fitting.staged.chains import Chain, Found, Points
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable


@dataclass(frozen=True)
class Stage:
    """Points of one model size, in words, that were predicted from smaller sizes: `told` (points,) of them.

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


def moved(chain: Chain, table: RunTable, law: StagedLaw) -> Found:
    """Return what a chain finds for the runs as they are, and then for each run one standard deviation higher.

    The differences are what noise does to all that was found (the delta method, by finite differences).
    """
    showed = np.log(table.column(law.reads) if law.reads is not None else table.outcome)[None]
    noise = chain(table, showed).noise
    return chain(table, np.concatenate([showed, showed + noise * np.eye(table.n_runs)]))


def validated(law: StagedLaw, table: RunTable, points: Points, chain: Chain) -> list[Stage]:
    """Return the stages in which sizes can be predicted from smaller ones, the largest size first."""
    size = table.column("n_params")
    stages = []
    for largest in np.unique(size)[::-1][:STAGES]:
        smaller = table.only(np.flatnonzero(size < largest))
        asked = points.only(np.flatnonzero(points.columns["n_params"] == largest))
        if not smaller.n_runs or not asked.names:
            continue
        found = moved(chain, smaller, law)
        if not found.missing and np.all(np.isfinite(found.theta[0])):
            what = f"the runs of {largest:g} parameters, from smaller ones"
            told = told_of(law, found.theta, asked)
            stages.append(Stage(what, smaller.n_runs, asked, told[0], _error_of_mean(told)))
    return stages


def told_of(law: StagedLaw, theta: FloatArray, points: Points) -> FloatArray:
    """Return what the law with theta (members, parameters) says of points, (members, points)."""
    columns = {name: points.columns[name] for name in law.columns}
    return law.predict(theta, law.prepare(columns))


def _error_of_mean(told: FloatArray) -> float:
    """Return the standard error of the mean logarithm, of which `told` (1 + runs, points) move one run each."""
    means = np.log(told).mean(axis=1)
    moves = means[1:] - means[0]
    return float(np.sqrt(np.sum(moves[np.isfinite(moves)] ** 2)))
