"""Priors: intervals hold truths drawn from them, and it is said what rests on them and what contradicts them."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from isoloss.fitting import Fit, fit
from isoloss.fitting.objective import from_solver, to_solver
from isoloss.laws import LAWS
from isoloss.observations import Curve
from tests.contract.test_laws import blank_curves, theta_of

STUDIES = 30
HELD_AT_LEAST = 22
"""Of thirty intervals of 90 percent fewer hold the truth once in 300 times."""

LAW = "concave_memory"
CENTRES = LAWS[LAW].priors(LAWS[LAW].prepare(blank_curves(LAW))).centres


def drawn(seed: int) -> np.ndarray:
    """A truth (1, parameters) whose parameters with priors are drawn from these."""
    law, theta, random = LAWS[LAW], theta_of(LAW), np.random.default_rng([seed, 3])
    for name, (centre, sd) in CENTRES.items():
        one = law.parameters[law.index(name)]
        at = to_solver(one, np.array(centre)) + sd * random.standard_normal()
        theta[0, law.index(name)] = np.clip(from_solver(one, at), one.lower * 1.01, one.upper * 0.99)
    return theta


def curves(theta: np.ndarray, seed: int = 0) -> list[Curve]:
    """Thirty points of each of four schedules, with independent noise of two in a thousand."""
    law, random = LAWS[LAW], np.random.default_rng([seed, 5])
    few = [
        dataclasses.replace(run, step=run.step[::3], loss_nats=run.loss_nats[::3])
        for run in blank_curves(LAW)
    ]
    return [
        dataclasses.replace(run, loss_nats=law.predict(theta, law.prepare([run]))[0] * np.exp(2e-3 * noise))
        for run in few
        for noise in [random.standard_normal(run.step.size)]
    ]


@cache
def studies() -> list[Fit]:
    return [fit(LAW, curves(drawn(seed), seed), bootstrap=60, seed=seed) for seed in range(STUDIES)]


@pytest.mark.parametrize("name", sorted(CENTRES))
def test_an_interval_holds_truths_drawn_from_the_prior_as_often_as_it_claims(name: str) -> None:
    """Resamples keep no centre that nobody knows, and a profile is not narrower than the prior."""
    index, resampled, profiled = LAWS[LAW].index(name), 0, 0
    for seed, found in enumerate(studies()):
        truth, one = drawn(seed)[0, index], found.parameters[name]
        assert one.interval is not None
        assert one.profile is not None
        low, high = one.profile
        resampled += one.interval[0] <= truth <= one.interval[1]
        profiled += (low is None or low <= truth) and (high is None or truth <= high)
    assert resampled >= HELD_AT_LEAST
    assert profiled >= HELD_AT_LEAST


def test_what_rests_on_priors_is_said() -> None:
    """Parameters that the priors know better than the data are named, with their share."""
    found = studies()[0]
    shares = found.diagnostics["prior_shares"]
    assert set(shares) <= set(found.parameters)
    said = next(reason for reason in found.reasons if "priors say more than the data" in reason)
    for name in CENTRES:
        assert (name in said.split(": ")[1].split(", ")) == (shares[name] > 0.5)


def test_without_priors_nothing_rests_on_them() -> None:
    """A law without priors, and one whose priors are dropped."""
    alone = fit("lr_annealing", curves(theta_of(LAW)), bootstrap=5, profile=False)
    dropped = fit(LAW, curves(theta_of(LAW)), bootstrap=5, profile=False, prior_strength=0.0)
    for found in (alone, dropped):
        assert found.diagnostics["prior_shares"] == {}
        assert not any("prior" in reason for reason in found.reasons)


def test_data_that_contradict_a_prior_are_told() -> None:
    """A prior far from what the data show is named; the law's own, which are met, are not."""
    data = curves(theta_of(LAW))
    told = fit(LAW, data, bootstrap=5, profile=False, priors={"a": (0.9, 0.02)}, prior_strength=1e-3)
    assert told.verdict == "weak"
    assert any(reason.startswith("a lies") and "prior" in reason for reason in told.reasons)
    assert not any(" lies " in reason and "prior" in reason for reason in fit(LAW, data, bootstrap=5).reasons)


def test_resamples_draw_the_centres_of_priors() -> None:
    """Where the data say nothing of a parameter, its resamples spread as its prior does."""
    found = fit(LAW, curves(theta_of(LAW)), bootstrap=300, profile=False, prior_strength=1.0)
    law = LAWS[LAW]
    for name, (_, sd) in CENTRES.items():
        index = law.index(name)
        spread = float(np.std(to_solver(law.parameters[index], found.samples[:, index])))
        assert spread == pytest.approx(sd, rel=0.25), name
