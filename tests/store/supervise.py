"""Run an embedded PostgreSQL until a signal comes, for tests that kill its supervisor.

`python supervise.py DATA_DIR` prints one line of JSON once the database answers, or the error.
"""

from __future__ import annotations

import json
import signal
import sys

from isoloss.errors import IsolossError
from store.embedded import EmbeddedPostgres


def main() -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = EmbeddedPostgres(sys.argv[1])
    try:
        server.start()
    except IsolossError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        raise SystemExit(1) from None
    print(json.dumps({"url": server.url, "pid": server.pid}), flush=True)
    signal.sigwait(signals)
    server.stop()


if __name__ == "__main__":
    main()
