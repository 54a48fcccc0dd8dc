"""A fit as a file: its whole document as JSON, or its parameters as a table."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.errors import InvalidInput, NotReady
from isoloss.exporters.chosen import Service
from isoloss.exporters.point_files import NAMES, check_format
from isoloss.exporters.runs import write_json
from isoloss.exporters.targets import new_file
from isoloss.importers.paths import checked_path

FORMATS = ("json", "csv", "parquet")
TEXTS = ("part", "group", "name", "symbol", "unit")
NUMBERS = ("value", "std_error", "interval_low", "interval_high", "profile_low", "profile_high")
COLUMNS = (*TEXTS, *NUMBERS, "at_bound")
PENDING = {"queued": "it is still queued", "running": "it is still running"}


@dataclass(frozen=True)
class FitReport:
    """What was written of a fit; `rows` of parameters and derived quantities, None for the whole document."""

    path: str
    fit_id: str
    law: str
    verdict: str | None
    rows: int | None = None


def finished_fit(service: Service, project: str, fit_id: str) -> Mapping[str, Any]:
    """A fit that has a result. Raises NotFound; NotReady for one that has none, with the reason."""
    fit: Mapping[str, Any] = service.fits.get(project, fit_id)
    if fit["status"] == "succeeded":
        return fit
    reason = PENDING.get(fit["status"], f"it {fit['status'].replace('cancelled', 'was cancelled')}")
    if fit.get("error"):
        reason = f"{reason}: {fit['error']}"
    raise NotReady(kind="fit", name=fit_id, reason=reason)


def export_fit(
    service: Service, project: str, fit_id: str, path: str | Path, *, force: bool = False
) -> FitReport:
    """Write a fit to a file: to .json all of it, to .csv or .parquet its parameters and what follows, a row each.

    What the data do not determine is null. Raises NotFound, NotReady for a fit without a result, and InvalidInput
    where the file cannot be written.
    """
    path = checked_path(path, "path").expanduser()
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        ends = ", ".join(f".{name}" for name in FORMATS)
        raise InvalidInput(field=str(path), reason=f"its name must say what it is, by one of {ends}")
    check_format(format)
    fit = finished_fit(service, project, fit_id)
    rows = list(_rows(fit))
    with new_file(path, force=force) as part:
        if format == "json":
            write_json(part, fit)
        elif format == "csv":
            _write_csv(part, rows)
        else:
            _write_parquet(part, rows)
    return FitReport(
        str(path), fit["id"], fit["law"], fit.get("verdict"), None if format == "json" else len(rows)
    )


def _rows(fit: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters, those of each group, and what follows from them."""
    yield from (_row("parameter", "", one) for one in fit.get("parameters") or ())
    for group in fit.get("groups") or ():
        by = ", ".join(f"{name}={value}" for name, value in (group.get("by") or {}).items())
        yield from (_row("group", by, one) for one in group.get("parameters") or ())
    yield from (_row("derived", "", one) for one in fit.get("derived") or ())


def _row(part: str, group: str, said: Mapping[str, Any]) -> dict[str, Any]:
    low, high = said.get("interval") or (None, None)
    least, most = said.get("profile") or (None, None)
    return {
        "part": part,
        "group": group or None,
        **{name: said.get(name) for name in ("name", "symbol", "unit", "value", "std_error", "at_bound")},
        "interval_low": low,
        "interval_high": high,
        "profile_low": least,
        "profile_high": most,
    }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(float(value)) if isinstance(value, int | float) else str(value)
    return NAMES.get(text, text)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    kinds = {**dict.fromkeys(TEXTS, arrow.string()), **dict.fromkeys(NUMBERS, arrow.float64())}
    schema = arrow.schema([arrow.field(name, kinds.get(name, arrow.bool_())) for name in COLUMNS])
    floats = [{**row, **{name: _float(row[name]) for name in NUMBERS}} for row in rows]
    parquet.write_table(arrow.Table.from_pylist(floats, schema=schema), path)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
