"""Runs that were held out: how well the fit predicts them, and whether its intervals hold them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput, Unidentified, UnusableData
from isoloss.fitting.datasets import CurveDataset, Dataset, TableDataset
from isoloss.fitting.folds import Validation
from isoloss.fitting.intervals import conformal_factor
from isoloss.fitting.ranges import CurveQuestion, CurveQuestions, Question
from isoloss.fitting.result import Fit
from isoloss.fitting.scores import Scores, mean_scores, score, score_rows
from isoloss.fitting.screening import HeldOut
from isoloss.fitting.task import Task
from isoloss.laws import TableLaw
from isoloss.observations import Curve, RunTable

ASKED = "the runs that were asked for"


class Held(ABC):
    """Runs that were asked to be predicted instead of fitted."""

    @abstractmethod
    def scored(self, found: Fit) -> Fit:
        """Return the fit with their scores as its holdout; unchanged where there are none.

        Coverage is that of the intervals before `conformal`.
        """

    @abstractmethod
    def sha256(self) -> str | None:
        """Return the hash of the runs; None where there are none."""

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
        runs, unpredictable = {}, []
        for one in self.curves:
            try:
                runs[one.curve.run_id] = self._score(found, one)
            except (InvalidInput, Unidentified, UnusableData) as error:
                reason = f"held out, not scored: {error}"
                unpredictable.append({"run_id": one.curve.run_id, "reason": reason})
        left_out = [
            said for said in found.left_out if said["run_id"] not in runs and said not in unpredictable
        ]
        mean = mean_scores(runs.values())
        return _with_scores(replace(found, left_out=[*left_out, *unpredictable]), runs, mean)

    def _score(self, found: Fit, one: HeldOut) -> Scores:
        whole, beyond = (_log_predicted(found, curve) for curve in (one.curve, one.unseen))
        return score(one.curve.loss_nats, np.exp(whole[0])) | {
            "coverage": float(np.mean(_ratios(beyond, one.unseen.loss_nats) <= 1)),
            "unseen_mae": score(one.unseen.loss_nats, np.exp(beyond[0]))["mae"],
            "unseen_points": one.unseen.n_points,
        }

    def sha256(self) -> str | None:
        return CurveDataset([one.curve for one in self.curves]).sha256() if self.curves else None

    def conformity(self, found: Fit) -> FloatArray:
        level = float(found.provenance["options"]["level"])
        scored = found.holdout["runs"] if found.holdout else {}
        curves = [one.unseen for one in self.curves if one.curve.run_id in scored]
        ratios = [_ratios(_log_predicted(found, curve), curve.loss_nats) for curve in curves]
        return np.array([np.quantile(ratio, level) for ratio in ratios])


@dataclass(frozen=True)
class HeldRows(Held):
    """Held-out rows of a table."""

    table: RunTable

    def scored(self, found: Fit) -> Fit:
        if not self.table.n_runs or found.verdict == "unidentified":
            return replace(found, holdout=None) if self.table.n_runs else found
        try:
            ends = _log_ends(found, self._asked(found))
        except (InvalidInput, Unidentified) as error:
            reason = f"held out, not scored: {error}"
            unscored = [{"run_id": name, "reason": reason} for name in self.table.run_ids]
            return replace(found, holdout=None, left_out=[*found.left_out, *unscored])
        ratios = _ratios(ends, self.table.outcome)
        columns = zip(self.table.run_ids, self.table.outcome, np.exp(ends[0]), ratios, strict=True)
        runs = {
            name: score(np.array([outcome]), np.array([predicted])) | {"coverage": float(ratio <= 1)}
            for name, outcome, predicted, ratio in columns
        }
        mean = mean_scores(runs.values()) | score_rows(self.table.outcome, np.exp(ends[0]))
        return _with_scores(found, runs, mean)

    def _asked(self, found: Fit) -> dict[str, FloatArray]:
        """Return the columns that the fit's law and its equals read."""
        laws = [one.law for one in (found, *(equal for _, equal in found.equals))]
        names = {name for law in laws if isinstance(law, TableLaw) for name in law.columns}
        return {name: self.table.column(name) for name in sorted(names)}

    def sha256(self) -> str | None:
        return TableDataset(self.table, tuple(self.table.columns)).sha256() if self.table.n_runs else None

    def conformity(self, found: Fit) -> FloatArray:
        if not self.table.n_runs or found.holdout is None:
            return np.empty(0)
        return _ratios(_log_ends(found, self._asked(found)), self.table.outcome)


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


def uncorrected(found: Fit) -> Fit:
    """Return the fit, and its equals, as before `conformal`: runs that widened an interval do not test it."""
    equals = tuple((weight, uncorrected(one)) for weight, one in found.equals)
    return replace(found, spread=replace(found.spread, conformal=None), equals=equals)


def _with_scores(found: Fit, runs: dict[str, Scores], mean: Scores) -> Fit:
    """Return the fit with the scores of held-out runs; what it had before was said of the fitted ones."""
    before = found.holdout or {}
    holdout = {
        "predicted": ASKED,
        "runs": runs,
        "mean": mean,
        "level": found.provenance["options"]["level"],
        "training": before["training"] if before.get("predicted") == ASKED else found.holdout,
    }
    return replace(found, holdout=holdout)


Ends = tuple[FloatArray, FloatArray, FloatArray]


def _log_predicted(found: Fit, curve: Curve) -> Ends:
    """Return the log prediction of a curve and the ends of the interval of a new run, (points,) each."""
    return _log_interval(found, _question(found, curve, curve.step))


def _log_ends(found: Fit, columns: Mapping[str, Any]) -> Ends:
    return _log_interval(found, found.ask(columns))


def _log_interval(found: Fit, question: Question) -> Ends:
    level = float(found.provenance["options"]["level"])
    return found.log_interval(question, level, new_run=True)


def _question(found: Fit, curve: Curve, steps: IntArray) -> CurveQuestion:
    config = {} if curve.weight_decay is None else {"weight_decay": curve.weight_decay}
    asked = {"schedule": curve.schedule, "steps": steps, "n_params": curve.n_params, "config": config}
    question = found.ask(asked)
    assert isinstance(question, CurveQuestion)
    return question


def _ratios(ends: Ends, observed: FloatArray) -> FloatArray:
    """Return each point's error over the half width of its interval, (points,); infinite where it has none."""
    centre, below, above = ends
    error = np.log(observed) - centre
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(error) / np.where(error > 0, above - centre, centre - below)
    return np.where(np.isfinite(ratio), ratio, np.inf)


def _fold_conformity(found: Fit, data: Dataset, validation: Validation) -> FloatArray:
    """Return the same for the runs of the first fold, predicted without them; of curves at their last points."""
    left_out = list(validation.folds[0].predicted)
    if isinstance(data, CurveDataset):
        curves = [data.curves[position] for position in left_out]
        each = tuple(_question(found, curve, curve.step[-1:]) for curve in curves)
        _, below, above = _log_interval(found, CurveQuestions(each))
    else:
        assert isinstance(data, TableDataset)
        _, below, above = _log_ends(found, {name: values[left_out] for name, values in data.columns.items()})
    errors = np.array([abs(error[-1]) for error in validation.errors[0]])
    return np.asarray(errors / np.fmax(1e-300, (above - below) / 2))
