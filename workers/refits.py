"""Refits: a fit that follows its runs, done again from where it stood when they changed."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from isoloss.errors import InvalidInput
from isoloss.observations import Curve, RunTable
from store import fits, following
from workers.fits import Documents, observed, storable
from workers.work import Tools, Work, carry_out, in_transaction

if TYPE_CHECKING:
    from isoloss.fitting import Fit

LeftOut = list[dict[str, str]]

log = logging.getLogger(__name__)


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    """What the fit was asked to be, its runs as they are now, and what it found last."""
    fit = following.of_refit(session, job_id)
    return {**observed(session, fit), "previous": fits.last_state(session, fit.id)}


def compute(
    law: str,
    observations: Sequence[Curve] | RunTable,
    left_out: Sequence[dict[str, str]],
    options: Mapping[str, Any],
    previous: Mapping[str, Any] | None,
    progress: Callable[[float, str], None],
) -> Documents | LeftOut:
    """The fit's public document and its private one; where its data are as they were, the runs left out of them."""
    from isoloss.fitting import fit  # in the child process alone

    before = None if previous is None else _readable(previous)
    fitted = fit(law, observations, progress=progress, left_out=left_out, previous=before, **options)
    if before is not None and fitted.theta is before.theta:  # the same fit, but for what it leaves out
        return fitted.left_out
    return fitted.public(), fitted.as_document()


def _readable(document: Mapping[str, Any]) -> Fit | None:
    """The fit that a document describes, None where an older version wrote it otherwise: the fit is made afresh."""
    from isoloss.fitting import Fit

    try:
        return Fit.from_document(document)
    except InvalidInput:
        log.warning("the last result of a fit of %s cannot be read; it is fitted afresh", document.get("law"))
        return None


def write(session: Session, job_id: uuid.UUID, found: Documents | LeftOut) -> dict[str, Any]:
    """Put a new result in the place of the last one, both documents at once; say what was done."""
    fit = following.of_refit(session, job_id, lock=True)
    if not fit.follows:
        return {"outcome": "dropped"}
    if isinstance(found, list):
        following.count_skipped(session, fit, found)
        return {"outcome": "unchanged"}
    result, state = found
    following.replace(session, fit, storable(result), state)
    return {"outcome": "replaced"}


REFIT = Work(read=read, compute=compute, write=write)


async def run(context: JobContext, *, fit_id: str) -> None:
    """The task `refit`."""
    assert context.job.id is not None
    job_id = await in_transaction(Tools.of(context), following.begin, uuid.UUID(fit_id), context.job.id)
    if job_id is not None:
        await carry_out(REFIT, context, job_id)
