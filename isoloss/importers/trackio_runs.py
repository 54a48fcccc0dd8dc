"""Runs that trackio recorded: its SQLite files, a file a project, read while trackio may go on writing them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import LoggedRun, Source, Unreadable
from isoloss.importers.logged_values import Gathered, flattened
from isoloss.importers.paths import checked_path

SUFFIX = ".db"
REGISTRY = "registry-"
"""What the files begin with in which trackio keeps artifacts and no runs."""

PATIENCE_S = 30.0


def read_trackio(path: str | Path | None = None) -> Source:
    """The runs of one project's file `PROJECT.db`, or of all projects of a folder.

    Without a path the folder is trackio's own: TRACKIO_DIR, else `trackio` in the cache of Hugging Face. Nothing is
    written. Values that are no numbers are told as problems; of a damaged file what can be read is kept. Raises
    InvalidInput where there is no such file or folder, or no project in it.
    """
    place = checked_path(path, "path").expanduser() if path is not None else default_folder()
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(file for file in place.glob(f"*{SUFFIX}") if not file.name.startswith(REGISTRY))
    else:
        raise InvalidInput(field=str(place), reason="there is no such file or folder")
    if not files:
        reason = f"there is no project of trackio in this folder (files *{SUFFIX})"
        raise InvalidInput(field=str(place), reason=reason)
    return _read(files)


def default_folder() -> Path:
    """Where trackio keeps its files."""
    if folder := os.environ.get("TRACKIO_DIR"):
        return Path(folder)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface") / "trackio"


def _read(files: list[Path]) -> Source:
    for file in files:
        try:
            yield from _read_project(file)
        except sqlite3.Error as error:
            yield Unreadable(str(file), f"this is no readable database of trackio ({error})")


def _read_project(file: Path) -> Source:
    with closing(_opened(file)) as database:
        project = _Project(file, database)
        if "metrics" not in project.tables:
            yield Unreadable(str(file), "this is no database of trackio: it has no table of metrics")
            return
        for key, name in project.runs():
            yield project.run(key, name)


def _opened(file: Path) -> sqlite3.Connection:
    """Open a database for reading, also in a folder that may not be written."""
    address = file.absolute().as_uri()
    database = sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=PATIENCE_S)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        database.close()
        if file.with_name(f"{file.name}-wal").exists():
            raise
        # Nobody writes it, and the file that readers share cannot be made beside it.
        return sqlite3.connect(f"{address}?mode=ro&immutable=1", uri=True, timeout=PATIENCE_S)
    return database


@dataclass(frozen=True)
class _Project:
    """The open database of one project."""

    file: Path
    database: sqlite3.Connection

    @property
    def tables(self) -> set[str]:
        return {name for (name,) in self.database.execute("SELECT name FROM sqlite_master")}

    def _id_in(self, table: str) -> str:
        """What names a run in a table: before version 0.24 of trackio its name alone."""
        columns = {row[1] for row in self.database.execute(f"PRAGMA table_info({table})")}
        return "run_id" if "run_id" in columns else "run_name"

    def runs(self) -> list[tuple[str, str]]:
        """Ids and names of the runs, in the order in which they began."""
        parts = [
            f"SELECT {self._id_in(table)} AS key, run_name, {moment} AS moment FROM {table}"
            for table, moment in (("metrics", "timestamp"), ("configs", "created_at"))
            if table in self.tables
        ]
        newest_name = "SELECT key, run_name, min(moment), max(moment) FROM ({}) GROUP BY key, run_name"
        rows = self.database.execute(f"{newest_name.format(' UNION ALL '.join(parts))} ORDER BY 4").fetchall()
        began: dict[str, str] = {}
        names: dict[str, str] = {}
        for key, name, first, _ in rows:
            began[key] = min(first, began.get(key, first))
            names[key] = name
        return [(key, names[key]) for key in sorted(began, key=began.__getitem__)]

    def run(self, key: str, name: str) -> LoggedRun:
        gathered = Gathered()
        config: dict[str, Any] = {}
        try:
            config = self._config(key)
            for step, timestamp, metrics in self._rows(key):
                _gather(gathered, step, _unix_seconds(timestamp), metrics)
        except (sqlite3.Error, ValueError) as error:
            gathered.tell(f"what follows could not be read ({error})")
        place = f"{self.file}, run {name}"
        named = key if self._id_in("metrics") == "run_id" else f"{self.file.stem}-{key}"
        return LoggedRun(place, named, name, None, config, (), None, gathered.series(), gathered.problems())

    def _rows(self, key: str) -> Iterator[tuple[int, str, bytes]]:
        query = f"SELECT step, timestamp, metrics FROM metrics WHERE {self._id_in('metrics')} = ? ORDER BY id"
        return iter(self.database.execute(query, (key,)))

    def _config(self, key: str) -> dict[str, Any]:
        if "configs" not in self.tables:
            return {}
        query = f"SELECT config FROM configs WHERE {self._id_in('configs')} = ? ORDER BY id DESC"
        row = self.database.execute(query, (key,)).fetchone()
        said = json.loads(row[0]) if row else {}
        own = {name: value for name, value in flattened(said) if not name.startswith("_")}
        return own | ({"group": said["_Group"]} if said.get("_Group") else {})


def _gather(gathered: Gathered, step: int, time_s: float | None, metrics: bytes) -> None:
    try:
        said = json.loads(metrics)
    except ValueError:
        said = None
    if not isinstance(said, Mapping):
        gathered.tell(f"what was logged at step {step} cannot be read")
        return
    for name, value in flattened(said):
        gathered.add_logged(name, step, value, time_s)


@lru_cache(maxsize=1)
def _unix_seconds(timestamp: str) -> float | None:
    """The time of a row; those that trackio wrote together have the same."""
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return None
