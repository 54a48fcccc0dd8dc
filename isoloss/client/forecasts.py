"""Forecasts of runs that train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from isoloss.client import wire
from isoloss.client.documents import Forecast
from isoloss.client.projects import project_path
from isoloss.client.transport import Transport

NUMBERS = ("value", "lower", "upper")


class Forecasts:
    """How runs are expected to end: `client.forecasts.get("pilot", "run-1")["value"]`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, project: str, run_id: str) -> Forecast:
        """The last forecast of a run, with its trail and alarms.

        Raises NotFound where none was tried yet, Conflict with the reason where none can be made.
        """
        return _forecast(self._transport.get(project_path(project, "runs", run_id, "forecast")))

    def list(self, project: str, *, where: str | None = None, sort: str | None = None) -> Iterator[Forecast]:
        """The last forecasts of the runs that train, without trail and curve."""
        path = project_path(project, "forecasts")
        return map(_forecast, self._transport.items(path, {"where": where, "sort": sort}))


def _forecast(document: dict[str, Any]) -> Forecast:
    for part in (document, document.get("expected") or {}, *document.get("trail", ())):
        part.update({name: wire.numbers(part[name]) for name in NUMBERS if name in part})
    return cast(Forecast, document)
