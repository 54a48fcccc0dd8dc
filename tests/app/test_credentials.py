"""The local admin key: made once, kept private, replaced when it no longer opens."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from app.credentials import ensure_admin_key, write_private
from store.engine import create_engine


def _key(engine: Engine, path: Path) -> tuple[str, bool]:
    key, new = ensure_admin_key(engine, path)
    write_private(path, {"url": "http://127.0.0.1:1", "api_key": key})
    return key, new


def test_a_key_is_made_once_and_again_where_it_was_lost(database_url: str, tmp_path: Path) -> None:
    """The stored key is used again; a damaged file, or a database that does not know the key, gets another."""
    path = tmp_path / "credentials.json"
    engine = create_engine(database_url)
    first, new = _key(engine, path)
    assert new
    assert _key(engine, path) == (first, False)
    assert path.stat().st_mode & 0o777 == 0o600
    for damage in ("", "[]", '{"api_key": 3}', '{"api_key": "isl_unknown"}'):
        path.write_text(damage)
        replaced, new = _key(engine, path)
        assert new
        assert replaced != first
    engine.dispose()
