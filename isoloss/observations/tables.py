"""A table of finished runs: what each was, and the one number that came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.observations.counts import check_kind, fits_float, mapping_of, n_params_of
from isoloss.observations.curves import FloatArray
from isoloss.schedules import schedule_from_spec

LeftOut = list[dict[str, str]]

MOST_NAMED = 8
"""Runs that a note names one by one."""

DIVERGED = "diverged"
UNFINISHED = ("running", "failed", "preempted")
"""Statuses of runs whose summary is of the moment at which they stood still, or stand: no outcome."""

WHY_LEFT_OUT = {
    DIVERGED: "it diverged",
    **{status: f"it has not finished: its status is {status}" for status in UNFINISHED},
}
"""By the status of a run, why no law of finished runs is fitted to it."""

COMPUTE = "compute_flops"

LOGGED_BY = "logged_by"
"""The label that names the run whose logged points a row is, or is a mean of; rows that are runs have none."""

FOLLOWING: Mapping[str, tuple[float, tuple[str, ...]]] = {
    COMPUTE: (6.0, ("n_params", "n_tokens")),
    "batch_tokens": (1.0, ("batch_sequences", "sequence_length")),
}
"""Columns that follow from others where a run does not state them: a factor, and what it multiplies."""

SUMMARY_FIELDS = {"loss": "final_loss", "val_loss": "final_val_loss", "reward": "reward"}
"""Where the summary of a finished run has what a fit is asked to target."""


SUMMARY_COLUMNS = ("steps_to_target", "target_loss")
"""What a summary says beside the outcome: columns of their own."""


@dataclass(frozen=True)
class RunTable:
    """Finished runs, one a row: `columns` of what they were, and the `outcome` (runs,) of each.

    `columns` maps fields of a run's configuration (n_params, n_tokens, batch_tokens, peak_lr, ...) to (runs,)
    values, NaN where a run does not say. `outcome` is what the runs' summaries say of the `target`, NaN where a
    run says nothing; losses in nats per token. `n_params` counts parameters of the kind `n_params_kind`. `notes`
    say in words what was changed or left out when the table was made. `labels` maps fields that are text (the
    runs' `status`, `recipe`, `dataset`, `weight_decay_kind`, ...) to a value for each run, None where it has none.
    """

    run_ids: tuple[str, ...]
    columns: Mapping[str, FloatArray]
    outcome: FloatArray
    target: str = "loss"
    n_params_kind: str | None = None
    notes: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kind(self.n_params_kind)
        _check_target(self.target)
        if not isinstance(self.run_ids, tuple) or not all(isinstance(name, str) for name in self.run_ids):
            raise InvalidInput(field="run_ids", reason="must be a tuple of names")
        columns = mapping_of(self.columns, "columns")
        for name, values in {**columns, SUMMARY_FIELDS[self.target]: self.outcome}.items():
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
                raise InvalidInput(field=name, reason="must be an array of numbers")
            if values.shape != (self.n_runs,):
                raise InvalidInput(field=name, reason=f"has {values.size} values for {self.n_runs} runs")
        for name, said in mapping_of(self.labels, "labels").items():
            if not isinstance(said, tuple) or len(said) != self.n_runs:
                raise InvalidInput(field=name, reason=f"must be a tuple of {self.n_runs} words")

    def __repr__(self) -> str:
        """Return what the table is in a line, and not its numbers."""
        known = int(np.isfinite(self.outcome).sum())
        outcomes = f"{SUMMARY_FIELDS[self.target]} of {known if known < self.n_runs else 'all'}"
        columns = ", ".join([*self.columns][:MOST_NAMED])
        more = f" and {len(self.columns) - MOST_NAMED} more" if len(self.columns) > MOST_NAMED else ""
        runs = "1 run" if self.n_runs == 1 else f"{self.n_runs} runs"
        return f"RunTable({runs}: {outcomes}, columns {columns or 'none'}{more})"

    @property
    def n_runs(self) -> int:
        return len(self.run_ids)

    def column(self, name: str) -> FloatArray:
        """Return a column, NaN where a run does not have it.

        Compute is 6 N D, and a batch its sequences times their length, where a run does not state it.
        """
        values = self.columns.get(name, np.full(self.n_runs, np.nan))
        if name not in FOLLOWING:
            return values
        factor, names = FOLLOWING[name]
        usual: FloatArray = np.full(self.n_runs, factor)
        for (
            one
        ) in names:  # in this order, to the last bit: runs of equal compute are not told apart by rounding
            usual = usual * self.column(one)
        return np.where(np.isnan(values), usual, values)

    def label(self, name: str) -> tuple[str | None, ...]:
        """Return what each run has in a field that is text, None where it has nothing."""
        return self.labels.get(name, (None,) * self.n_runs)

    def only(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> RunTable:
        """Return the table of these rows, in their order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            run_ids=tuple(self.run_ids[row] for row in chosen),
            columns={name: values[chosen] for name, values in self.columns.items()},
            outcome=self.outcome[chosen],
            labels={name: tuple(said[row] for row in chosen) for name, said in self.labels.items()},
        )

    @classmethod
    def from_runs(
        cls,
        runs: Iterable[Mapping[str, Any]],
        *,
        target: str = "loss",
        n_params_kind: str | None = None,
    ) -> RunTable:
        """Return the table of run specifications: `run_id`, `config`, `summary`, `status` as the API has them.

        A run that diverged or has not finished has no outcome, whatever its summary says. A run without a status
        has finished. `n_params_kind` asks for another count of
        parameters than the runs' own. Raises InvalidInput where runs count their parameters in several kinds.
        """
        _check_target(target)
        rows = _rows(runs)
        counts = [n_params_of(run.get("config") or {}, n_params_kind) for run in rows]
        configs = [
            _with_count(numbers(run.get("config") or {}), count) | _of_summary(run) | _of_schedule(run)
            for run, (_, count) in zip(rows, counts, strict=True)
        ]
        fields = sorted({name for config in configs for name in config})
        columns = {
            name: np.array([config.get(name, math.nan) for config in configs], dtype=np.float64)
            for name in fields
        }
        outcome = np.array([_outcome(run, target) for run in rows], dtype=np.float64)
        names = tuple(str(run["run_id"]) for run in rows)
        kind = _kind(counts, n_params_kind)
        return cls(names, columns, outcome, target, kind, labels=_labels(rows))


def _check_target(target: object) -> None:
    if not isinstance(target, str) or target not in SUMMARY_FIELDS:
        raise InvalidInput(field="target", reason=f"must be one of {', '.join(SUMMARY_FIELDS)}")


def _rows(runs: object) -> list[Mapping[str, Any]]:
    """Return the specifications; raises InvalidInput that names the one that is none."""
    if not isinstance(runs, Iterable) or isinstance(runs, str | bytes | Mapping):
        reason = f"must be a list of run specifications, not {type(runs).__name__}"
        raise InvalidInput(field="runs", reason=reason)
    rows = list(runs)
    for number, row in enumerate(rows):
        if "run_id" not in mapping_of(row, f"runs[{number}]"):
            raise InvalidInput(field=f"runs[{number}]", reason="a run needs a run_id")
        for part in ("config", "summary"):
            mapping_of(row.get(part), f"runs[{number}].{part}")
    return rows


def numbers(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the fields of a configuration that are finite numbers."""
    return {
        name: float(value)
        for name, value in config.items()
        if isinstance(value, int | float) and fits_float(value) and math.isfinite(value)
    }


def _of_summary(run: Mapping[str, Any]) -> dict[str, float]:
    summary = numbers(run.get("summary") or {})
    return {name: summary[name] for name in SUMMARY_COLUMNS if name in summary}


def _of_schedule(run: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of its steps that a run's schedule warms up, and its end and its mean as shares of its peak.

    The mean is over s = 1..total_steps, exactly.
    """
    if not run.get("schedule"):
        return {}
    schedule = schedule_from_spec(run["schedule"])
    total = schedule.total_steps
    return {
        "warmup_share": schedule.warmup_steps / total,
        "final_lr_share": float(schedule.lr(np.array([total]))[0]) / schedule.peak_lr,
        "mean_lr_share": schedule.mean_share,
    }


def _labels(runs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str | None, ...]]:
    """Return the fields of specifications that are text, by their names."""
    said = [
        {name: value for name, value in _texts(run) if isinstance(value, str) and value != ""} for run in runs
    ]
    names = sorted({name for one in said for name in one})
    return {name: tuple(one.get(name) for one in said) for name in names}


def _texts(run: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from (run.get("config") or {}).items()
    yield from ((name, run.get(name)) for name in ("status", "recipe"))
    yield "schedule_kind", (run.get("schedule") or {}).get("kind")


def _with_count(config: Mapping[str, float], count: float | None) -> dict[str, float]:
    """Return a configuration whose `n_params` is the count that is meant, and not another one."""
    others = {name: value for name, value in config.items() if name != "n_params"}
    return others if count is None else {**others, "n_params": count}


def _outcome(run: Mapping[str, Any], target: str) -> float:
    value = (run.get("summary") or {}).get(SUMMARY_FIELDS[target])
    if value is None or not fits_float(value) or run.get("status") in (DIVERGED, *UNFINISHED):
        return math.nan
    return float(value)


def _kind(counts: Iterable[tuple[str | None, float | None]], asked: str | None) -> str | None:
    kinds = {kind for kind, count in counts if count is not None}
    if len(kinds) > 1:
        named = " and ".join(sorted(kind or "no stated kind" for kind in kinds))
        reason = f"the runs count their parameters in {named}; ask for one by n_params_kind"
        raise InvalidInput(field="n_params_kind", reason=reason)
    return next(iter(kinds), asked)
