"""Runs in MLflow: a database, a folder `mlruns` or a tracking server, through MLflow's own client."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput, UnusableData
from isoloss.importers.logged_runs import LoggedRun, Source, Unreadable
from isoloss.importers.logged_values import Gathered, required
from isoloss.importers.paths import checked_path
from isoloss.notes import first_line

STATUSES = {
    "RUNNING": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "preempted",
}
"""A run that was killed came to its end by somebody else; one that waits for its start has no status."""

LARGEST = 1.7976931348623157e308
"""What MLflow writes into a database for infinity."""

SYSTEM = "system/"
"""What the names of metrics of the machine begin with: their steps count samples."""

OWN_TAGS = "mlflow."
NOTES = "mlflow.note.content"
PAGE = 1000
ACTIVE = "active"
WHOLE = re.compile(r"[+-]?\d{1,18}")
REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WORDS: dict[str, bool | None] = {"True": True, "true": True, "False": False, "false": False, "None": None}

RUN_FOLDER = re.compile(r"[0-9a-f]{32}")
TABLES = frozenset({"experiments", "runs", "metrics"})
NO_EXPERIMENTS = frozenset({".trash", "models"})

QUIET = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # newer versions ask whether a folder is meant
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing of a reading goes to anybody
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # else a server that is down is asked for minutes
}


def read_mlflow(place: str | Path, experiments: Sequence[str] | None = None) -> Source:
    """The runs of a store of MLflow: all that are not deleted, or those of the experiments named.

    `place` is a folder as `mlruns`, the file of an SQLite database, or the address of a database or a server as
    MLflow takes it (`sqlite:///mlflow.db`, `postgresql://...`, `http://...`). Every metric comes with all that was
    logged of it; parameters, which MLflow keeps as text, are numbers where they spell one; tags become
    `name=value`. A folder's damaged runs are told one by one. Raises InvalidInput for a place that is not there and
    an experiment that is not in it, UnusableData without the package mlflow, or where MLflow cannot read the place.
    """
    address, folder = _address(place)
    _load()
    store = _Store(address, folder, _client(address))
    found, damaged = store.experiments()
    names = {experiment.name for experiment in found}
    for name in experiments or ():
        if name not in names:
            reason = f"there is no experiment {name!r} (it has {', '.join(sorted(names)) or 'none'})"
            raise InvalidInput(field=address, reason=reason)
    chosen = [one for one in found if experiments is None or one.name in experiments]
    return chain(damaged, store.runs(chosen))


def _address(place: str | Path) -> tuple[str, Path | None]:
    """The address as MLflow takes it, and the folder where it is one; raises InvalidInput.

    MLflow makes what it does not find, so that what is not there or not its own is refused before.
    """
    if isinstance(place, str) and "://" in place:
        scheme, _, rest = place.partition("://")
        if scheme == "sqlite":
            _checked_database(Path(rest.removeprefix("/").partition("?")[0]), place)
            return place, None
        if scheme != "file":
            return place, None
        place = Path(rest.removeprefix("localhost"))
    path = checked_path(place, "place").expanduser().absolute()
    if path.is_file():
        _checked_database(path, str(path))
        return f"sqlite:///{path}", None
    if not path.is_dir():
        raise InvalidInput(field=str(path), reason="there is no such file or folder")
    if not any((child / "meta.yaml").is_file() for child in path.iterdir()):
        reason = "this is no folder of MLflow: no experiment is in it (a folder with a file meta.yaml)"
        raise InvalidInput(field=str(path), reason=reason)
    return path.as_uri(), path


def _checked_database(path: Path, shown: str) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(15)
    except OSError as error:
        raise InvalidInput(field=shown, reason=error.strerror or str(error)) from error
    if begins != b"SQLite format 3":
        raise InvalidInput(field=shown, reason="this is no SQLite database")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if not tables >= TABLES:
        raise InvalidInput(field=shown, reason="this is no database of MLflow")


@contextmanager
def _quiet() -> Iterator[None]:
    """What MLflow is asked for while it reads, where the user has not said otherwise; its warnings are its own."""
    added = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _load() -> None:
    with _quiet():
        required("mlflow.tracking", "a store of MLflow")


def _client(address: str) -> Any:
    try:
        with _quiet():
            return required("mlflow.tracking", "a store of MLflow").MlflowClient(address)
    except ImportError as error:  # the driver of a database
        reason = f"MLflow cannot open {address} ({error}): install what it names"
        raise UnusableData(reason=reason) from error
    except Exception as error:  # whatever a store raises that MLflow does not know, or of another version
        raise UnusableData(reason=f"MLflow cannot open {address} ({first_line(error, 300)})") from error


@dataclass(frozen=True)
class _Store:
    """An open store; `folder` where it is one of files."""

    address: str
    folder: Path | None
    client: Any

    def experiments(self) -> tuple[list[Any], list[Unreadable]]:
        """The experiments that are not deleted, and those of a folder that are damaged.

        Raises UnusableData where the store cannot be asked.
        """
        if self.folder is not None:
            return self._experiments_in(self.folder)
        try:
            return list(_paged(self.client.search_experiments)), []
        except Exception as error:
            reason = f"MLflow cannot read {self.address} ({first_line(error, 300)})"
            raise UnusableData(reason=reason) from error

    def _experiments_in(self, folder: Path) -> tuple[list[Any], list[Unreadable]]:
        """The experiments of a folder, one by one: of many MLflow gives none where one is damaged."""
        found: list[Any] = []
        damaged: list[Unreadable] = []
        for child in sorted(folder.iterdir()):
            if not child.is_dir() or child.name in NO_EXPERIMENTS:
                continue
            try:
                with _quiet():
                    found.append(self.client.get_experiment(child.name))
            except Exception as error:
                reason = f"MLflow cannot read this experiment ({first_line(error, 200)})"
                damaged.append(Unreadable(str(child), reason))
        return [one for one in found if one.lifecycle_stage == ACTIVE], damaged

    def runs(self, experiments: Sequence[Any]) -> Source:
        """The runs of experiments, and what is damaged."""
        for experiment in experiments:
            try:
                yield from self._runs_of(experiment)
            except Exception as error:
                place = f"{self.address}, experiment {experiment.name}"
                yield Unreadable(place, first_line(error, 300))

    def _runs_of(self, experiment: Any) -> Source:
        if self.folder is not None:
            for run_id in _run_folders(self.folder / experiment.experiment_id):
                yield from self._run(run_id, experiment.name)
            return
        found = _paged(self.client.search_runs, [experiment.experiment_id], order_by=["start_time ASC"])
        for run in found:
            yield from self._run(run.info.run_id, experiment.name)

    def _run(self, run_id: str, experiment: str) -> Source:
        place = f"{self.address}, experiment {experiment}, run {run_id}"
        try:
            with _quiet():
                run = self.client.get_run(run_id)
        except Exception as error:
            yield Unreadable(place, first_line(error, 300))
            return
        if run.info.lifecycle_stage == ACTIVE:
            yield self._logged(run, place, experiment)

    def _logged(self, run: Any, place: str, experiment: str) -> LoggedRun:
        gathered = Gathered()
        for name in run.data.metrics:
            if name.startswith(SYSTEM):
                gathered.leave_out(name, "its steps are samples of the machine, not of the training")
                continue
            try:
                with _quiet():
                    history = self.client.get_metric_history(run.info.run_id, name)
            except Exception as error:
                gathered.tell(f"the metric {name!r} cannot be read ({first_line(error, 200)})")
                continue
            for metric in history:
                gathered.add(name, metric.step, _value(metric.value), metric.timestamp / 1000)
        config = {name: _setting(text) for name, text in run.data.params.items()}
        tags, notes = run.data.tags, run.data.tags.get(NOTES)
        return LoggedRun(
            place,
            run.info.run_id,
            run.info.run_name or run.info.run_id,
            STATUSES.get(run.info.status),
            config,
            (f"experiment={experiment}", *_tags(tags)),
            notes,
            gathered.series(),
            gathered.problems(),
        )


def _run_folders(experiment: Path) -> list[str]:
    """The runs of an experiment's folder, damaged ones too, in the order in which they were begun."""
    folders = [one for one in experiment.iterdir() if one.is_dir() and RUN_FOLDER.fullmatch(one.name)]
    return [one.name for one in sorted(folders, key=_begun)]


def _begun(run: Path) -> tuple[int, str]:
    try:
        found = re.search(
            r"^start_time: (\d+)", (run / "meta.yaml").read_text(encoding="utf-8"), re.MULTILINE
        )
    except (OSError, UnicodeDecodeError):  # told when the run is read
        found = None
    return (int(found[1]) if found else 0), run.name


def _paged(search: Any, *what: Any, **how: Any) -> Iterator[Any]:
    token = None
    while True:
        with _quiet():
            page = search(*what, max_results=PAGE, page_token=token, **how)
        yield from page
        token = page.token
        if not token:
            return


def _value(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) == LARGEST else value


def _setting(text: str) -> Any:
    """A parameter as what its text spells: a number, true, false or nothing, else the text."""
    if WHOLE.fullmatch(text):
        return int(text)
    if REAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return WORDS.get(text, text)


def _tags(tags: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(tags.items()) if not name.startswith(OWN_TAGS)]
