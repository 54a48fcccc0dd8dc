"""What laws are fitted to: loss curves of runs, and tables of finished runs."""

from isoloss.observations.counts import N_PARAMS_KINDS, n_params_of
from isoloss.observations.curves import (
    Curve,
    FloatArray,
    IntArray,
    PlannedRun,
    Trained,
    branch_learning_rates,
    learning_rates,
)
from isoloss.observations.tables import RunTable

__all__ = [
    "N_PARAMS_KINDS",
    "Curve",
    "FloatArray",
    "IntArray",
    "PlannedRun",
    "RunTable",
    "Trained",
    "branch_learning_rates",
    "learning_rates",
    "n_params_of",
]
