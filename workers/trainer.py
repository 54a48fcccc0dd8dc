"""The child's side of a trial: one training, kept between the things that its worker asks for.

Torch is imported here alone, in the child process. Every function takes the `progress` of `workers/child.py`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.errors import UnusableData
from isoloss.observations.point_columns import MAY_BE_NON_FINITE

if TYPE_CHECKING:
    from isoloss.proxies.data import TokenData
    from isoloss.proxies.training import Training

Progress = Callable[[float, str], None]

_kept: Training | None = None


@dataclass(frozen=True)
class Stand:
    """Where a training stands: the steps that it has done, its `status`, what was noted on the way, and on what."""

    step: int
    status: str
    notes: Sequence[str]
    device: str


@dataclass(frozen=True)
class Trained:
    """What a stretch of training gave: the points of its steps, and where it stands."""

    columns: Mapping[str, list[Any]]
    stand: Stand


def begin(
    config: Mapping[str, Any], data: str, device: str, checkpoint: Path | None, progress: Progress
) -> tuple[Stand, dict[str, Any]]:
    """Take a training up, from its checkpoint where that can be read; returns where it stands, and its run.

    Raises InvalidInput for data and devices that cannot serve.
    """
    global _kept
    _kept = None  # before the next one takes its memory
    from isoloss.proxies.configuration import ProxyConfig

    progress(0.0, "reading the data")
    tokens = _data(data)
    asked = ProxyConfig.of(config)
    _kept, lost = _taken_up(asked, tokens, device, checkpoint)
    said = asked.run_specification(tokens.vocab_size)
    said["config"]["data_fingerprint"] = tokens.fingerprint
    return _stand(_kept, lost), said


def advance(until_step: int, seconds: float, progress: Progress) -> Trained:  # noqa: ARG001
    """Train to a step, or for so long."""
    training = _training()
    columns = training.advance(until_step, seconds)
    return Trained({name: _storable(name, cells) for name, cells in columns.items()}, _stand(training))


def save(path: Path, progress: Progress) -> tuple[float, str | None]:  # noqa: ARG001
    """Write a checkpoint; returns the seconds that it took, and why it could not be written, if so."""
    begun = time.perf_counter()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _training().save(path)
    except OSError as error:
        return time.perf_counter() - begun, error.strerror or str(error)
    return time.perf_counter() - begun, None


def _taken_up(
    config: Any, data: TokenData, device: str, checkpoint: Path | None
) -> tuple[Training, list[str]]:
    """The training, and what is to be said where its checkpoint is of no use: then it begins again."""
    from isoloss.proxies.training import Training

    if checkpoint is None:
        return Training.start(config, data, device), []
    try:
        return Training.resume(config, data, device, checkpoint), []
    except FileNotFoundError:
        reason = f"there is no {checkpoint.name} in {checkpoint.parent} on {os.uname().nodename}"
    except UnusableData as error:
        reason = str(error)
    return Training.start(config, data, device), [f"begun again from its beginning: {reason}"]


def _training() -> Training:
    assert _kept is not None, "a training is begun before it is asked for anything"
    return _kept


def _stand(training: Training, more: Sequence[str] = ()) -> Stand:
    return Stand(training.step, training.status, [*training.notes, *more], _device_name(training))


def _device_name(training: Training) -> str:
    if training.device.type == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(training.device))


@lru_cache(maxsize=2)
def _data(source: str) -> TokenData:
    from isoloss.proxies.data import load_data

    return load_data(source)


def _storable(name: str, cells: list[Any]) -> list[Any]:
    """A column without the non-finite numbers that it may not hold."""
    if name in MAY_BE_NON_FINITE:
        return cells
    return [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in cells]
