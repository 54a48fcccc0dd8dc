"""Published laws and our own, one file each; `LAWS` holds them by name."""

from typing import Any

from isoloss.laws.broken_power_law import BrokenPowerLaw
from isoloss.laws.chinchilla import Chinchilla
from isoloss.laws.concave_memory import ConcaveMemory
from isoloss.laws.critical_batch import CriticalBatch
from isoloss.laws.effective_lr import EffectiveLR
from isoloss.laws.kaplan import Kaplan
from isoloss.laws.law import CurveLaw, Features, Law, Parameter, Priors, TableLaw
from isoloss.laws.lr_annealing import LRAnnealing
from isoloss.laws.lr_of_batch import LROfBatch
from isoloss.laws.multi_power import MultiPower
from isoloss.laws.noise_scale import NoiseScale
from isoloss.laws.optimal_batch import OptimalBatch
from isoloss.laws.optimal_lr import OptimalLR
from isoloss.laws.power_law import PowerLaw
from isoloss.laws.power_law_compute import PowerLawCompute
from isoloss.laws.recipe_comparison import RecipeComparison
from isoloss.laws.rl_compute import RLCompute
from isoloss.laws.staged_law import StagedLaw
from isoloss.laws.steps_to_target import StepsToTarget
from isoloss.laws.sweep_law import SweepLaw
from isoloss.laws.three_term import ThreeTerm
from isoloss.laws.timescale import Timescale

LAWS: dict[str, Law[Any]] = {
    law.name: law
    for law in (
        LRAnnealing(),
        MultiPower(),
        ConcaveMemory(),
        EffectiveLR(),
        PowerLaw(),
        Chinchilla(),
        Kaplan(),
        PowerLawCompute(),
        BrokenPowerLaw(),
        ThreeTerm(),
        Timescale(),
        OptimalBatch(),
        CriticalBatch(),
        StepsToTarget(),
        OptimalLR(),
        LROfBatch(),
        NoiseScale(),
        RLCompute(),
        RecipeComparison(),
    )
}

__all__ = ["LAWS", "CurveLaw", "Features", "Law", "Parameter", "Priors", "StagedLaw", "SweepLaw", "TableLaw"]
