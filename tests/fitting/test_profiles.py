"""Profile-likelihood intervals: how often they hold the truth, and what an open side says."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from isoloss.fitting import Fit, fit
from isoloss.fitting.curvature import mean_curvature
from isoloss.laws import LAWS
from isoloss.observations import RunTable
from tests.fitting.synthetic import three_runs
from tests.fitting.synthetic_tables import TRUTHS, exact_losses, table

STUDIES = 40
LAW = "power_law"
PARAMETERS = [parameter.name for parameter in LAWS[LAW].parameters]
every_parameter = pytest.mark.parametrize("parameter", PARAMETERS)
HELD_AT_LEAST, HELD_AT_MOST = {0.5: 12, 0.9: 31}, {0.5: 28, 0.9: 40}
"""Of forty intervals that hold the truth as often as they claim, fewer come about once in 200, as do more."""


@cache
def studies(level: float, law: str = LAW, noise: float = 2e-3) -> list[Fit]:
    """Fits of small tables that differ by their noise alone."""
    data = (table(law, noise=noise, seed=seed) for seed in range(STUDIES))
    return [fit(law, one, bootstrap=1, level=level) for one in data]


def profile_of(found: Fit, parameter: str) -> tuple[float | None, float | None]:
    """The ends of a profile, None where it is open."""
    profile = found.parameters[parameter].profile
    assert profile is not None
    return profile


def ends(found: Fit, parameter: str) -> tuple[float, float]:
    """The ends of a profile, infinite where it is open."""
    low, high = profile_of(found, parameter)
    return (-np.inf if low is None else low), (np.inf if high is None else high)


@every_parameter
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_a_profile_interval_holds_the_truth_about_as_often_as_it_claims(level: float, parameter: str) -> None:
    """Neither too narrow nor too wide, at two levels."""
    each = [ends(found, parameter) for found in studies(level)]
    inside = sum(low <= TRUTHS[LAW][parameter] <= high for low, high in each)
    assert HELD_AT_LEAST[level] <= inside <= HELD_AT_MOST[level]


@pytest.mark.parametrize("law", ["power_law", "chinchilla"])
@pytest.mark.parametrize("noise", [2e-2, 5e-2])
def test_a_profile_holds_the_truth_also_where_noise_is_far_above_the_huber_threshold(
    law: str, noise: float
) -> None:
    """Of forty 90 percent intervals of every parameter no fewer hold it than with little noise."""
    for parameter, truth in TRUTHS[law].items():
        each = [ends(found, parameter) for found in studies(0.9, law, noise)]
        assert sum(low <= truth <= high for low, high in each) >= HELD_AT_LEAST[0.9]


def classical_errors(found: Fit) -> np.ndarray:
    """Standard errors (parameters,) of least squares on log loss, for a power law with a floor."""
    data = table(LAW, noise=1e-4)
    tokens = data.columns["n_tokens"]
    floor, coefficient, exponent = found.theta
    fall = coefficient * tokens**exponent
    predicted = floor + fall
    jacobian = np.stack([np.ones(36), fall / coefficient, fall * np.log(tokens)], axis=1) / predicted[:, None]
    squares = np.sum(np.log(predicted / data.outcome) ** 2)
    scale = np.linalg.norm(jacobian, axis=0)
    inverse = np.linalg.inv((jacobian / scale).T @ (jacobian / scale))
    return np.asarray(np.sqrt(np.diag(inverse) * squares / 33) / scale)


@pytest.mark.parametrize("huber_delta", [1e-3, 1.0])
def test_a_nearly_linear_law_has_the_interval_of_linear_theory(huber_delta: float) -> None:
    """With hardly any noise both ends are Student's t of the runs left times the standard error away."""
    found = fit(LAW, table(LAW, noise=1e-4), bootstrap=1, huber_delta=huber_delta)
    away = stats.t.ppf(0.95, 33) * classical_errors(found)
    both = np.array([ends(found, parameter) for parameter in PARAMETERS])
    np.testing.assert_allclose((both[:, 1] - found.theta) / away, 1, rtol=0.01)
    np.testing.assert_allclose((found.theta - both[:, 0]) / away, 1, rtol=0.01)


@every_parameter
def test_at_an_end_the_objective_has_risen_by_what_noise_allows(parameter: str) -> None:
    """A parameter held there, and the others fitted anew, cost the F quantile's share of the squares."""
    squares: dict[str, Any] = {"huber_delta": 1.0, "bootstrap": 1}
    data = table(LAW)
    found = fit(LAW, data, **squares)
    allowed = stats.f.ppf(0.9, 1, 33) * found.objective / 33
    for end in ends(found, parameter):
        there = fit(LAW, data, **squares, fix={parameter: end})
        assert there.objective - found.objective == pytest.approx(allowed, rel=0.05)


def test_a_profile_interval_holds_the_estimate_and_keeps_to_the_bounds() -> None:
    """The optimum lies inside; no end is a value that the parameter cannot have."""
    for found in studies(0.9):
        for parameter in LAWS[LAW].parameters:
            one = found.parameters[parameter.name]
            assert one.value is not None
            assert one.profile is not None
            low, high = one.profile
            assert low is None or parameter.lower <= low < one.value
            assert high is None or one.value < high <= parameter.upper


def test_a_higher_level_has_a_wider_profile() -> None:
    """99 percent reach farther than 50 on both sides."""
    wide, narrow = (
        fit("power_law", table("power_law"), bootstrap=1, level=level).parameters["exponent"].profile
        for level in (0.99, 0.5)
    )
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]  # type: ignore[operator]


def narrow_table() -> RunTable:
    """Runs between one and two billion tokens: the loss falls, and towards which floor does not show."""
    tokens, size = np.geomspace(1e9, 2e9, 30), np.full(30, 1e8)
    noise = 2e-3 * np.random.default_rng(2).standard_normal(30)
    names = tuple(f"run-{row:02}" for row in range(30))
    columns = {"n_params": size, "n_tokens": tokens}
    return RunTable(names, columns, exact_losses(LAW, size, tokens) * (1 + noise), n_params_kind="total")


def test_a_side_that_never_closes_is_open_and_said() -> None:
    """A floor that could be nothing has no lower limit, which the reasons say; all other sides have one."""
    found = fit(LAW, narrow_table(), bootstrap=20)
    assert [ends(found, parameter) for parameter in PARAMETERS if None in profile_of(found, parameter)] == [
        (-np.inf, pytest.approx(2.0, abs=0.1))
    ]
    assert [reason for reason in found.reasons if "limit" in reason] == [
        "E has no lower limit: its profile never rises enough below"
    ]
    assert found.verdict == "weak"


@every_parameter
def test_a_bent_profile_ends_where_the_objective_has_risen_enough(parameter: str) -> None:
    """A valley that bends, beside a floor at its bound: held at an end, a parameter costs the F quantile."""
    squares: dict[str, Any] = {"huber_delta": 1.0, "bootstrap": 1}
    found = fit(LAW, narrow_table(), **squares)
    allowed = stats.f.ppf(0.9, 1, 27) * found.objective / 27
    for end in profile_of(found, parameter):
        if end is not None:
            there = fit(LAW, narrow_table(), **squares, fix={parameter: end})
            assert there.objective - found.objective == pytest.approx(allowed, rel=0.05)


def test_a_profile_that_closes_is_not_called_open() -> None:
    """Two decades of tokens bound every parameter on both sides, and no reason says otherwise."""
    found = fit(LAW, table(LAW), bootstrap=20)
    assert np.all(np.isfinite([ends(found, parameter) for parameter in PARAMETERS]))
    assert not any("limit" in reason for reason in found.reasons)


def test_a_parameter_whose_coordinate_falls_has_its_ends_in_order() -> None:
    """lambda moves as log(1 - lambda): the lower end is still the lower one."""
    found = fit("lr_annealing", three_runs(), bootstrap=1)
    low, high = ends(found, "lambda")
    assert 0 < low < found.theta[LAWS["lr_annealing"].index("lambda")] < high < 1


def test_no_profile_where_none_is_asked_for_or_none_can_be() -> None:
    """Switched off, without intervals, for fixed and for tied parameters there is none."""
    data = table("power_law")
    for options in ({"profile": False}, {"bootstrap": 0}, {"expr": {"E": "1.8 + 0 * exponent"}}):
        found = fit("power_law", data, **{"bootstrap": 2, **options})  # type: ignore[arg-type]
        assert all(one.profile is None for one in found.parameters.values())
    fixed = fit("power_law", data, bootstrap=2, fix={"E": 1.8}).parameters
    assert fixed["E"].profile is None
    assert fixed["exponent"].profile is not None


def test_a_profile_survives_the_document() -> None:
    """Open ends are null and come back as None."""
    found = fit(LAW, narrow_table(), bootstrap=20)
    assert any(None in one.profile for one in found.parameters.values() if one.profile is not None)
    assert Fit.from_document(found.as_document()).parameters == found.parameters


def test_the_curvature_of_little_noise_is_that_of_squares() -> None:
    """Where no error reaches the threshold every point counts whole."""
    residuals = 1e-5 * np.random.default_rng(0).standard_normal(36)
    assert mean_curvature(residuals, 1e-3, 5) == 1


@pytest.mark.parametrize("n_points", [36, 400, 4_000])
def test_the_curvature_of_much_noise_is_its_density_whatever_is_fitted_exactly(n_points: int) -> None:
    """Normal errors of 0.05: 0.016 of them lie within 0.001; five points that the fit goes through do not count."""
    exact = 2 * stats.norm.cdf(1e-3 / 0.05) - 1
    drawn = 0.05 * np.random.default_rng(1).standard_normal((50, n_points))
    through = np.concatenate([np.zeros((50, 5)), drawn], axis=1)
    found = [mean_curvature(residuals, 1e-3, 5) for residuals in through]
    assert np.mean(found) == pytest.approx(exact, rel=0.15)
