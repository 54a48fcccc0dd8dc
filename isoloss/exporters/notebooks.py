"""A fit as a notebook that makes it again with the library alone, beside the data that the service read for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from pprint import pformat
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.exporters.chosen import Family, Run, Selection, Service, with_ancestors
from isoloss.exporters.fits import finished_fit
from isoloss.exporters.notebook_cells import AGAIN, CHECK, DRAW, PREDICT, READ, TITLE
from isoloss.exporters.runs import Exporting, write_json
from isoloss.exporters.targets import check_file, new_file, new_folder
from isoloss.importers.exported_files import FIT_FILE
from isoloss.importers.paths import checked_path
from isoloss.laws import LAWS, TableLaw
from isoloss.notes import counted
from isoloss.readings import READERS

SUFFIX = ".ipynb"
EXACT, AS_GOOD = 1e-6, 1e-3
"""How far, as a share of itself, a number may lie off the service's: on another processor; after another search."""

MOST_NAMED = 5


@dataclass(frozen=True)
class NotebookReport:
    """A notebook and its data: `notes` say what stands in the way of the same numbers."""

    path: str
    data: str
    fit_id: str
    law: str
    n_runs: int
    n_points: int
    notes: tuple[str, ...] = ()


def export_notebook(
    service: Service,
    project: str,
    fit_id: str,
    path: str | Path,
    *,
    force: bool = False,
    on_progress: Callable[[float, str], None] | None = None,
) -> NotebookReport:
    """Write a notebook that makes a fit again, and a folder `NAME-data` beside it with what the fit read.

    The notebook asks no service. It checks the hash of the data, and every parameter, interval and quantity that
    follows, against what the service found. Runs that have changed since the fit are told: then the hash will
    differ, and the notebook says so. Raises NotFound, NotReady for a fit without a result, and InvalidInput.
    """
    path = checked_path(path, "path").expanduser()
    if path.suffix.lower() != SUFFIX:
        raise InvalidInput(field=str(path), reason=f"the name of a notebook ends in {SUFFIX}")
    check_file(path, force=force)
    fit = finished_fit(service, project, fit_id)
    kind = _kind(fit)
    chosen, notes = _chosen_then(service, project, fit)
    family = with_ancestors(service, project, chosen)
    notes += _changed_since(fit, family)
    exporting = Exporting(service, project, "csv", on_progress, _columns(fit, kind))
    data = path.with_name(f"{path.name.removesuffix(path.suffix)}-data")
    about = {
        "id": fit["id"],
        "law": fit["law"],
        "kind": kind,
        "options": fit.get("options") or {},
        "run_ids": [run["run_id"] for run in chosen],
    }
    with new_folder(data, force=force) as part:
        write_json(part / FIT_FILE, fit)
        exporting.write_folder(part, family, {"select": fit["select"], "fit": about})
        notes += [f"run {one.run_id}: {one.reason}" for one in exporting.left_out]
    with new_file(path, force=force) as file:
        text = json.dumps(_notebook(project, fit, kind, data.name, exporting, notes), indent=1)
        file.write_text(text + "\n", encoding="utf-8")
    return NotebookReport(
        str(path),
        str(data),
        fit["id"],
        fit["law"],
        len(chosen),
        exporting.n_points,
        tuple(notes),
    )


def _kind(fit: Mapping[str, Any]) -> str:
    """What the law was fitted to; where it was chosen among several, they are all of one kind."""
    law = fit["law"]
    if law not in LAWS:
        law = (fit.get("selection") or {}).get("best", law)
    if law not in LAWS:
        raise InvalidInput(field="law", reason=f"this version of Isoloss has no law {law!r}")
    if law in READERS:
        return "readings"
    return "table" if isinstance(LAWS[law], TableLaw) else "curves"


def _columns(fit: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """The columns of points that a fit reads."""
    if kind == "readings":
        return READERS[fit["law"]].points
    return ((fit.get("options") or {}).get("target") or "loss", "lr") if kind == "curves" else ()


def _chosen_then(service: Service, project: str, fit: Mapping[str, Any]) -> tuple[list[Run], list[str]]:
    """The runs that the selection of a fit means, in the service's order, without those that came later."""
    found = Selection.of_fit(fit["select"]).runs(service, project, sort="run_id")
    since = _read_at(fit)
    there = [run for run in found if since is None or not _after(run.get("created_at"), since)]
    if not there:
        raise InvalidInput(field="fit", reason="none of the runs that it was made of is there any more")
    later = len(found) - len(there)
    return there, [
        f"{counted(later, 'run')} of the selection came after the fit: not in the data"
    ] if later else []


def _changed_since(fit: Mapping[str, Any], family: Family) -> list[str]:
    since = _read_at(fit)
    changed = [
        str(run["run_id"])
        for run in family.runs
        if since is not None and _after(run.get("updated_at"), since)
    ]
    if not changed:
        return []
    more = ", ..." if len(changed) > MOST_NAMED else ""
    named = f"{', '.join(changed[:MOST_NAMED])}{more}"
    return [
        f"{counted(len(changed), 'run')} changed after the fit ({named}): its data may not be there any more, and "
        "the notebook stops where their hash differs"
    ]


def _read_at(fit: Mapping[str, Any]) -> datetime | None:
    """When the service read the data of a fit: a fit that follows its runs, not later than it stored its result."""
    said = fit.get("updated_at") if fit.get("revision", 1) > 1 else fit.get("started_at")
    return datetime.fromisoformat(said) if said else None


def _after(said: str | None, moment: datetime) -> bool:
    return said is not None and datetime.fromisoformat(said) > moment


def _notebook(
    project: str, fit: Mapping[str, Any], kind: str, data: str, written: Exporting, notes: Sequence[str]
) -> dict[str, Any]:
    """The notebook as nbformat 4.5 has it."""
    options = fit.get("options") or {}
    caveats = [*notes, *_caveats(fit, options)]
    provenance = fit.get("provenance") or {}
    title = TITLE.format(
        law=fit["law"],
        project=project,
        fit_id=fit["id"],
        runs=counted(written.n_runs, "run"),
        points=counted(written.n_points, "point") if kind != "table" else "no points: what came of each",
        verdict=fit.get("verdict"),
        version=provenance.get("code_version"),
        data=data,
        caveats="".join(f"\n- {_escaped(one)}" for one in caveats) or "\n- nothing that is known of",
    )
    tolerance = AS_GOOD if fit.get("revision", 1) > 1 else EXACT
    again = AGAIN.replace("LAW", repr(fit["law"])).replace("OPTIONS", pformat(options, width=100))
    cells = [
        _text("title", title),
        _code("read", READ.replace("DATA", repr(data))),
        _code("fit", again),
        _code("check", CHECK.replace("TOLERANCE", repr(tolerance))),
        _code("draw", DRAW),
        *([_code("predict", PREDICT)] if kind == "curves" else []),
    ]
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _caveats(fit: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """What may keep the numbers from being the same to the last bit, or at all."""
    found = []
    if fit.get("revision", 1) > 1:
        found.append(
            "the fit follows its runs, and its search began at the optimum of the one before: here it begins anew, "
            f"so that numbers agree within {AS_GOOD:g} of themselves, not to the last digits"
        )
    if options.get("backend", "numpy") != "numpy":
        found.append(
            f"it was computed by {options['backend']}, which must be there and adds in another order"
        )
    if fit.get("verdict") == "unidentified":
        found.append("its data do not determine the law: what is not determined is null there and None here")
    return found


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("*", r"\*")


def _text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _lines(source)}


def _code(name: str, source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": _lines(source),
    }


def _lines(source: str) -> list[str]:
    return source.strip().splitlines(keepends=True)
