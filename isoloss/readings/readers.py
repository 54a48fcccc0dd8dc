"""The laws that take readings in time, and what reads them off logged points."""

from __future__ import annotations

from collections.abc import Mapping

from isoloss.errors import InvalidInput
from isoloss.readings.noise_scales import NoiseScales
from isoloss.readings.reader import Reader
from isoloss.readings.rewards import Rewards

READERS: Mapping[str, Reader] = {reader.law: reader for reader in (NoiseScales(), Rewards())}
"""Readers by the names of their laws."""


def reader_of(law: str) -> Reader:
    """Return the reader of a law; raises InvalidInput for a law that takes no readings in time."""
    if not isinstance(law, str) or law not in READERS:
        raise InvalidInput(
            field="law", reason=f"{law!r} takes no readings in time; {' and '.join(READERS)} do"
        )
    return READERS[law]
