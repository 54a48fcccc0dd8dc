"""How well the largest runs are predicted from the rest by a law that is fitted in stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import Fold, TableDataset
from isoloss.fitting.staged.chains import Chain
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable


@dataclass(frozen=True)
class Stage:
    """Runs that were predicted from smaller ones: (runs,) what was told of them."""

    fold: Fold
    told: FloatArray


def validated(law: StagedLaw, table: RunTable, chain: Chain) -> list[Stage]:
    """Return the stages in which runs can be predicted from smaller ones, the largest runs first."""
    data = TableDataset(table, law.columns)
    stages = []
    for fold in data.folds(law):
        rest = table.only(sorted(fold.fitted))
        found = chain(rest, np.ones((1, rest.n_runs)))
        if found.missing or not np.all(np.isfinite(found.theta)):
            continue
        asked = {name: table.column(name)[list(fold.predicted)] for name in law.columns}
        stages.append(Stage(fold, law.predict(found.theta, law.prepare(asked))[0]))
    return stages
