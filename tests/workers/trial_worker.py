"""A worker of trials that reports every third of a second and takes another for dead after three.

`python -m tests.workers.trial_worker`; it starts no child for fits before it is asked for one.
"""

from __future__ import annotations

from workers import __main__ as worker
from workers import recover, trials

if __name__ == "__main__":
    recover.STALLED_AFTER_S, recover.EVERY_S = 3.0, 2
    worker.STALLED_AFTER_S, worker.HEARTBEAT_S = 3.0, 0.5
    worker.PRELOADED = []
    trials.STRETCH_S = 0.3
    worker.main()
