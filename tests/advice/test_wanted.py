"""The cheapest runs that would determine what the runs do not: trained, they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.observations import RunTable
from tests.advice.test_advice import SITES, TARGET, study
from tests.fitting.synthetic_sweeps import best_lr, best_timescale, decays, loss_of, lr_alone, together

LINE = ((1e8, 2e9), (2e8, 4e9), (4e8, 8e9))
"""Twenty tokens per parameter at every size."""


def asked_for(runs: RunTable, law: str) -> list[dict[str, float]]:
    said = isoloss.recommend(runs, **TARGET, bootstrap=20).as_dict()
    (one,) = [one for one in said["wanted"] if one["law"] == law]
    assert one["compute_flops"] < 0.03 * said["cost"]["compute_flops"]
    return list(one["runs"])


def trained(runs: list[dict[str, float]], law: str) -> RunTable:
    """The wanted runs with losses about the best learning rate, or the best timescale, of the simulated truth."""
    names = sorted({name for run in runs for name in run})
    columns = {name: np.array([run.get(name, np.nan) for run in runs]) for name in names}
    size, data = columns["n_params"], columns["n_tokens"]
    if law == "optimal_lr":
        away = np.log(columns["peak_lr"] / best_lr(size, data))
    else:
        tau = columns["batch_tokens"] / (columns["peak_lr"] * columns["weight_decay"] * data)
        away = np.log(tau / best_timescale(size, data))
    losses = loss_of(size, data, 0.012 * away**2)
    return RunTable(
        tuple(f"new-{row}" for row in range(len(runs))), columns, losses, n_params_kind="non_embedding"
    )


@pytest.mark.parametrize(
    ("law", "runs"),
    [
        ("optimal_lr", lr_alone(0, sites=LINE[:1])),
        ("optimal_lr", lr_alone(0, sites=LINE)),
        ("timescale", decays(0, sites=LINE)),
        ("timescale", decays(0, sites=LINE[:1])),
    ],
    ids=["one size", "one line", "one ratio", "one site"],
)
def test_wanted_sweeps_determine_the_law_once_they_are_trained(law: str, runs: RunTable) -> None:
    """One size, one line and one number of tokens per parameter: none of what is wanted was trained already."""
    wanted = asked_for(runs, law)
    assert wanted
    new = trained(wanted, law)
    keys = [f"{run['n_params']:.4g} {run['n_tokens']:.4g} {run['peak_lr']:.4g}" for run in wanted]
    assert law != "optimal_lr" or len(set(keys)) == len(keys)
    found = isoloss.fit(law, together(runs, new), bootstrap=20)
    assert found.verdict != "unidentified", found.reasons
    assert all(one.value is not None for one in found.parameters.values())


def test_a_critical_batch_wants_batches_from_the_best_one_upwards() -> None:
    """At the smallest size, on several data, up to 64 times the best batch; what was trained is not listed."""
    wanted = asked_for(study(), "critical_batch")
    batches = sorted({one["batch_tokens"] for one in wanted})
    assert len(batches) == 7
    assert batches[-1] == pytest.approx(64 * batches[0])
    assert len({one["n_tokens"] for one in wanted}) == 4
    assert {one["n_params"] for one in wanted} == {SITES[0][0]}


def test_what_the_runs_determine_is_not_wanted() -> None:
    """A largest batch that leaves out the loss does not make its law want runs."""
    said: dict[str, Any] = isoloss.recommend(
        study(), **TARGET, bootstrap=20, constraints={"max_batch_tokens": 1e3}
    ).as_dict()
    assert said["predicted_loss"]["value"] is None
    assert {one["law"] for one in said["wanted"]} == {"critical_batch"}
