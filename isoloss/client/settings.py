"""Where the service is and which key opens it: arguments, environment, then the local credentials file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from isoloss.client.errors import NoCredentials

CREDENTIALS_FILE = "credentials.json"


@dataclass(frozen=True)
class Settings:
    """The address and the key; the key is kept out of every printed form."""

    url: str
    api_key: str | None = field(default=None, repr=False)


def data_dir() -> Path:
    """The folder of the local service: ISOLOSS_DATA_DIR, else ~/.local/share/isoloss."""
    named = os.environ.get("ISOLOSS_DATA_DIR")
    return Path(named).expanduser() if named else Path.home() / ".local" / "share" / "isoloss"


def find_settings(url: str | None = None, api_key: str | None = None) -> Settings:
    """The settings of a client, each from its argument, else the environment, else `credentials.json`.

    The file's key goes to the file's address alone: a key must not reach another server because a URL was
    given without one. Raises NoCredentials where no address is known.
    """
    url = url or os.environ.get("ISOLOSS_URL") or None
    api_key = api_key or os.environ.get("ISOLOSS_API_KEY") or None
    stored = _read_credentials(data_dir() / CREDENTIALS_FILE) if url is None or api_key is None else None
    if url is None:
        if stored is None:
            path = data_dir() / CREDENTIALS_FILE
            raise NoCredentials(reason=f"there is no {path}; ISOLOSS_DATA_DIR names another --data-dir")
        url = stored.url
    url = url.rstrip("/")
    if api_key is None and stored is not None and stored.url == url:
        api_key = stored.api_key
    return Settings(url, api_key)


def _read_credentials(path: Path) -> Settings | None:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        document = json.loads(text)
        return Settings(str(document["url"]).rstrip("/"), document.get("api_key"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCredentials(reason=f"{path} is not a credentials file") from error
