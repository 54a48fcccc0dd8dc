"""A worker whose fits are chores: `options` of the fit name a function of `chores` and its keywords.

`python -m tests.workers.chore_worker [--impatient]`; an impatient one takes another worker for dead after 3 s.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from sqlalchemy.orm import Session

from store import fits
from tests.workers import chores
from workers import __main__ as worker
from workers import fits as fit_work
from workers import recover
from workers.work import Work


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    options = dict(fits.of_job(session, job_id).options)
    return {"name": options.pop("chore"), "keywords": options}


def compute(name: str, keywords: dict[str, Any], progress: chores.Progress) -> Any:
    return getattr(chores, name)(**keywords, progress=progress)


def write(session: Session, job_id: uuid.UUID, outcome: Any) -> None:
    fits.save(session, fits.of_job(session, job_id).id, {"outcome": outcome}, {})


if __name__ == "__main__":
    from tests.workers import chore_worker  # by its name, so that the child process finds `compute` there

    fit_work.FIT = Work(read=read, compute=chore_worker.compute, write=write)
    if "--impatient" in sys.argv:
        sys.argv.remove("--impatient")
        recover.STALLED_AFTER_S, recover.EVERY_S = 3.0, 2
        worker.STALLED_AFTER_S, worker.HEARTBEAT_S = 3.0, 0.5
    worker.main()
