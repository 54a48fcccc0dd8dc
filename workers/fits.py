"""Fits: the law that was asked for, fitted to the runs that were chosen."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from isoloss.laws import LAWS, TableLaw
from isoloss.observations import Curve, RunTable
from isoloss.observations.tables import LeftOut
from isoloss.readings import READERS
from store import fits, runs
from store.curves import load_curves
from store.readings import load_readings
from store.run_tables import are_table, load_table
from store.tables import Fit
from workers.work import Work, carry_out

Documents = tuple[dict[str, Any], dict[str, Any]]


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    """What the fit was asked to be, and the runs that it chooses as they are now."""
    return observed(session, fits.of_job(session, job_id))


def observed(session: Session, fit: Fit) -> dict[str, Any]:
    """The fit's law and options, and its runs as the law takes them: their curves, or what came of each."""
    observations, left_out = _loaded(session, fit)
    return {
        "law": fit.law,
        "observations": observations,
        "left_out": left_out,
        "options": dict(fit.options),
    }


def _loaded(session: Session, fit: Fit) -> tuple[Sequence[Curve] | RunTable, LeftOut]:
    if fit.law in READERS:
        return load_readings(session, fit.project_id, fit.law, fit.select, fit.options)
    load = load_table if _of_tables(session, fit) else load_curves
    return load(session, fit.project_id, fit.select, fit.options)


def _of_tables(session: Session, fit: Fit) -> bool:
    """Whether the law is one of finished runs; one that is to be chosen is of the kind that the runs are."""
    if fit.law in LAWS:
        return isinstance(LAWS[fit.law], TableLaw)
    return are_table(runs.chosen(session, fit.project_id, fit.select), fit.options)


def compute(
    law: str,
    observations: Sequence[Curve] | RunTable,
    left_out: Sequence[dict[str, str]],
    options: Mapping[str, Any],
    progress: Callable[[float, str], None],
) -> Documents:
    """The fit's public document and its private one."""
    # Here, in the child process: the worker itself does without the numerical libraries of a fit.
    from isoloss.fitting import fit

    fitted = fit(law, observations, progress=progress, left_out=left_out, **options)
    return fitted.public(), fitted.as_document()


def write(session: Session, job_id: uuid.UUID, documents: Documents) -> None:
    """Stores both documents, the public one as the contract writes it."""
    result, state = documents
    fits.save(session, fits.of_job(session, job_id).id, storable(result), state)


FIT = Work(read=read, compute=compute, write=write)


async def run(context: JobContext, *, job_id: str) -> None:
    """The task `fit`."""
    await carry_out(FIT, context, uuid.UUID(job_id))


def storable(value: Any) -> Any:
    """The document with non-finite numbers as the strings of the contract: JSON has none."""
    if isinstance(value, Mapping):
        return {name: storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
