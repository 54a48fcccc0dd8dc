"""One API process: `python -m app.server --fd N`, with the database's address in ISOLOSS_DATABASE_URL.

The listening socket is its parent's, so that a client that connects while a dead API process is replaced waits
and is not refused.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys

import uvicorn

from isoloss.errors import ServiceFailed
from store.processes import die_with_parent

BACKLOG = 512
SWITCH_INTERVAL_S = 0.0005
GRACE_S = 3  # event streams never end by themselves


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.server", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket, inherited")
    parser.add_argument("--parent", type=int, help="the process id to die with")
    asked = parser.parse_args()
    if asked.parent is not None:
        die_with_parent(signal.SIGTERM, asked.parent)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("alembic", "procrastinate"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Four busy threads at the default of 5 ms keep the event loop from its turn for longer than a request takes.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # the application logs requests with their durations
        backlog=BACKLOG,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=asked.fd)])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, inheritable; port 0 takes a free one. Raises ServiceFailed."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named: asyncio turns Nagle's algorithm off only where it is, and it costs 40 ms.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise ServiceFailed(reason=f"there is no address {host!r} to listen on ({error.strerror})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServiceFailed(
            reason=f"{host} port {port} cannot be listened on ({error.strerror}); "
            "choose another with --port, or --port 0 for a free one"
        ) from error
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket) -> str:
    """The address at which a client on this machine finds it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    main()
