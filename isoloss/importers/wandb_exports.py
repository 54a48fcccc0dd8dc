"""Runs that W&B recorded offline: its `.wandb` files, read by W&B's own program, without an account."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import LoggedRun, Series, Source, Unreadable
from isoloss.importers.logged_values import Gathered, flattened, number_in, required
from isoloss.importers.paths import checked_path

SUFFIX = ".wandb"
MOMENT = re.compile(r"run-(\d{8}_\d{6})-")
"""When a run began, in the name of its folder."""

STEP_WORDS = ("step", "iter", "update")
"""A step metric that has none of these words in its name counts something else, as epochs or tokens."""

TYPE = "._type"
"""W&B's mark of a value that is an object, whose parts stand beside it."""

QUIET = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""Nothing of a reading goes to W&B."""


def read_wandb(path: str | Path) -> Source:
    """The runs in a `.wandb` file, in the folder of a run, or in any folder above these.

    A run that was resumed offline has a file a time; they become one run, in order of time, with every point as it
    was written. A metric goes by its own step (`define_metric(..., step_metric=...)`) where that counts steps, else
    by W&B's. Of a damaged file W&B's program keeps what it can read, and the rest is told. What only the summary
    has is in the configuration as `summary.NAME`. Raises InvalidInput where there is no such file or folder, or no
    run in it, UnusableData without the package wandb.
    """
    place = checked_path(path, "path").expanduser()
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(place.rglob(f"*{SUFFIX}"))
    else:
        raise InvalidInput(field=str(place), reason="there is no such file or folder")
    if not files:
        reason = f"there is no run of W&B in this folder or below it (files *{SUFFIX})"
        raise InvalidInput(field=str(place), reason=reason)
    if files[0].suffix != SUFFIX:
        raise InvalidInput(field=str(place), reason=f"this is no file of W&B (*{SUFFIX})")
    required("wandb", "W&B's offline run")
    return _runs(files)


def _runs(files: Sequence[Path]) -> Source:
    by_id: dict[str, list[Path]] = {}
    for file in sorted(files, key=_began):
        by_id.setdefault(file.stem.removeprefix("run-"), []).append(file)
    for key, parts in by_id.items():
        run = _Run(key)
        for file in parts:
            yield from run.read(file)
        if run.is_readable:
            yield run.logged(parts[-1])


def _began(file: Path) -> tuple[str, str]:
    found = MOMENT.search(file.parent.name)
    return (found[1] if found else ""), str(file)


@dataclass
class _Run:
    """What the files of one run hold; its metrics go by the rows of its history until their steps are known."""

    key: str
    name: str | None = None
    status: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    gathered: Gathered = field(default_factory=Gathered)
    step_of_row: array[int] = field(default_factory=lambda: array("q"))
    time_of_row: array[float] = field(default_factory=lambda: array("d"))
    step_metrics: dict[str, str] = field(default_factory=dict)
    logged_names: set[str] = field(default_factory=set)
    is_readable: bool = False
    _preempting: bool = False

    def read(self, file: Path) -> Iterator[Unreadable]:
        """Read one more file of the run; what nothing could be read of is yielded."""
        self.status, self._preempting = None, False
        n_records = 0
        with tempfile.TemporaryFile() as said:
            try:
                for record in _records(file, said):
                    n_records += 1
                    self._take(record)
            except ValueError as error:
                self.gathered.tell(f"{file.name}: a record could not be read ({error})")
            said.seek(0)
            told = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
        told = [line.removeprefix("wandb leet inspect: ").removeprefix("Error: ") for line in told]
        if n_records == 0:
            yield Unreadable(str(file), told[-1] if told else "there is no record in it")
            return
        self.is_readable = True
        for line in told:
            self.gathered.tell(f"{file.name}: {line}")

    def _take(self, record: Mapping[str, Any]) -> None:
        kind = record.get("type")
        said = record.get(kind) if isinstance(kind, str) else None
        if not isinstance(said, Mapping):
            return
        if kind == "run":
            self._take_run(said)
        elif kind == "config":
            self._take_config(said)
        elif kind == "history":
            self._take_history(said)
        elif kind == "summary":
            self.summary.update(said.get("update") or {})
        elif kind == "metric" and said.get("step_metric"):
            self.step_metrics[said.get("name") or said.get("glob_name") or ""] = said["step_metric"]
        elif kind == "preempting":
            self._preempting = True
        elif kind == "exit":
            failed = "preempted" if self._preempting else "failed"
            self.status = failed if said.get("exit_code") else "finished"

    def _take_run(self, said: Mapping[str, Any]) -> None:
        self.key = said.get("run_id") or self.key
        self.name = said.get("display_name") or self.name
        self.notes = said.get("notes") or self.notes
        self.tags = tuple(said.get("tags") or self.tags)
        if said.get("run_group"):
            self.config["group"] = said["run_group"]
        self._take_config(said.get("config") or {})

    def _take_config(self, said: Mapping[str, Any]) -> None:
        own = {name: value for name, value in (said.get("update") or {}).items() if name != "_wandb"}
        self.config.update(flattened(own))
        for name in said.get("remove") or ():
            self.config.pop(name, None)

    def _take_history(self, said: Mapping[str, Any]) -> None:
        item = said.get("item") or {}
        step = number_in(item.get("_step", (said.get("step") or {}).get("num", 0)))
        row = len(self.step_of_row)
        self.step_of_row.append(0 if step is None else int(step))
        time_s = number_in(item.get("_timestamp"))
        self.time_of_row.append(np.nan if time_s is None else time_s)
        self.logged_names.update(item)
        objects = tuple(name.removesuffix(TYPE) for name in item if name.endswith(TYPE))
        for name in objects:
            self.gathered.leave_out(name, str(item[f"{name}{TYPE}"]))
        for name, value in item.items():
            inside = any(name.startswith(f"{one}.") for one in objects)
            if name not in ("_step", "_timestamp") and not inside:
                self.gathered.add_logged(name, row, value)

    def logged(self, file: Path) -> LoggedRun:
        """The run, with every metric at its own steps."""
        rows = self.gathered.series()
        counting = {name: rows[name] for name in set(self.step_metrics.values()) if name in rows}
        series = {
            name: self._at_its_steps(name, one, counting)
            for name, one in rows.items()
            if name not in counting
        }
        config = self.config | {
            f"summary.{name}": value
            for name, value in self.summary.items()
            if name not in self.logged_names and not name.startswith("_")
        }
        problems = self.gathered.problems()
        name = self.name or self.key
        return LoggedRun(
            str(file), self.key, name, self.status, config, self.tags, self.notes, series, problems
        )

    def _at_its_steps(self, name: str, rows: Series, counting: Mapping[str, Series]) -> Series:
        at = rows.step
        times: FloatArray = np.array(self.time_of_row, dtype=np.float64)[at]
        time_s = None if np.isnan(times).any() else times
        own_step: IntArray = np.array(self.step_of_row, dtype=np.int64)[at]
        step_metric = self._step_metric_of(name)
        if step_metric not in counting:
            return Series(own_step, rows.value, time_s)
        if not any(word in step_metric.lower() for word in STEP_WORDS):
            self._tell_other_steps(step_metric, "counts no steps by its name")
            return Series(own_step, rows.value, time_s)
        steps = _filled(counting[step_metric], at)
        if not np.all(np.isfinite(steps) & (steps == np.floor(steps)) & (np.abs(steps) < 2**53)):
            self._tell_other_steps(step_metric, "is not a whole number everywhere")
            return Series(own_step, rows.value, time_s)
        return Series(steps.astype(np.int64), rows.value, time_s)

    def _tell_other_steps(self, step_metric: str, reason: str) -> None:
        self.gathered.tell(f"the step metric {step_metric!r} {reason}: its metrics go by W&B's own steps")

    def _step_metric_of(self, name: str) -> str:
        if name in self.step_metrics:
            return self.step_metrics[name]
        globs = (one for one in self.step_metrics if fnmatch.fnmatchcase(name, one))
        return self.step_metrics.get(next(globs, ""), "")


def _filled(counting: Series, rows: IntArray) -> FloatArray:
    """The step metric at rows of the history: as logged there, else as logged last; NaN before its first."""
    place = np.searchsorted(counting.step, rows, side="right") - 1
    values: FloatArray = np.where(place >= 0, counting.value[np.maximum(place, 0)], np.nan)
    return values


def _records(file: Path, said: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    """The records of a file as W&B's program prints them; its messages go to `said`.

    The program is asked itself, which takes a fiftieth of the second in which `wandb` starts, and `wandb` where the
    program cannot read the file or is of a version with other options.
    """
    program = required("wandb.util", "W&B's offline run").get_core_path()
    folder = file.absolute().parent
    asked = [program, "leet", "inspect", "--no-observability", "--json", "--run-file", str(file), str(folder)]
    documented = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    for command in (asked, documented):
        said.seek(0)
        said.truncate()
        n_records = 0
        for record in _printed(command, said):
            n_records += 1
            yield record
        if n_records:
            return


def _printed(command: Sequence[str], said: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    """What a program prints, one record a line."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=os.environ | QUIET
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record = json.loads(line)
            if isinstance(record, Mapping):
                yield record
