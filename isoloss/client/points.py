"""Points: what a run recorded at its steps, as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from isoloss.client import wire
from isoloss.client.batches import DEFAULT_BATCH, Columns, split_columns
from isoloss.client.documents import Accepted
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport

MaskedColumns = dict[str, "np.ma.MaskedArray[Any, Any]"]


class Points:
    """Points of a run: `client.points.append("pilot", "run-1", {"step": [1, 2], "loss": [9.1, 8.7]})`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def append(
        self,
        project: str,
        run_id: str,
        columns: Columns,
        *,
        on_conflict: Literal["error", "replace"] = "error",
        batch_size: int = DEFAULT_BATCH,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Accepted:
        """Send points: columns of equal length, `step` among them, steps increasing.

        Columns are lists or arrays. What was not measured is None in a list, masked in a masked array, and
        NaN in a plain array, except in `loss`: there NaN is a measurement, and the run is marked diverged.
        Points that are there already with the same values are counted as duplicates, so sending again is
        harmless; another value for the same step raises Conflict unless `on_conflict="replace"`.
        Long columns go in batches of `batch_size`, each all or nothing; `on_progress(sent, total)` follows.

        >>> client.points.append("pilot", "run-1", {"step": np.arange(1, 5001), "loss": loss, "lr": lr})
        """
        total = len(columns.get("step", ()))
        answer: Accepted = {"accepted": 0, "duplicates": 0, "last_step": None}
        params = {"on_conflict": "replace"} if on_conflict == "replace" else None
        sent = 0
        for batch in split_columns(columns, batch_size):
            part = self._transport.post(self._path(project, run_id), batch, params)
            answer["accepted"] += part["accepted"]
            answer["duplicates"] += part["duplicates"]
            answer["last_step"] = part["last_step"]
            sent += len(batch["step"])
            if on_progress is not None:
                on_progress(sent, total)
        return answer

    def append_text(self, project: str, run_id: str, text: bytes) -> Accepted:
        """Send points that are the JSON of one batch already; what is there is replaced."""
        answer: Accepted = self._transport.post(self._path(project, run_id), text, {"on_conflict": "replace"})
        return answer

    def read(
        self,
        project: str,
        run_id: str,
        *,
        columns: Sequence[str] | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
        x_scale: Literal["linear", "log"] | None = None,
    ) -> MaskedColumns:
        """The points of a run as masked arrays, masked where nothing was measured; exact by default.

        A branch's curve starts with its parent's. With `max_points` the service thins the curve for a
        picture on the given x scale.
        """
        params = {
            "columns": ",".join(columns) if columns is not None else None,
            "from_step": from_step,
            "to_step": to_step,
            "max_points": max_points,
            "x_scale": x_scale,
        }
        document = self._transport.get(self._path(project, run_id), params)
        return {name: _array(name, cells) for name, cells in columns_of(document).items()}

    def read_csv(
        self,
        project: str,
        run_id: str,
        *,
        columns: Sequence[str] | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> str:
        """The points of a run as CSV text, exactly as they were recorded."""
        params = {
            "columns": ",".join(columns) if columns is not None else None,
            "from_step": from_step,
            "to_step": to_step,
        }
        headers = {"Accept": "text/csv"}
        return self._transport.send("GET", self._path(project, run_id), params=params, headers=headers).text

    def rewind(self, project: str, run_id: str, step: int) -> dict[str, Any]:
        """Forget every point after `step`, as a run does that restarts from a checkpoint."""
        path = project_path(project, "runs", run_id, "rewind")
        answer: dict[str, Any] = self._transport.post(path, {"step": step})
        return answer

    @staticmethod
    def _path(project: str, run_id: str) -> str:
        return project_path(project, "runs", run_id, "points")


def columns_of(document: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns of an answer, whether they are its whole body or lie beside other things."""
    columns = document.get("columns", document)
    return {name: cells for name, cells in columns.items() if isinstance(cells, list)}


def _array(name: str, cells: list[Any]) -> np.ma.MaskedArray[Any, Any]:
    if name != "step":
        return wire.masked_array(cells)
    # Not by way of floats, which cannot hold every step.
    return np.ma.MaskedArray(np.array(cells, dtype=np.int64), mask=np.zeros(len(cells), bool))
