"""Training curves from the files that other tools write."""

from isoloss.importers.csv_files import CurveTable, read_columns, read_table
from isoloss.importers.curves import ImportReport, import_curves
from isoloss.importers.library_curves import read_curves
from isoloss.importers.plans import read_runs_file

__all__ = [
    "CurveTable",
    "ImportReport",
    "import_curves",
    "read_columns",
    "read_curves",
    "read_runs_file",
    "read_table",
]
