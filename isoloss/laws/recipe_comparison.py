"""Two or more recipes, each by its own loss over compute."""

from __future__ import annotations

from typing import ClassVar

from isoloss.laws.power_law_compute import PowerLawCompute
from isoloss.laws.staged_law import StagedLaw


class RecipeComparison(PowerLawCompute, StagedLaw):
    """L_r(C) = E_r + coefficient_r C^exponent_r for every recipe r, and where they lead and cross.

    C in floating-point operations, or the training tokens where runs state no compute; losses in nats per token.
    A recipe of fewer than four different C is compared by the mean of its runs alone, where others have that C.
    Each recipe is fitted apart, as by `power_law_compute`. Source of the comparison at equal loss: laws.md 7.
    """

    name = "recipe_comparison"
    title = "Recipes compared over compute"
    formula = "L_r(C) = E_r + coefficient_r * C^exponent_r for each recipe r"
    label = "recipe"
    compares = True
    remedy = "train two recipes at least, each at four different computes over a wide range, or both at one compute"
    remedies: ClassVar = {}
    requires = ("recipe and config.compute_flops or n_tokens", "summary.final_loss")
