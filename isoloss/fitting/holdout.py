"""Runs that were held out: how well the fit predicts them, and whether its intervals hold them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray
from isoloss.fitting.datasets import CurveDataset, Dataset, TableDataset
from isoloss.fitting.folds import Validation
from isoloss.fitting.intervals import conformal_factor
from isoloss.fitting.result import Fit
from isoloss.fitting.scores import mean_scores, score_runs
from isoloss.fitting.screening import HeldOut
from isoloss.fitting.task import Task
from isoloss.laws import TableLaw
from isoloss.observations import Curve, RunTable


class Held(ABC):
    """Runs that were asked to be predicted instead of fitted."""

    @abstractmethod
    def scored(self, found: Fit) -> Fit:
        """Return the fit with their scores as its holdout; unchanged where there are none."""

    @abstractmethod
    def conformity(self, found: Fit) -> FloatArray:
        """Return each run's error over the half width of the interval of a new run, (runs,)."""


@dataclass(frozen=True)
class HeldCurves(Held):
    """Held-out curves.

    The usual scores are of whole curves, as published evaluations take them. A branch shares its trunk's points
    with runs that were fitted: `unseen_mae` and `coverage`, the share of points inside the interval of a new
    run, are of the other points alone.
    """

    curves: Sequence[HeldOut]

    def scored(self, found: Fit) -> Fit:
        if not self.curves:
            return found
        if found.verdict == "unidentified":
            return replace(found, holdout=None)
        whole = CurveDataset([one.curve for one in self.curves])
        scores = score_runs(found.law, found.theta, whole)
        unseen = score_runs(found.law, found.theta, CurveDataset([one.unseen for one in self.curves]))
        for one in self.curves:
            name = one.curve.run_id
            scores["runs"][name] |= {
                "coverage": float(np.mean(_beyond(found, one.unseen) <= 1)),
                "unseen_mae": unseen["runs"][name]["mae"],
                "unseen_points": one.unseen.n_points,
            }
        return _with_scores(found, scores)

    def conformity(self, found: Fit) -> FloatArray:
        level = float(found.provenance["options"]["level"])
        return np.array([np.quantile(_beyond(found, one.unseen), level) for one in self.curves])


@dataclass(frozen=True)
class HeldRows(Held):
    """Held-out rows of a table."""

    table: RunTable

    def scored(self, found: Fit) -> Fit:
        if not self.table.n_runs or found.verdict == "unidentified":
            return replace(found, holdout=None) if self.table.n_runs else found
        data = self._data(found)
        scores = score_runs(found.law, found.theta, data)
        for name, beyond in zip(data.run_ids, _beyond_rows(found, data), strict=True):
            scores["runs"][name]["coverage"] = float(beyond <= 1)
        return _with_scores(found, scores)

    def conformity(self, found: Fit) -> FloatArray:
        return _beyond_rows(found, self._data(found))

    def _data(self, found: Fit) -> TableDataset:
        law = found.law
        assert isinstance(law, TableLaw)
        return TableDataset(self.table, law.columns)


def conformal(found: Fit, task: Task, validation: Validation, held: Held) -> Fit:
    """Return the fit whose intervals of a new run are widened until they hold their share of held-out runs.

    Those that were asked for, or the first fold's; only where there are enough of them.
    """
    if found.verdict == "unidentified" or not len(found.samples):
        return found
    level = task.options.level
    scores = held.conformity(found)
    if not len(scores) and validation.folds:
        scores = _fold_conformity(found, task.data, validation)
    factor = conformal_factor(scores, level)
    if factor is None:
        return found
    return replace(
        found,
        spread=replace(found.spread, conformal=(level, factor)),
        diagnostics={**found.diagnostics, "conformal": {"runs": len(scores), "factor": factor}},
    )


def _with_scores(found: Fit, scores: dict[str, Any]) -> Fit:
    level = found.provenance["options"]["level"]
    holdout = {
        "predicted": "the runs that were asked for",
        **scores,
        "mean": mean_scores(scores["runs"].values()),
        "level": level,
        "training": found.holdout,
    }
    return replace(found, holdout=holdout)


def _beyond(found: Fit, curve: Curve) -> FloatArray:
    """Return each point's error over the half width of its interval of a new run, (points,)."""
    config = {} if curve.weight_decay is None else {"weight_decay": curve.weight_decay}
    asked = {"schedule": curve.schedule, "steps": curve.step, "n_params": curve.n_params, "config": config}
    return _ratios(found, asked, np.log(curve.loss_nats))


def _beyond_rows(found: Fit, data: TableDataset) -> FloatArray:
    return _ratios(found, data.columns, np.log(data.observed)) if data.n_runs else np.empty(0)


def _ratios(found: Fit, asked: Any, observed: FloatArray) -> FloatArray:
    level = float(found.provenance["options"]["level"])
    centre, below, above = found.log_interval(found.ask(asked), level, new_run=True)
    error = observed - centre
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(error) / np.where(error > 0, above - centre, centre - below)
    return np.where(np.isfinite(ratio), ratio, np.inf)


def _fold_conformity(found: Fit, data: Dataset, validation: Validation) -> FloatArray:
    """Return the same for the runs of the first fold, predicted without them; of curves at their last points."""
    scores = []
    for position, error in zip(validation.folds[0].predicted, validation.errors[0], strict=True):
        if isinstance(data, CurveDataset):
            curve = data.curves[position]
            config = {} if curve.weight_decay is None else {"weight_decay": curve.weight_decay}
            asked = {
                "schedule": curve.schedule,
                "steps": curve.step[-1:],
                "n_params": curve.n_params,
                "config": config,
            }
        else:
            assert isinstance(data, TableDataset)
            asked = {name: values[[position]] for name, values in data.columns.items()}
        level = float(found.provenance["options"]["level"])
        _, below, above = found.log_interval(found.ask(asked), level, new_run=True)
        scores.append(abs(error[-1]) / max(1e-300, (above - below)[0] / 2))
    return np.array(scores)
