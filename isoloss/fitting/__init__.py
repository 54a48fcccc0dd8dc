"""Fitting laws to observations, with uncertainty and a verdict."""

from isoloss.fitting.options import FitOptions
from isoloss.fitting.procedure import AUTO, compare, fit
from isoloss.fitting.result import Fit, Prediction
from isoloss.fitting.selection import Comparison

__all__ = ["AUTO", "Comparison", "Fit", "FitOptions", "Prediction", "compare", "fit"]
