"""Training curves, and tables of finished runs, from the files that other tools write."""

from isoloss.importers.csv_files import CurveTable, read_columns, read_table
from isoloss.importers.curves import ImportReport, import_curves
from isoloss.importers.library_curves import read_curves
from isoloss.importers.library_points import read_points
from isoloss.importers.plans import read_runs_file
from isoloss.importers.run_imports import TableReport, import_table
from isoloss.importers.run_tables import read_runs

__all__ = [
    "CurveTable",
    "ImportReport",
    "TableReport",
    "import_curves",
    "import_table",
    "read_columns",
    "read_curves",
    "read_points",
    "read_runs",
    "read_runs_file",
    "read_table",
]
