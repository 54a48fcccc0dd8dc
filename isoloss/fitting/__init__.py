"""Fitting laws to observations, with uncertainty and a verdict."""

from isoloss.fitting.options import FitOptions
from isoloss.fitting.procedure import AUTO, check_options, compare, fit
from isoloss.fitting.result import Fit, Prediction
from isoloss.fitting.selection import Comparison, check_of_any_law

__all__ = [
    "AUTO",
    "Comparison",
    "Fit",
    "FitOptions",
    "Prediction",
    "check_of_any_law",
    "check_options",
    "compare",
    "fit",
]
