"""Fits: the law that was asked for, fitted to the curves that were chosen."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from store import fits
from workers.work import Work, carry_out


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    """What the fit was asked to be, and the curves that it chooses as they are now."""
    from store.curves import load_curves

    fit = fits.of_job(session, job_id)
    curves, left_out = load_curves(session, fit.project_id, fit.select, fit.options)
    return {"law": fit.law, "curves": curves, "left_out": left_out, "options": dict(fit.options)}


def compute(
    law: str,
    curves: Any,
    left_out: list[Mapping[str, Any]],
    options: dict[str, Any],
    progress: Callable[[float, str], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fit's public document and its private one."""
    # Here, in the child process: the worker itself needs none of the numerical libraries.
    from isoloss.fitting import fit

    fitted = fit(law, curves, progress=progress, **options)
    public = fitted.public()
    return {**public, "left_out": [*left_out, *public.get("left_out", [])]}, fitted.as_document()


def write(session: Session, job_id: uuid.UUID, outcome: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Stores both documents."""
    result, state = outcome
    fits.save(session, fits.of_job(session, job_id).id, result, state)


FIT = Work(read=read, compute=compute, write=write)


async def run(context: JobContext, *, job_id: str) -> None:
    """The task `fit`."""
    await carry_out(FIT, context, uuid.UUID(job_id))
