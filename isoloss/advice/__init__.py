"""What fits say about a run that has not been trained: its settings, and how data, batch and time trade."""

from isoloss.advice.constraints import Constraints
from isoloss.advice.iso_flop import IsoFlopProfile, iso_flop_profile
from isoloss.advice.pareto import ParetoFront, pareto
from isoloss.advice.recommendation import Recommendation, recommend

__all__ = [
    "Constraints",
    "IsoFlopProfile",
    "ParetoFront",
    "Recommendation",
    "iso_flop_profile",
    "pareto",
    "recommend",
]
