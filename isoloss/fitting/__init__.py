"""Fitting laws to observations: `fit` is the way in, `Fit` what comes out."""

from isoloss.fitting.options import FitOptions
from isoloss.fitting.procedure import fit
from isoloss.fitting.result import Derived, Fit, ParameterEstimate, Prediction

__all__ = ["Derived", "Fit", "FitOptions", "ParameterEstimate", "Prediction", "fit"]
