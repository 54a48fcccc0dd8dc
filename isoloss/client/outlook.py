"""How a run is expected to end, shown while it trains: asked for in a thread of its own, at most once a minute."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from isoloss.client.documents import Forecast
from isoloss.client.errors import ApiError
from isoloss.client.init_arguments import moved
from isoloss.client.messages import OUTLOOK_THREAD, quieten_requests
from isoloss.client.session import Client
from isoloss.client.spool import Identity
from isoloss.errors import IsolossError

ASK_EVERY_S = 60.0
MOST_DIGITS = 4


class Outlook:
    """Asks for the run's forecast and prints each that is new; silent where there is none or no service."""

    def __init__(self, identity: Identity, connect: Callable[[], Client]) -> None:
        self.latest: Forecast | None = None
        """The last forecast that came."""
        self._identity = identity
        self._connect = connect
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=OUTLOOK_THREAD, daemon=True)

    def start(self) -> None:
        quieten_requests()
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; waits for nothing."""
        self._is_over.set()

    def _work(self) -> None:
        try:
            client = self._connect()
        except IsolossError:  # the recorder has said so
            return
        try:
            while not self._is_over.wait(ASK_EVERY_S):
                client = self._ask(client)
        finally:
            client.close()

    def _ask(self, client: Client) -> Client:
        """Ask once; the client to ask with next time, another where the service has moved."""
        try:
            found = client.forecasts.get(self._identity.project, self._identity.run_id)
        except ApiError:
            return client
        except IsolossError:
            other = moved(client, self._connect)
            if other is not None:
                client.close()
            return other or client
        before, self.latest = self.latest, found
        is_new = before is None or before["updated_at"] != found["updated_at"]
        if is_new and not self._is_over.is_set():
            _print(in_words(found))
        return client


def in_words(found: Forecast) -> str:
    """The forecast in a line."""
    place = f"run {found['run_id']} at step {found['step']:,} of {found['last_step']:,}"
    if found["value"] is None:
        return f"{place}: its final {found['target']} is not known yet{_because(found['reasons'])}"
    band = ""
    if found["lower"] is not None and found["upper"] is not None:
        band = f", {found['lower']:.{MOST_DIGITS}g} to {found['upper']:.{MOST_DIGITS}g}"
        band += f" at {100 * found['level']:.0f} %"
    left = f"; {found['left_band']}" if found["left_band"] else ""
    return f"{place}: final {found['target']} {found['value']:.{MOST_DIGITS}g}{band}{left}"


def _because(reasons: list[str]) -> str:
    return f" ({reasons[0]})" if reasons else ""


def _print(line: str) -> None:
    """Print a line on stderr; above the progress bars where there are some."""
    bars: Any = sys.modules.get("tqdm")
    try:
        if bars is not None:
            bars.tqdm.write(line, file=sys.stderr)
        else:
            sys.stderr.write(f"{line}\n")
    except (OSError, ValueError, AttributeError):  # a stream that is closed
        return
