"""What fits say about a run that has not been trained: its settings, and how data, batch and time trade."""

from isoloss.advice.best_peak import BestPeak, best_peak
from isoloss.advice.constraints import Constraints
from isoloss.advice.forecasts import Forecast, Forecaster, companions
from isoloss.advice.iso_flop import IsoFlopProfile, iso_flop_profile
from isoloss.advice.pareto import ParetoFront, pareto
from isoloss.advice.published import PUBLISHED, Published
from isoloss.advice.recommendation import Recommendation, recommend

__all__ = [
    "PUBLISHED",
    "BestPeak",
    "Constraints",
    "Forecast",
    "Forecaster",
    "IsoFlopProfile",
    "ParetoFront",
    "Published",
    "Recommendation",
    "best_peak",
    "companions",
    "iso_flop_profile",
    "pareto",
    "recommend",
]
