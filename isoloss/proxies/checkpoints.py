"""Checkpoints of a training: one file, replaced as a whole."""

from __future__ import annotations

import glob
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from isoloss.errors import UnusableData

FORMAT = 1


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in place of the one there. Raises OSError, and leaves that one whole, where it cannot.

    It is on disk when this returns; a reader sees the old one or the new one, never a part.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # by writers that were killed
        left.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what was written. Raises FileNotFoundError where nothing was, UnusableData for another kind of file.

    Nothing in a file is executed.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise UnusableData(reason=f"{path.name} is not a checkpoint, or a damaged one") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UnusableData(reason=f"{path.name} is not a checkpoint of this version")
    return state
