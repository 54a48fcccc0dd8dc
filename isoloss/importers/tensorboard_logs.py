"""Runs in TensorBoard's event files: a run a folder, its scalars, its hyperparameters."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.importers.logged_runs import LoggedRun, Source, Unreadable
from isoloss.importers.logged_values import Gathered, flattened, required, whole
from isoloss.importers.paths import checked_path
from isoloss.notes import counted, first_line

MARK = "tfevents"
"""What TensorBoard knows an event file by."""

RECORD_OVERHEAD = 16
"""Bytes of a record beside its event: the length and two checksums."""

SCALARS, HPARAMS, TEXT = "scalars", "hparams", "text"
START, END = "_hparams_/session_start_info", "_hparams_/session_end_info"
OLD_KINDS = {"histo": "histograms", "image": "images", "audio": "audio"}
KINDS = {"histograms": "histogram", "images": "image", "pr_curves": "curve of precision and recall"}

UNNAMED = ("args", "config", "hparams", "hyperparameters", "hyperparams", "params")
"""Texts whose settings keep their own names; those of any other stand below its name."""

MOMENT = re.compile(r"\d{9,}\.\d+")
"""How `add_hparams` calls the folder that it makes below a run's."""


def read_tensorboard(path: str | Path) -> Source:
    """The runs in a folder of event files as TensorBoard shows them, or the run of one file.

    A run is called after its folder below `path`. The event files of a folder follow each other in order of time,
    and every point is given as it was written, those that a resumed training wrote again too. Hyperparameters come
    from `add_hparams` (which writes to a folder of its own below the run) and from texts that are JSON, as the
    trainer of Hugging Face writes them. What follows a damaged record cannot be read and is told. Raises
    InvalidInput where there is no such folder or no event file in it, UnusableData without the package tensorboard.
    """
    place = checked_path(path, "path").expanduser()
    if place.is_file():
        folders = {place.absolute().parent: [place]}
    elif place.is_dir():
        folders = _event_files(place)
    else:
        raise InvalidInput(field=str(place), reason="there is no such file or folder")
    if not folders:
        reason = f"there is no event file in this folder or below it (files *{MARK}*)"
        raise InvalidInput(field=str(place), reason=reason)
    required("tensorboard.backend.event_processing.event_file_loader", "TensorBoard's log")
    return _runs(place if place.is_dir() else place.absolute().parent, folders)


def _event_files(root: Path) -> dict[Path, list[Path]]:
    """The event files by folder."""
    found: dict[Path, list[Path]] = {}
    for folder, below, names in os.walk(root):
        below.sort()
        events = sorted(name for name in names if MARK in name)
        if events:
            found[Path(folder)] = [Path(folder) / name for name in events]
    return found


def _runs(root: Path, folders: Mapping[Path, Sequence[Path]]) -> Source:
    for folder, files in folders.items():
        if _belongs_above(folder, folders):
            continue
        run = _read(files)
        yield from run.unreadable
        own = [below for below in folders if below.parent == folder and _belongs_above(below, folders)]
        for below in own:
            added = _read(folders[below])
            yield from added.unreadable
            if not run.take_settings(added, below.name):
                yield from added.logged(below, root)
        yield from run.logged(folder, root)


def _belongs_above(folder: Path, folders: Mapping[Path, Any]) -> bool:
    return MOMENT.fullmatch(folder.name) is not None and folder.parent in folders


@dataclass
class _Run:
    """What the event files of one folder hold."""

    gathered: Gathered = field(default_factory=Gathered)
    config: dict[str, Any] = field(default_factory=dict)
    status: str | None = None
    unreadable: list[Unreadable] = field(default_factory=list)
    is_readable: bool = False
    _plugins: dict[str, str] = field(default_factory=dict)

    def logged(self, folder: Path, root: Path) -> Iterator[LoggedRun]:
        """The run, if any of its files could be read."""
        if not self.is_readable:
            return
        below = folder.relative_to(root) if folder.is_relative_to(root) else Path(folder.name)
        name = below.as_posix() if below.parts else folder.resolve().name
        series, problems = self.gathered.series(), self.gathered.problems()
        yield LoggedRun(str(folder), name, name, self.status, self.config, (), None, series, problems)

    def take_settings(self, added: _Run, name: str) -> bool:
        """Take the hyperparameters that stand in a folder of their own; False where that holds more than these."""
        if any(len(series.step) > 1 for series in added.gathered.series().values()):
            return False
        self.config.update(added.config)
        self.status = self.status or added.status
        if added.gathered.n_values:
            self.gathered.tell(
                f"{counted(added.gathered.n_values, 'value')} beside the hyperparameters in {name} left out: "
                "they are of no step"
            )
        return True

    def take(self, event: Any) -> None:
        """Take the values of one event."""
        if event.WhichOneof("what") != "summary":
            return
        for value in event.summary.value:
            self._take_value(value, event)

    def _take_value(self, value: Any, event: Any) -> None:
        form = value.WhichOneof("value")
        if value.HasField("metadata") and value.metadata.plugin_data.plugin_name:
            # Only the first value of a tag has to say what it is.
            self._plugins[value.tag] = value.metadata.plugin_data.plugin_name
        plugin = self._plugins.get(value.tag, "")
        if form == "simple_value":
            self.gathered.add(value.tag, event.step, value.simple_value, event.wall_time)
        elif plugin == SCALARS:
            self._take_tensor(value, event)
        elif plugin == HPARAMS:
            self._take_hparams(value)
        elif plugin == TEXT:
            self._take_text(value)
        else:
            kind = OLD_KINDS.get(form or "", plugin) or "tensor"
            self.gathered.leave_out(value.tag, KINDS.get(kind, kind))

    def _take_tensor(self, value: Any, event: Any) -> None:
        numbers = required("tensorboard.util.tensor_util", "TensorBoard's log").make_ndarray(value.tensor)
        if numbers.size == 1 and numbers.dtype.kind in "iuf":
            self.gathered.add(value.tag, event.step, float(numbers.reshape(())), event.wall_time)
        else:
            self.gathered.leave_out(value.tag, "tensor")

    def _take_hparams(self, value: Any) -> None:
        plugin = required("tensorboard.plugins.hparams.metadata", "TensorBoard's log")
        content = value.metadata.plugin_data.content
        if value.tag == START:
            said = plugin.parse_session_start_info_plugin_data(content)
            self.config.update({name: _setting(one) for name, one in said.hparams.items()})
        elif value.tag == END:
            ended = plugin.parse_session_end_info_plugin_data(content)
            # Success is often stated before the training begins, with the hyperparameters.
            self.status = "failed" if ended.status == 2 else self.status

    def _take_text(self, value: Any) -> None:
        tag = value.tag.removesuffix("/text_summary")
        texts = value.tensor.string_val
        said = _json_object(texts[0]) if len(texts) == 1 else None
        if said is None:
            self.gathered.leave_out(tag, "text")
        else:
            self.config.update(flattened(said, "" if tag in UNNAMED else f"{tag}."))


def _setting(value: Any) -> Any:
    """A hyperparameter as it was given, from the message that holds it."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return whole(value.number_value)
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _read(files: Sequence[Path]) -> _Run:
    """The event files of one folder, in order of time."""
    run = _Run()
    for file in sorted(files, key=_began):
        size, read, failure = file.stat().st_size, 0, ""
        try:
            for record, event in _events(file):
                read += record + RECORD_OVERHEAD
                run.take(event)
        except Exception as error:  # whatever a damaged message makes its library raise
            failure = first_line(error, 200)
        if read == 0:
            reason = (
                "it is empty"
                if size == 0
                else failure or "this is no event file, or its beginning is damaged"
            )
            run.unreadable.append(Unreadable(str(file), reason))
            continue
        if failure:
            run.gathered.tell(f"{file.name}: an event could not be read ({failure})")
        run.is_readable = True
        if read < size:
            run.gathered.tell(
                f"{file.name} is cut off or damaged after byte {read:,} of {size:,}: what follows cannot be read"
            )
    return run


def _began(file: Path) -> tuple[float, str]:
    """When the first event of a file was written."""
    try:
        _, event = next(_events(file))
    except Exception:  # told when it is read
        return 0.0, file.name
    return float(event.wall_time), file.name


def _events(file: Path) -> Iterator[tuple[int, Any]]:
    """The events of a file with their sizes in bytes, up to the first damaged record."""
    reader = required("tensorboard.backend.event_processing.event_file_loader", "TensorBoard's log")
    messages = required("tensorboard.compat.proto.event_pb2", "TensorBoard's log")
    for record in reader.RawEventFileLoader(str(file)).Load():
        yield len(record), messages.Event.FromString(record)
