"""Training curves, and tables of finished runs, from the files that other tools write."""

from isoloss.importers.csv_files import CurveTable, read_columns, read_table
from isoloss.importers.csv_runs import read_csv_runs
from isoloss.importers.curves import ImportReport, import_curves
from isoloss.importers.exported_files import read_export
from isoloss.importers.exported_fits import FitData, read_fit_data
from isoloss.importers.exported_runs import ExportedRun
from isoloss.importers.journals import Journal, find_import, past_imports
from isoloss.importers.json_lines import read_json_lines
from isoloss.importers.library_curves import read_curves
from isoloss.importers.library_points import read_points
from isoloss.importers.logged_fields import FieldNames, chosen_names, read_map
from isoloss.importers.logged_imports import LoggedReport, import_logged
from isoloss.importers.logged_plans import Wishes
from isoloss.importers.logged_runs import LoggedRun, Series, Unreadable
from isoloss.importers.mlflow_runs import read_mlflow
from isoloss.importers.parquet_files import read_parquet
from isoloss.importers.plans import read_runs_file
from isoloss.importers.run_imports import TableReport, import_table
from isoloss.importers.run_tables import read_runs
from isoloss.importers.tensorboard_logs import read_tensorboard
from isoloss.importers.trackio_runs import read_trackio
from isoloss.importers.undoing import UndoReport, undo
from isoloss.importers.wandb_exports import read_wandb

__all__ = [
    "CurveTable",
    "ExportedRun",
    "FieldNames",
    "FitData",
    "ImportReport",
    "Journal",
    "LoggedReport",
    "LoggedRun",
    "Series",
    "TableReport",
    "UndoReport",
    "Unreadable",
    "Wishes",
    "chosen_names",
    "find_import",
    "import_curves",
    "import_logged",
    "import_table",
    "past_imports",
    "read_columns",
    "read_csv_runs",
    "read_curves",
    "read_export",
    "read_fit_data",
    "read_json_lines",
    "read_map",
    "read_mlflow",
    "read_parquet",
    "read_points",
    "read_runs",
    "read_runs_file",
    "read_table",
    "read_tensorboard",
    "read_trackio",
    "read_wandb",
    "undo",
]
