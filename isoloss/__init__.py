"""Scaling laws fitted to your own training curves: what the big run should be, with honest intervals.

>>> import isoloss
>>> curves = isoloss.read_curves("curves/*.csv", runs_file="runs.json")
>>> fit = isoloss.fit("lr_annealing", curves)
>>> fit.predict(schedule={"kind": "linear", "total_steps": 50_000, "peak_lr": 1e-3, "warmup_steps": 500})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isoloss.version import __version__

_ROOMS = {
    "ApiError": "isoloss.client",
    "Client": "isoloss.client",
    "Comparison": "isoloss.fitting",
    "Curve": "isoloss.observations",
    "Fit": "isoloss.fitting",
    "FitData": "isoloss.importers",
    "IsolossError": "isoloss.errors",
    "LAWS": "isoloss.laws",
    "LoggedRun": "isoloss.readings",
    "Prediction": "isoloss.fitting",
    "Recorder": "isoloss.client",
    "RunTable": "isoloss.observations",
    "Schedule": "isoloss.schedules",
    "Selection": "isoloss.exporters",
    "compare": "isoloss.fitting",
    "export_fit": "isoloss.exporters",
    "export_notebook": "isoloss.exporters",
    "export_points": "isoloss.exporters",
    "export_runs": "isoloss.exporters",
    "fit": "isoloss.fitting",
    "init": "isoloss.client",
    "iso_flop_profile": "isoloss.advice",
    "pareto": "isoloss.advice",
    "read_curves": "isoloss.importers",
    "read_fit_data": "isoloss.importers",
    "read_points": "isoloss.importers",
    "read_runs": "isoloss.importers",
    "recommend": "isoloss.advice",
    "schedule_from_spec": "isoloss.schedules",
    "table_of_readings": "isoloss.readings",
    "watch": "isoloss.hooks",
}

__all__ = [
    "LAWS",
    "ApiError",
    "Client",
    "Comparison",
    "Curve",
    "Fit",
    "FitData",
    "IsolossError",
    "LoggedRun",
    "Prediction",
    "Recorder",
    "RunTable",
    "Schedule",
    "Selection",
    "__version__",
    "compare",
    "export_fit",
    "export_notebook",
    "export_points",
    "export_runs",
    "fit",
    "init",
    "iso_flop_profile",
    "pareto",
    "read_curves",
    "read_fit_data",
    "read_points",
    "read_runs",
    "recommend",
    "schedule_from_spec",
    "table_of_readings",
    "watch",
]

if TYPE_CHECKING:
    from isoloss.advice import iso_flop_profile, pareto, recommend
    from isoloss.client import ApiError, Client, Recorder, init
    from isoloss.errors import IsolossError
    from isoloss.exporters import Selection, export_fit, export_notebook, export_points, export_runs
    from isoloss.fitting import Comparison, Fit, Prediction, compare, fit
    from isoloss.hooks import watch
    from isoloss.importers import FitData, read_curves, read_fit_data, read_points, read_runs
    from isoloss.laws import LAWS
    from isoloss.observations import Curve, RunTable
    from isoloss.readings import LoggedRun, table_of_readings
    from isoloss.schedules import Schedule, schedule_from_spec


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: training code must not wait for SciPy."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'isoloss' has no attribute {name!r}")
    found = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
