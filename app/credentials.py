"""The key of whoever runs the service on this machine, kept where the local command line finds it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from store import keys

KEY_NAME = "isoloss up"


def ensure_admin_key(engine: Engine, path: Path) -> tuple[str, bool]:
    """A key with every scope, and whether it is new: that of the file at `path` where it still opens."""
    with Session(engine) as session, session.begin():
        stored = _read_key(path)
        if stored is not None and keys.find(session, stored) is not None:
            return stored, False
        _, secret = keys.create(session, KEY_NAME, keys.SCOPES)
        return secret, True


def write_private(path: Path, document: dict[str, str]) -> None:
    """Writes the document as JSON, at once or not at all, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.write("\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read_key(path: Path) -> str | None:
    try:
        key = json.loads(path.read_text(encoding="utf-8"))["api_key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) else None
