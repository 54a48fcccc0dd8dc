"""Fitting a law in stages: screen, run the chain with all runs and without each, and judge what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.estimate import Progress
from isoloss.fitting.one_law import Observations, options_for
from isoloss.fitting.options import FitOptions
from isoloss.fitting.provenance import provenance
from isoloss.fitting.result import Fit
from isoloss.fitting.staged.chains import Chain
from isoloss.fitting.staged.critical_batch import critical_batch
from isoloss.fitting.staged.recipe_comparison import fit_recipes
from isoloss.fitting.staged.rl_compute import fit_rl_compute
from isoloss.fitting.staged.staged_report import Staged, described
from isoloss.fitting.staged.steps_to_target import steps_to_target
from isoloss.fitting.staged.validation import moved, validated
from isoloss.fitting.table_screening import screen_table
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable

CHAINS: Mapping[str, Chain] = {"steps_to_target": steps_to_target, "critical_batch": critical_batch}

APART: Mapping[str, Callable[[Any, RunTable, FitOptions, Sequence[dict[str, str]]], Fit]] = {
    "rl_compute": fit_rl_compute,
    "recipe_comparison": fit_recipes,
}
"""Laws of which every part of the table has parameters of its own: each is fitted in its own way."""

UNUSED_OPTIONS = ("fix", "bounds", "expr", "priors", "prior_strength", "skip_steps")


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def fit_staged(
    law: StagedLaw,
    observations: Observations,
    asked: FitOptions,
    *,
    given: Mapping[str, Any],
    progress: Progress,
    left_out: Sequence[dict[str, str]] = (),
    previous: Fit | None = None,
) -> Fit:
    """Fit a law whose parameters come out of several fits to a table of runs; raises as `one_law.fit_law` does."""
    law, asked = law.under(asked.convention), options_for(asked, observations, given)
    _check(law, observations, asked)
    assert isinstance(observations, RunTable)
    if law.name in APART:
        if asked.holdout is not None:
            raise InvalidInput(
                field="holdout", reason=f"{law.name} chooses what it predicts from the rest itself"
            )
        progress(0.1, "fitting each part")
        found = APART[law.name](law, observations, asked, left_out)
        return _previous(found, previous) or found
    table, dropped = screen_table(observations, law, left_out)
    now = provenance(TableDataset(table, law.run_columns), asked)
    if previous is not None and previous.law_name == law.name and previous.provenance == now:
        return replace(
            previous, left_out=[*dropped, *(one for one in previous.left_out if one not in dropped)]
        )
    progress(0.1, "fitting in stages")
    chain = CHAINS[law.name]
    by_chain = moved(chain, table, law)
    stages = validated(law, table, by_chain.points, chain)
    return described(Staged(law, table, asked, by_chain, stages), now, dropped)


def _previous(found: Fit, previous: Fit | None) -> Fit | None:
    """Return the earlier fit where the rows and the options are the same, with what is left out now."""
    if previous is None or (previous.law_name, previous.provenance) != (found.law_name, found.provenance):
        return None
    return previous if previous.left_out == found.left_out else replace(previous, left_out=found.left_out)


def _check(law: StagedLaw, observations: Observations, asked: FitOptions) -> None:
    if not isinstance(observations, RunTable):
        reason = f"{law.name} is fitted to a table of finished runs (isoloss.read_runs), not to curves"
        raise InvalidInput(field="law", reason=reason)
    for option in UNUSED_OPTIONS:
        if getattr(asked, option) not in ({}, None):
            raise InvalidInput(field=option, reason=f"{law.name} is fitted in stages, and has no use for it")
    if asked.backend != "numpy":
        raise InvalidInput(field="backend", reason=f"{law.name} is fitted with numpy alone")
    if asked.resample not in (None, "runs"):
        raise InvalidInput(field="resample", reason=f"{law.name} leaves out runs one by one")
