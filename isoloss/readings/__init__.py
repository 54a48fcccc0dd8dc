"""Tables of readings for laws of many moments of a run, made of the points that runs logged."""

from __future__ import annotations

from collections.abc import Mapping

from isoloss.readings.logged import LoggedRun, Logs
from isoloss.readings.noise_scales import NoiseScales
from isoloss.readings.reader import Reader
from isoloss.readings.rewards import Rewards
from isoloss.readings.tabulated import (
    by_runs,
    joined,
    lacking,
    table_of_readings,
    tabulated,
)

READERS: Mapping[str, Reader] = {reader.law: reader for reader in (NoiseScales(), Rewards())}
"""By the names of laws that take readings in time, what reads them off logged points."""

__all__ = [
    "READERS",
    "LoggedRun",
    "Logs",
    "Reader",
    "by_runs",
    "joined",
    "lacking",
    "table_of_readings",
    "tabulated",
]
