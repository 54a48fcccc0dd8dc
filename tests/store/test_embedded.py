"""The embedded PostgreSQL: who may start it, and what is left when something is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from isoloss.errors import DatabaseFailed, DataDirectoryRefused
from store import processes
from store.embedded import MAX_SOCKET_PATH_BYTES, Binaries, EmbeddedPostgres

SUPERVISE = Path(__file__).with_name("supervise.py")
ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

pytestmark = pytest.mark.faults


class Supervisor:
    """A process that runs the database, so that a test can kill it."""

    def __init__(self, data_dir: Path, command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*(command or [sys.executable]), str(SUPERVISE), str(data_dir)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.answer: dict[str, object] = json.loads(line) if line else {"error": "nothing was said"}

    @property
    def url(self) -> str:
        assert "url" in self.answer, self.answer
        return str(self.answer["url"])

    @property
    def postmaster(self) -> psutil.Process:
        pid = self.answer["pid"]
        assert isinstance(pid, int)
        return psutil.Process(pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def ask_to_stop(self, signum: int) -> None:
        self.process.send_signal(signum)
        self.process.wait(20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.ask_to_stop(signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path that others may pass through, as a home directory is."""
    path = Path(tempfile.mkdtemp(prefix="il-"))
    path.chmod(0o755)
    yield path / "data"
    shutil.rmtree(path)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts supervisors, and leaves none."""
    started = []

    def start_one(data_dir: Path, command: list[str] | None = None) -> Supervisor:
        started.append(Supervisor(data_dir, command))
        return started[-1]

    yield start_one
    for supervisor in started:
        supervisor.close()


Start = Callable[..., Supervisor]


def servers_of(data_dir: Path) -> list[psutil.Process]:
    """Every process of a PostgreSQL on this directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(data_dir / "postgres"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until_gone(data_dir: Path, patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while servers_of(data_dir):
        assert time.monotonic() < deadline, f"still there: {servers_of(data_dir)}"
        time.sleep(0.02)


def write_rows(url: str, n_rows: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, %s)", [n_rows])


def count_rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_it_listens_on_a_private_socket_alone_and_keeps_what_was_committed(data_dir: Path) -> None:
    """Nobody else reaches the database, it is durable, and a second start finds the rows of the first."""
    with EmbeddedPostgres(data_dir) as server:
        write_rows(server.url, 10)
        with psycopg.connect(server.url) as connection:
            shown = [
                connection.execute(f"SHOW {name}").fetchone()  # type: ignore[call-overload]
                for name in ("listen_addresses", "fsync", "synchronous_commit")
            ]
        assert shown == [("",), ("on",), ("on",)]
        assert {path.stat().st_mode & 0o077 for path in (data_dir / "run", data_dir / "postgres")} == {0}
        assert not psutil.Process(server.pid).net_connections("inet")
    wait_until_gone(data_dir, 0.5)
    with EmbeddedPostgres(data_dir) as server:
        assert count_rows(server.url) == 10


def test_a_path_too_long_for_a_socket_gets_a_short_one(data_dir: Path) -> None:
    """The data directory may lie deep and hold spaces and quotes; the short folder goes when it stops."""
    deep = data_dir / 'a "quoted" name, with spaces' / ("d" * MAX_SOCKET_PATH_BYTES)
    with EmbeddedPostgres(deep) as server:
        write_rows(server.url, 3)
        short = (deep / "run").readlink()
        assert short.stat().st_mode & 0o077 == 0
    assert not short.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(start: Start, data_dir: Path, signum: int) -> None:
    """Ctrl-C and SIGTERM end every process, and the shutdown needs no recovery."""
    supervisor = start(data_dir)
    supervisor.ask_to_stop(signum)
    assert supervisor.process.returncode == 0
    assert servers_of(data_dir) == []
    assert "database system is shut down" in (data_dir / "logs" / "postgres.log").read_text()


def test_a_killed_supervisor_takes_the_database_down_cleanly(start: Start, data_dir: Path) -> None:
    """`kill -9` of the supervisor leaves no process, even with a client busy, and loses nothing."""
    supervisor = start(data_dir)
    write_rows(supervisor.url, 1000)
    with closing(psycopg.connect(supervisor.url)) as busy:
        busy.execute("SELECT 1")
        supervisor.kill()
        again = start(data_dir)  # at once: it waits for the old server to be gone
        assert count_rows(again.url) == 1000
    again.close()
    wait_until_gone(data_dir, 1)


def test_a_killed_postmaster_is_recovered_by_the_next_start(start: Start, data_dir: Path) -> None:
    """`kill -9` of the postmaster, with a backend stuck in a query and supervisor gone too, loses nothing."""
    supervisor = start(data_dir)
    write_rows(supervisor.url, 1000)
    with closing(psycopg.connect(supervisor.url)) as stuck:
        backend = psutil.Process(stuck.info.backend_pid)
        backend.suspend()  # an orphan that does not notice that its postmaster is gone
        supervisor.postmaster.kill()
        supervisor.kill()
        assert (data_dir / "postgres" / "postmaster.pid").exists()
        again = start(data_dir)
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
        assert count_rows(again.url) == 1000


def test_the_same_supervisor_starts_a_killed_postmaster_again(data_dir: Path) -> None:
    """A supervisor that lives notices that the postmaster died; it has every row at the same address."""
    deep = data_dir / ("d" * MAX_SOCKET_PATH_BYTES)
    with EmbeddedPostgres(deep) as server:
        address = server.url
        write_rows(address, 100)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while server.pid is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.start()
        assert server.url == address
        assert count_rows(address) == 100


def test_a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(data_dir: Path) -> None:
    """After a crash the number in postmaster.pid may be another program's; the start goes on."""
    with EmbeddedPostgres(data_dir) as server:
        write_rows(server.url, 5)
    (data_dir / "postgres" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{data_dir / 'postgres'}\n1\n5432\n\n\n"
    )
    with EmbeddedPostgres(data_dir) as server:
        assert count_rows(server.url) == 5


def test_an_interrupted_first_start_is_begun_again(data_dir: Path) -> None:
    """A data directory that was half made when the machine stopped is made afresh."""
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    with EmbeddedPostgres(data_dir) as server:
        write_rows(server.url, 1)


def test_a_directory_in_use_is_refused_and_left_alone(data_dir: Path) -> None:
    """A second start names the process that holds the directory and what to do, and harms nothing."""
    with EmbeddedPostgres(data_dir) as server:
        with pytest.raises(DataDirectoryRefused, match=rf"process {os.getpid()} is using it.*--data-dir"):
            EmbeddedPostgres(data_dir).start()
        write_rows(server.url, 1)


def test_a_postgres_that_someone_else_started_is_left_alone(data_dir: Path) -> None:
    """A PostgreSQL that was started by hand on the directory is named, and lives on."""
    with EmbeddedPostgres(data_dir) as server:
        identity = server._identity
    postgres = str(Binaries.find().directory / "postgres")
    words = [postgres, "-D", str(data_dir / "postgres"), "-c", "listen_addresses="]
    words += ["-c", f"unix_socket_directories={data_dir / 'run'}"]
    stranger = subprocess.Popen(
        [*processes.launcher(identity=identity), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (data_dir / "run" / ".s.PGSQL.5432").exists():
            time.sleep(0.02)
        with pytest.raises(DataDirectoryRefused, match=rf"process {stranger.pid}\) is using it"):
            EmbeddedPostgres(data_dir).start()
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGINT)
        stranger.wait(10)


def test_another_major_version_is_refused_with_the_remedy(data_dir: Path) -> None:
    """A directory of PostgreSQL 16 is not touched, and the message says how to move its data."""
    with EmbeddedPostgres(data_dir):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(DataDirectoryRefused, match=r"PostgreSQL 16 made it.*isoloss backup.*isoloss restore"):
        EmbeddedPostgres(data_dir).start()


def test_a_server_that_does_not_come_up_says_why(data_dir: Path) -> None:
    """The end of PostgreSQL's own log is in the message, and the directory is free again."""
    with pytest.raises(DatabaseFailed, match="no_such_setting"):
        EmbeddedPostgres(data_dir, settings={"no_such_setting": "1"}).start()
    with EmbeddedPostgres(data_dir):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_works_as_an_ordinary_user(start: Start, data_dir: Path) -> None:
    """A user without any privilege starts, stops and recovers the database."""
    python = _python_of_everybody()
    data_dir.mkdir()
    os.chown(data_dir, NOBODY, NOBODY)
    command = [*processes.launcher(identity=f"{NOBODY}:{NOBODY}", signum=signal.SIGTERM), *python]
    first = start(data_dir, command)
    write_rows(first.url, 7)
    assert first.postmaster.uids().real == NOBODY
    first.kill()
    second = start(data_dir, command)
    assert count_rows(second.url) == 7
    second.close()
    wait_until_gone(data_dir, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_runs_the_directory_of_another_user_as_that_user(data_dir: Path) -> None:
    """Where no user namespace is to be had, root's database runs as nobody, and does so ever after."""
    server = EmbeddedPostgres(data_dir)
    server._can_run_as = lambda identity, binaries: (  # type: ignore[method-assign]
        identity != processes.USER_NAMESPACE and EmbeddedPostgres._can_run_as(server, identity, binaries)
    )
    with server:
        write_rows(server.url, 4)
        assert psutil.Process(server.pid).uids().real == NOBODY
    with EmbeddedPostgres(data_dir) as server:
        assert psutil.Process(server.pid).uids().real == NOBODY
        assert count_rows(server.url) == 4


def _python_of_everybody() -> list[str]:
    """An interpreter of our version that another user can run, with our packages."""
    packages = ":".join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        words = ["/usr/bin/env", f"PYTHONPATH={packages}", python]
        probe = [*processes.launcher(identity=f"{NOBODY}:{NOBODY}"), *words, "-c", "import store.embedded"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("no interpreter that another user can run")
