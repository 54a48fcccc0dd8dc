"""Recommendations and Pareto fronts: what the chosen runs say, and the fits that it rests on."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from procrastinate import JobContext
from sqlalchemy.orm import Session

from isoloss.errors import UnusableData
from isoloss.observations import Curve, RunTable
from isoloss.observations.tables import LeftOut
from store import advice, fits, runs
from store.curves import load_curves
from store.readings import load_readings, readable
from store.run_tables import load_table
from store.tables import Advice
from workers.fits import storable
from workers.work import Work, carry_out


@dataclass(frozen=True)
class Rest:
    """A fit that advice rests on: both its documents, and the runs that it was made to where they are not all."""

    law: str
    run_ids: Sequence[str] | None
    result: dict[str, Any]
    state: dict[str, Any]


MOST_CURVES = 60
"""Curves of one size and batch that a reading rests on: more tell little more."""

Found = tuple[dict[str, Any], list[Rest]]


def read(session: Session, job_id: uuid.UUID) -> dict[str, Any]:
    """What was asked, and the chosen runs as they are now."""
    asked = advice.of_job(session, job_id)
    options = asked.asked["options"]
    table, unread = load_table(session, asked.project_id, asked.select, options)
    found = {"kind": asked.kind, "asked": asked.asked, "runs": table}
    if asked.kind != "recommendation":
        return found | {"curves": [], "noise": None, "unread": {"runs": unread}}
    curves, no_curves = _curves(session, asked, options)
    noise, no_noise = _noise(session, asked, options)
    lost = {"runs": unread, "curves": no_curves, "noise": no_noise}
    return found | {"curves": curves, "noise": noise, "unread": lost}


def _curves(session: Session, asked: Advice, options: Mapping[str, Any]) -> tuple[list[Curve], LeftOut]:
    """The curves of the largest size and of one batch that were logged at several peak learning rates."""
    target = options.get("target") or "loss"
    groups: dict[tuple[float, float], dict[str, float]] = {}
    for run in runs.chosen(session, asked.project_id, asked.select):
        said = {**run.config, **(run.schedule or {})}
        size, batch, peak = (said.get(name) for name in ("n_params", "batch_tokens", "peak_lr"))
        if target in run.columns and size is not None and batch is not None and peak is not None:
            groups.setdefault((size, batch), {})[run.run_id] = peak
    several = [key for key, peaks in groups.items() if len({f"{peak:.4g}" for peak in peaks.values()}) > 1]
    if not several:
        return [], []
    names = in_turn(groups[max(several)])
    curves, unread = load_curves(session, asked.project_id, {"run_ids": names[:MOST_CURVES]}, options)
    why = f"{MOST_CURVES} curves are read, evenly of all peak learning rates"
    return curves, [*unread, *({"run_id": name, "reason": why} for name in names[MOST_CURVES:])]


def in_turn(peaks: Mapping[str, float]) -> list[str]:
    """Run ids in an order of which every beginning has about as many of each peak learning rate."""
    seen: Counter[float] = Counter()
    turns: list[tuple[int, float, str]] = []
    for name in sorted(peaks):
        turns.append((seen[peaks[name]], peaks[name], name))
        seen[peaks[name]] += 1
    return [name for _, _, name in sorted(turns)]


def _noise(session: Session, asked: Advice, options: Mapping[str, Any]) -> tuple[RunTable | None, LeftOut]:
    """The readings of gradient noise that the runs logged; None where they logged none."""
    try:
        readable(session, "noise_scale", runs.chosen(session, asked.project_id, asked.select), options)
    except UnusableData:
        return None, []
    return load_readings(session, asked.project_id, "noise_scale", asked.select, options)


def compute(
    kind: str,
    asked: Mapping[str, Any],
    runs: RunTable,
    curves: Sequence[Curve],
    noise: RunTable | None,
    unread: Mapping[str, LeftOut],
    progress: Callable[[float, str], None],
) -> Found:
    """The public document, in which a basis names its law, and the fits."""
    # Here, in the child process: the worker itself does without the numerical libraries of a fit.
    from isoloss.advice import pareto, recommend
    from isoloss.advice.recommendation import fitted_to

    question = {name: value for name, value in asked.items() if name != "options"}
    beside = {"curves": curves, "noise": noise} if kind == "recommendation" else {}
    give: Callable[..., Any] = recommend if kind == "recommendation" else pareto
    found = give(runs, **question, **beside, **asked["options"], unread=unread, progress=progress)
    rests = []
    for law, fit in found.fits.items():
        fitted = fitted_to(law, runs)
        some = None if fitted is runs else fitted.run_ids
        if law == "effective_lr":
            some = tuple(curve.run_id for curve in curves)
        rests.append(Rest(law, some, fit.public(), fit.as_document()))
    return found.as_dict(), rests


def write(session: Session, job_id: uuid.UUID, found: Found) -> None:
    """Stores the fits as fits of the project, and the document in which every basis names its fit."""
    document, rests = found
    given = advice.of_job(session, job_id)
    stored = {
        one.law: fits.add(
            session,
            given.job,
            one.law,
            given.select if one.run_ids is None else {"run_ids": list(one.run_ids)},
            given.asked["options"],
            storable(one.result),
            one.state,
        )
        for one in rests
    }
    advice.save(session, given, storable(_with_fits(document, stored)))


def _with_fits(value: Any, stored: Mapping[str, uuid.UUID]) -> Any:
    """The document with the fit's id in every entry of a basis."""
    if isinstance(value, list):
        return [_with_fits(one, stored) for one in value]
    if not isinstance(value, Mapping):
        return value
    named = {name: _with_fits(one, stored) for name, one in value.items() if name != "basis"}
    if "basis" in value:
        named["basis"] = [{"fit_id": str(stored[one["law"]]), **one} for one in value["basis"]]
    return named


ADVICE = Work(read=read, compute=compute, write=write)


async def run(context: JobContext, *, job_id: str) -> None:
    """The tasks `recommendation` and `pareto`."""
    await carry_out(ADVICE, context, uuid.UUID(job_id))
