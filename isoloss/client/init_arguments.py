"""The arguments of `isoloss.init`: checked, with the environment behind them."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from isoloss.client.session import Client
from isoloss.client.spool import Identity
from isoloss.errors import InvalidInput, IsolossError

MODES = ("online", "offline", "disabled")
NAME = re.compile(r"(?=.{1,100}\Z)(\.*[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3,})")
DEFAULT_DIR = "isoloss-runs"
LEAST_SPOOL_BYTES = 1 << 16
REQUEST_TIMEOUT_S = 10.0


def chosen_mode(mode: object) -> str:
    """The mode, by default online."""
    chosen = mode or os.environ.get("ISOLOSS_MODE") or "online"
    if chosen not in MODES:
        raise InvalidInput(field="mode", reason=f"is {', '.join(MODES[:-1])} or {MODES[-1]}, not {chosen!r}")
    return str(chosen)


def chosen_identity(project: object, run_id: object, mode: str) -> Identity:
    """Project and run id; a run without one gets a new one."""
    named = project or os.environ.get("ISOLOSS_PROJECT") or ("-" if mode == "disabled" else None)
    if named is None:
        raise InvalidInput(field="project", reason="is needed: an argument, or ISOLOSS_PROJECT")
    chosen = run_id or os.environ.get("ISOLOSS_RUN_ID") or _new_run_id()
    return Identity(_checked_name("project", named), _checked_name("run_id", chosen))


def chosen_root(dir: object) -> Path:
    """The folder of all spools."""
    if dir is not None and not isinstance(dir, str | Path):
        raise InvalidInput(field="dir", reason=f"must be a path, not {type(dir).__name__}")
    chosen = Path(dir or os.environ.get("ISOLOSS_DIR") or DEFAULT_DIR)
    try:
        return chosen.expanduser().absolute()
    except (RuntimeError, OSError):  # no such user, no such folder to be in
        return chosen


def is_named(run_id: object) -> bool:
    """Whether the run has a name that it may have had before."""
    return bool(run_id or os.environ.get("ISOLOSS_RUN_ID"))


def _new_run_id() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def _checked_name(field: str, name: object) -> str:
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        reason = f"{name!r} is no name: letters, digits, '.', '_' and '-', at most 100"
        raise InvalidInput(field=field, reason=reason)
    return name


def check_numbers(resume_step: object, rank: object, spool_bytes: object) -> None:
    """Refuse numbers that are none, or too small."""
    least = {"resume_step": 0, "rank": 0, "spool_bytes": LEAST_SPOOL_BYTES}
    for field, value in {"resume_step": resume_step, "rank": rank, "spool_bytes": spool_bytes}.items():
        if value is None and field != "spool_bytes":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least[field]:
            raise InvalidInput(field=field, reason=f"must be a whole number, {least[field]} or more")


def check_switch(field: str, value: object) -> None:
    """Refuse what is neither on nor off."""
    if not isinstance(value, bool):
        raise InvalidInput(field=field, reason=f"must be True or False, not {value!r}")


def connection(url: str | None, api_key: str | None) -> Callable[[], Client]:
    """What makes the client, in the thread that will use it."""
    # The environment is read now: a training that changes it later means something else by it.
    url = url or os.environ.get("ISOLOSS_URL") or None
    api_key = api_key or os.environ.get("ISOLOSS_API_KEY") or None
    return lambda: Client(url, api_key, timeout=REQUEST_TIMEOUT_S, retries=0)


def moved(client: Client, connect: Callable[[], Client]) -> Client | None:
    """A client of the service where it is now, None where it is known at no other address.

    A service of this machine that was started anew may listen on another port.
    """
    try:
        found = connect()
    except IsolossError:
        return None
    if found.url != client.url:
        return found
    found.close()
    return None
