"""Child processes that die with their parent, and the identity that they run under.

Run as a script this file becomes another program: `python processes.py --parent PID --signal N
[--identity I] [--keep FD] -- command`. It needs the standard library alone, so that it starts in some 15 ms,
and it spares us a `preexec_fn`, which can deadlock where the parent has threads.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NOBODY = 65534

SAME_USER = "same"
USER_NAMESPACE = "namespace"


def die_with_parent(signum: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Asks the kernel to send this process `signum` when the thread that started it ends.

    `parent` is the process id that must still be the parent: without it a parent that died before this call
    would go unnoticed. Linux only; elsewhere it does nothing.
    """
    if sys.platform != "linux":
        return
    _libc().prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signum)


def launcher(*, identity: str = SAME_USER, signum: int = signal.SIGINT, keep: int | None = None) -> list[str]:
    """The words to put before a command so that it dies with this process, under `identity`.

    `identity` is `same`, `namespace` (root appears as nobody, in a user namespace of its own) or `UID:GID`.
    `keep` is a file descriptor that the command inherits; give it to `pass_fds` too. Start the command from a
    thread that lives as long as the command should.
    """
    words = [sys.executable, "-I", "-S", __file__, "--parent", str(os.getpid()), "--signal", str(int(signum))]
    words += ["--identity", identity]
    if keep is not None:
        words += ["--keep", str(keep)]
    return [*words, "--"]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _assume(identity: str) -> None:
    if identity == USER_NAMESPACE:
        _enter_user_namespace()
    elif identity != SAME_USER:
        uid, gid = (int(part) for part in identity.split(":"))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def _enter_user_namespace() -> None:
    """PostgreSQL refuses to run as root; here it sees itself as nobody while the files stay root's."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc().unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are not available")
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NOBODY} {uid} 1"),
        ("gid_map", f"{_NOBODY} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib would triple the start-up time
            file.write(line)


def _become() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--identity", default=SAME_USER)
    parser.add_argument("--keep", type=int)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    _assume(asked.identity)
    # After the change of identity, which clears the request.
    die_with_parent(asked.signal, asked.parent)
    if asked.keep is not None:
        os.set_inheritable(asked.keep, True)
    os.execvp(asked.command[0], asked.command)


if __name__ == "__main__":
    _become()
