"""The whole service on one machine: database, API and workers, started in order and stopped in reverse."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
from sqlalchemy.exc import OperationalError

from app.credentials import ensure_admin_key, write_private
from app.server import listen, url_of
from app.supervisor import Child, open_log_dir, wait_before_restart
from isoloss.errors import DatabaseFailed, DataDirectoryRefused, ServiceFailed, Unavailable
from store import migrate
from store.addresses import SETTING, private_allowed
from store.embedded import EmbeddedPostgres
from store.engine import create_engine, normalise_url
from store.watch import Watching

STARTS_WITHIN_S = 60.0
HOPELESS_DEATHS = 3
TICK_S = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What to start, and where. `database_url` None means the embedded database under `data_dir`."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    n_workers: int = 2
    database_url: str | None = None


class StopAsked(BaseException):
    """SIGINT or SIGTERM came."""


class Service:
    """The running service: its address, its key, and what keeps it up."""

    def __init__(self, wanted: Wanted, stack: ExitStack) -> None:
        self.wanted = wanted
        # What they say wrongly is refused here, and not in the logs of the children.
        Watching.from_environment(os.environ)
        private_allowed(os.environ)
        self._log_dir = wanted.data_dir / "logs"
        self._database: EmbeddedPostgres | None = None
        self._database_deaths = 0
        self._start_database_at = 0.0
        listener = stack.enter_context(_listen(wanted.host, wanted.port))
        self.url = url_of(listener)
        self._is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        self.database_url = wanted.database_url or self._start_database(stack)
        self.api_key, self.key_is_new = self._prepare_database()
        self._children = [self._api(listener), *self._workers()]
        stack.callback(self._stop_children)
        for child in self._children:
            child.start()
        self._wait_until_it_serves()
        write_private(self.credentials_path, {"url": self.url, "api_key": self.api_key})

    @property
    def credentials_path(self) -> Path:
        """Where the local command line finds the address and the key."""
        return self.wanted.data_dir / "credentials.json"

    def keep_up(self) -> None:
        """Restarts whatever dies, until an exception comes."""
        while True:
            self.tend()
            time.sleep(TICK_S)

    def tend(self) -> None:
        """Starts again what has died."""
        if self._database is not None and self._database.pid is None:
            self._restart_database(self._database)
        for child in self._children:
            child.tend()

    def _start_database(self, stack: ExitStack) -> str:
        self._database = stack.enter_context(EmbeddedPostgres(self.wanted.data_dir))
        return self._database.url

    def _restart_database(self, database: EmbeddedPostgres) -> None:
        if time.monotonic() < self._start_database_at:
            return
        self._database_deaths += 1
        log.warning("the database has ended; starting it again")
        try:
            database.start()
        except DatabaseFailed as error:
            log.error("%s", error)
            self._start_database_at = time.monotonic() + wait_before_restart(self._database_deaths)
        else:
            self._database_deaths = 0

    def _prepare_database(self) -> tuple[str, bool]:
        engine = create_engine(self.database_url, pool_size=1)
        try:
            migrate.upgrade(normalise_url(self.database_url).render_as_string(hide_password=False))
            return ensure_admin_key(engine, self.credentials_path)
        except OperationalError as error:
            raise Unavailable(
                service="The database", reason=self._why_unreachable(str(error.orig))
            ) from error
        finally:
            engine.dispose()

    def _why_unreachable(self, said: str) -> str:
        # libpq adds indented lines that ask the user questions.
        reason = " ".join(line for line in said.splitlines() if line[:1] not in ("", "\t"))
        if self.wanted.database_url is None:
            return reason
        return (
            f"{reason}; set ISOLOSS_DATABASE_URL to a server that runs, or leave it out for an embedded one"
        )

    def _child(self, name: str, module: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> Child:
        env = {"ISOLOSS_DATABASE_URL": self.database_url, "ISOLOSS_DATA_DIR": str(self.wanted.data_dir)}
        if SETTING not in os.environ and self._is_local:  # who reaches it reaches this machine anyway
            env[SETTING] = "1"
        return Child(name, module, self._log_dir / f"{name}.log", arguments, env, pass_fds)

    def _api(self, listener: socket.socket) -> Child:
        number = listener.fileno()
        return self._child("api", "app.server", "--fd", str(number), pass_fds=(number,))

    def _workers(self) -> list[Child]:
        return [self._child(f"worker-{n}", "workers") for n in range(1, self.wanted.n_workers + 1)]

    def _stop_children(self) -> None:
        for child in reversed(self._children):
            child.ask_to_stop()
        for child in reversed(self._children):
            child.stop()

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_S
        api = self._children[0]
        with httpx.Client(base_url=self.url, timeout=2.0, trust_env=False) as client:
            while not _answers(client):
                self.tend()
                if api.n_deaths >= HOPELESS_DEATHS:
                    raise ServiceFailed(
                        reason=f"the API ends at once. {api.log_path} says:\n{api.log_tail()}"
                    )
                if time.monotonic() > deadline:
                    raise ServiceFailed(
                        reason=f"it does not answer after {STARTS_WITHIN_S:.0f} s; see {api.log_path}"
                    )
                time.sleep(0.05)


@contextmanager
def serving(wanted: Wanted) -> Iterator[Service]:
    """The service while the block runs; afterwards all of it is stopped and no process is left.

    Call it in the main thread. SIGINT and SIGTERM raise StopAsked there, once.
    """
    with signals_raise(), ExitStack() as stack:
        stack.enter_context(_logged(_log_dir(wanted.data_dir) / "up.log"))
        yield Service(wanted, stack)


def _log_dir(data_dir: Path) -> Path:
    try:
        return open_log_dir(data_dir)
    except OSError as error:
        raise DataDirectoryRefused(
            path=str(data_dir),
            reason=f"it cannot be written ({error.strerror})",
            remedy="Choose another one with --data-dir",
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except ServiceFailed as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and (
            isinstance(cause, socket.gaierror) or cause.errno == errno.EADDRNOTAVAIL
        ):
            raise ServiceFailed(
                reason=f"{host} is no address of this machine; choose another with --host, such as 127.0.0.1"
            ) from cause
        raise


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What happens to the parts goes to a file: the terminal is the user's."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def signals_raise() -> Iterator[None]:
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if not asked:  # a second Ctrl-C must not interrupt the orderly end
            asked = True
            raise StopAsked

    before = {signum: signal.signal(signum, ask) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        asked = True
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
