"""Runs, points and fits of a service as files: complete, exact, and readable by the library alone."""

from isoloss.exporters.chosen import Selection
from isoloss.exporters.fits import FitReport, export_fit
from isoloss.exporters.notebooks import NotebookReport, export_notebook
from isoloss.exporters.runs import ExportReport, export_points, export_runs

__all__ = [
    "ExportReport",
    "FitReport",
    "NotebookReport",
    "Selection",
    "export_fit",
    "export_notebook",
    "export_points",
    "export_runs",
]
