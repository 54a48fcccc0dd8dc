"""Readings in time that were held out: whole runs, or the last part of training; how well they are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoloss.arrays import BoolArray
from isoloss.errors import InvalidInput
from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.holdout import ASKED
from isoloss.fitting.result import Fit
from isoloss.fitting.scores import Scores, score, score_pairs
from isoloss.fitting.screening import LeftOut
from isoloss.fitting.staged.noise_scale import windows_of
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable


def check_may_hold_out(law: StagedLaw) -> None:
    """Raise InvalidInput for a law that has no use for runs that are held out."""
    if not law.holds_out:
        reason = f"{law.name} chooses what it predicts from the rest itself"
        raise InvalidInput(field="holdout", reason=reason)


@dataclass(frozen=True)
class HeldReadings:
    """Readings that were asked to be predicted instead of fitted; none where nothing was asked."""

    table: RunTable

    def sha256(self) -> str | None:
        return TableDataset(self.table, tuple(self.table.columns)).sha256() if self.table.n_runs else None

    def scored(self, found: Fit) -> Fit:
        """Return the fit with scores of what windows of the held-out readings show."""
        if not self.table.n_runs:
            return found
        windows, lost = windows_of(self.table)
        left_out = [
            *found.left_out,
            *({**one, "reason": f"held out, not scored: {one['reason']}"} for one in lost),
        ]
        if found.verdict == "unidentified" or not windows.names:
            return replace(found, holdout=None, left_out=left_out)
        level = float(found.provenance["options"]["level"])
        tokens = windows.columns["n_tokens"]
        told = found.predict(n_tokens=tokens, level=level, interval="new_run")
        held = (told.lower <= windows.outcome) & (windows.outcome <= told.upper)
        runs: dict[str, Scores] = {
            name: score(windows.outcome[[place]], told.value[[place]]) | {"coverage": float(held[place])}
            for place, name in enumerate(windows.names)
        }
        pairs = zip(windows.names, windows.outcome, told.value, strict=True)
        mean = score_pairs({name: (np.array([one]), np.array([other])) for name, one, other in pairs})["mean"]
        holdout = {
            "predicted": ASKED,
            "runs": runs,
            "mean": {**mean, "coverage": float(np.mean(held))},
            "level": level,
            "training": found.holdout,
        }
        return replace(found, holdout=holdout, left_out=left_out)


def parted(
    data: TableDataset, table: RunTable, holdout: Mapping[str, Any] | None, unread: Sequence[dict[str, str]]
) -> tuple[TableDataset, RunTable, HeldReadings]:
    """Return what is fitted, and what is held out: the readings of runs by name, or a share, the last by tokens.

    Raises InvalidInput for a name of none of them, and where nothing is left to fit.
    """
    if holdout is None:
        return data, table, HeldReadings(table.only([]))
    held = _named(table, holdout["run_ids"], unread) if "run_ids" in holdout else _last(table, holdout)
    if held.all():
        raise InvalidInput(field="holdout", reason="leaves no run to fit")
    rows = list(map(int, np.flatnonzero(~held)))
    return data.only(rows), table.only(rows), HeldReadings(table.only(np.flatnonzero(held)))


def _named(table: RunTable, names: Sequence[str], unread: LeftOut | Sequence[dict[str, str]]) -> BoolArray:
    curves, asked = table.label("curve"), set(names)
    why = {one["run_id"]: f"cannot be used: {one['reason']}" for one in unread}
    for name in sorted(asked - {*table.run_ids, *curves}):
        reason = why.get(name, "is not among the selected runs; select it too")
        raise InvalidInput(field="holdout.run_ids", reason=f"run {name!r} {reason}")
    pairs = zip(table.run_ids, curves, strict=True)
    return np.array([row in asked or curve in asked for row, curve in pairs])


def _last(table: RunTable, holdout: Mapping[str, Any]) -> BoolArray:
    held = np.zeros(table.n_runs, dtype=bool)
    order = np.argsort(table.column("n_tokens"), kind="stable")
    held[order[table.n_runs - int(np.ceil(holdout["fraction"] * table.n_runs)) :]] = True
    return held
