"""Fitting a law in stages: screen, run the chain with all runs and without each, and judge what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isoloss.errors import InvalidInput
from isoloss.fitting.datasets import TableDataset
from isoloss.fitting.estimate import Progress
from isoloss.fitting.one_law import Observations, options_for
from isoloss.fitting.options import FitOptions
from isoloss.fitting.provenance import came_from, provenance
from isoloss.fitting.result import Fit
from isoloss.fitting.screening import LeftOut
from isoloss.fitting.staged.chains import Study
from isoloss.fitting.staged.critical_batch import critical_batch
from isoloss.fitting.staged.held_readings import check_may_hold_out, parted
from isoloss.fitting.staged.lr_of_batch import lr_of_batch, sweeps_in
from isoloss.fitting.staged.noise_scale import noise_scale, readings_of
from isoloss.fitting.staged.recipe_comparison import fit_recipes
from isoloss.fitting.staged.rl_compute import fit_rl_compute
from isoloss.fitting.staged.staged_report import Staged, described
from isoloss.fitting.staged.steps_to_target import steps_to_target
from isoloss.fitting.staged.validation import by_moves, validated
from isoloss.fitting.table_screening import refuse_doubles, screen_table
from isoloss.laws.noise_scale import NoiseScale
from isoloss.laws.staged_law import StagedLaw
from isoloss.observations import RunTable
from isoloss.observations.tables import LOGGED_BY
from isoloss.readings import by_runs

STUDIES: Mapping[str, Study] = {
    "steps_to_target": by_moves(steps_to_target),
    "critical_batch": by_moves(critical_batch),
    "lr_of_batch": lr_of_batch,
    "noise_scale": noise_scale,
}

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
    """Fit a law whose parameters come out of several fits to a table of runs; raises as `one_law.fit_law` does.

    Readings of logged points that are left out are told together, run by run.
    """
    law, asked = law.under(asked.convention), options_for(asked, observations, given)
    _check(law, observations, asked)
    assert isinstance(observations, RunTable)
    found = _fitted(law, observations, asked, progress, left_out, previous)
    told = by_runs(found.left_out, observations)
    return found if told == found.left_out else replace(found, left_out=told)


def _fitted(
    law: StagedLaw,
    observations: RunTable,
    asked: FitOptions,
    progress: Progress,
    left_out: Sequence[dict[str, str]],
    previous: Fit | None,
) -> Fit:
    if law.name in APART:
        progress(0.1, "fitting each part")
        apart = APART[law.name](law, observations, asked, left_out)
        return _previous(apart, previous) or apart
    data, table, dropped = _screened(law, observations, asked, left_out)
    data, table, held = parted(data, table, asked.holdout, dropped)
    now = provenance(data, asked, held.sha256())
    if previous is not None and previous.law_name == law.name and came_from(previous.provenance, now):
        return replace(previous, left_out=[*dropped, *_of_stages(previous, table, held.table)])
    progress(0.1, "fitting in stages")
    study = STUDIES[law.name]
    found = study(law, table, asked)
    law = law.under(found.convention)
    chosen = now if found.convention is None else now | {"convention": found.convention}
    stages = validated(law, table, asked, found, study)
    return held.scored(described(Staged(law, table, asked, found, stages), chosen, dropped))


def _screened(
    law: StagedLaw, observations: RunTable, asked: FitOptions, left_out: Sequence[dict[str, str]]
) -> tuple[TableDataset, RunTable, LeftOut]:
    """Return what the answer hangs on, the runs that are fitted, and the others with why."""
    if law.sweeps is not None:
        return sweeps_in(observations, law, left_out, asked.gate)
    table, dropped = screen_table(observations, law, left_out, asked.gate)
    if isinstance(law, NoiseScale):
        table, dropped = readings_of(table, dropped)
        return TableDataset(table, tuple(table.columns)), table, dropped
    return TableDataset(table, law.run_columns), table, dropped


def _of_stages(previous: Fit, *tables: RunTable) -> Iterator[dict[str, str]]:
    """Yield what an earlier fit of the same runs left out of those that had passed the screen."""
    passed = {name for table in tables for name in (*table.run_ids, *table.label(LOGGED_BY))}
    return (one for one in previous.left_out if one["run_id"] in passed)


def _previous(found: Fit, previous: Fit | None) -> Fit | None:
    """Return the earlier fit where the rows and the options are the same, with what is left out now."""
    if previous is None or (previous.law_name, previous.provenance) != (found.law_name, found.provenance):
        return None
    return previous if previous.left_out == found.left_out else replace(previous, left_out=found.left_out)


def _check(law: StagedLaw, observations: Observations, asked: FitOptions) -> None:
    if not isinstance(observations, RunTable):
        reason = f"{law.name} is fitted to a table of finished runs (isoloss.read_runs), not to curves"
        raise InvalidInput(field="law", reason=reason)
    refuse_doubles(observations)
    check_options(law, asked)


def check_options(law: StagedLaw, asked: FitOptions) -> None:
    """Raise InvalidInput for options that a law in stages has no use for."""
    if asked.holdout is not None:
        check_may_hold_out(law)
    for option in UNUSED_OPTIONS:
        if getattr(asked, option) not in ({}, None):
            raise InvalidInput(field=option, reason=f"{law.name} is fitted in stages, and has no use for it")
    if asked.backend != "numpy":
        raise InvalidInput(field="backend", reason=f"{law.name} is fitted with numpy alone")
    if asked.resample not in (None, "runs"):
        raise InvalidInput(field="resample", reason=f"{law.name} leaves out runs one by one")
