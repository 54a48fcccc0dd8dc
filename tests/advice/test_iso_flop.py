"""Iso-FLOP profiles of laws of size and data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput
from isoloss.observations import RunTable

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.31}


def runs(noise: float = 0.0) -> RunTable:
    """Runs over two decades of sizes and of data."""
    size, data = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    loss = TRUTH["E"] + TRUTH["A"] * size ** -TRUTH["alpha"] + TRUTH["B"] * data ** -TRUTH["beta"]
    loss = loss * np.exp(noise * np.random.default_rng(0).standard_normal(size.size))
    names = tuple(f"run-{number:02}" for number in range(size.size))
    return RunTable(names, {"n_params": size, "n_tokens": data}, loss, n_params_kind="total")


def optimum(compute: float) -> float:
    """The compute-optimal size by the closed form of Hoffmann et al. 2022, equation 4."""
    ratio = TRUTH["alpha"] * TRUTH["A"] / (TRUTH["beta"] * TRUTH["B"])
    both = TRUTH["alpha"] + TRUTH["beta"]
    return float(ratio ** (1 / both) * (compute / 6) ** (TRUTH["beta"] / both))


@pytest.mark.parametrize("compute", [1e19, 1e22])
def test_the_least_loss_is_where_the_closed_form_has_it(compute: float) -> None:
    """Size and data multiply to the compute, inside of the data and beyond."""
    fit = isoloss.fit("chinchilla", runs(), bootstrap=20)
    profile = isoloss.iso_flop_profile(fit, compute)
    assert profile.optimal_n_params[0] == pytest.approx(optimum(compute), rel=1e-3)
    assert 6 * profile.optimal_n_params[0] * profile.optimal_n_tokens[0] == pytest.approx(compute)
    assert profile.loss.argmin() == profile.loss.size // 2
    np.testing.assert_allclose(6 * profile.n_params * profile.n_tokens, compute)


def test_the_coefficients_that_follow_say_the_same() -> None:
    """A fit's derived powers of compute are the optimum at every compute."""
    fit = isoloss.fit("chinchilla", runs(), bootstrap=20)
    said = {one.name: one.value for one in fit.derived}
    for what in ("n_params", "n_tokens"):
        coefficient, exponent = said[f"coefficient_optimal_{what}"], said[f"exponent_optimal_{what}"]
        assert coefficient is not None
        assert exponent is not None
        told = coefficient * 1e21**exponent
        assert told == pytest.approx(
            optimum(1e21) if what == "n_params" else 1e21 / 6 / optimum(1e21), rel=1e-4
        )


def test_resamples_without_an_optimum_leave_the_interval_without_an_end() -> None:
    """A fifth of the resamples in which size no longer helps: the least loss is then at no size."""
    fit = isoloss.fit("chinchilla", runs(0.001), bootstrap=100)
    samples = fit.samples.copy()
    samples[:20, 1] = 0.0  # A
    profile = isoloss.iso_flop_profile(dataclasses.replace(fit, samples=samples), 1e21)
    value, low, high = profile.optimal_n_params
    assert low == 0 < value < high < np.inf
    assert profile.optimal_n_tokens[2] == np.inf


def test_noise_gives_an_interval_that_holds_the_truth() -> None:
    """The interval of the optimum comes from the resamples, each with its own optimum."""
    profile = isoloss.iso_flop_profile(isoloss.fit("chinchilla", runs(0.002), bootstrap=100), 1e21)
    value, low, high = profile.optimal_n_params
    assert low < value < high
    assert low <= optimum(1e21) <= high
    assert np.all(profile.lower < profile.upper)


def test_other_laws_and_other_computes_are_refused() -> None:
    """A profile is of size and data, at a compute above 0."""
    table = runs()
    with pytest.raises(InvalidInput, match="no law of model size and data"):
        isoloss.iso_flop_profile(isoloss.fit("power_law_compute", table, bootstrap=5), 1e21)
    with pytest.raises(InvalidInput, match="above 0"):
        isoloss.iso_flop_profile(isoloss.fit("chinchilla", table, bootstrap=5), -1.0)


def test_kaplans_law_has_profiles_too() -> None:
    """Any law of size and data: the least loss lies inside."""
    size, data = (runs().column(name) for name in ("n_params", "n_tokens"))
    loss = ((8.8e13 / size) ** (0.076 / 0.095) + 5.4e13 / data) ** 0.095
    fit = isoloss.fit("kaplan", dataclasses.replace(runs(), outcome=loss), bootstrap=10)
    profile = isoloss.iso_flop_profile(fit, 1e21)
    assert profile.loss.argmin() == profile.loss.size // 2
