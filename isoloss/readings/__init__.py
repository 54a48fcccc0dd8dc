"""Tables of readings for laws of many moments of a run, made of the points that runs logged."""

from __future__ import annotations

from isoloss.readings.logged import LoggedRun, Logs
from isoloss.readings.reader import Reader
from isoloss.readings.readers import READERS, reader_of
from isoloss.readings.tabulated import (
    by_runs,
    joined,
    lacking,
    table_of_readings,
    tabulated,
)

__all__ = [
    "READERS",
    "LoggedRun",
    "Logs",
    "Reader",
    "by_runs",
    "joined",
    "lacking",
    "reader_of",
    "table_of_readings",
    "tabulated",
]
