"""The batched solver against other people's."""

from __future__ import annotations

import lmfit
import numpy as np
import pytest
from scipy.optimize import minimize

from isoloss.fitting.solver import huber, solve

X = np.linspace(0.1, 5, 60)
INF = np.full(3, np.inf)


def decay(theta: np.ndarray) -> np.ndarray:
    return theta[:, :1] * np.exp(-theta[:, 1:2] * X) + theta[:, 2:3]


def model_of(observed: np.ndarray):  # type: ignore[no-untyped-def]
    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        falling = np.exp(-theta[:, 1:2] * X)
        columns = [falling, -theta[:, :1] * X * falling, np.ones_like(falling)]
        return decay(theta) - observed, np.stack(columns, axis=-1)

    return model


def noisy(seed: int = 0, outliers: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    observed = decay(np.array([[3.0, 0.8, 0.5]]))[0] + 0.02 * random.standard_normal(X.size)
    observed[random.choice(X.size, outliers, replace=False)] += 1.0
    return observed


@pytest.mark.parametrize("delta", [1e-3, 0.03, 10.0])
def test_the_optimum_is_the_one_that_general_optimisers_find(delta: float) -> None:
    """From squares to nearly absolute values: the objective is no worse than BFGS and Nelder-Mead reach."""
    observed = noisy()
    start = np.array([[2.0, 1.0, 0.0]])
    found = solve(model_of(observed), start, np.ones((1, 60)), lower=-INF, upper=INF, delta=delta)

    def objective(theta: np.ndarray) -> float:
        return float(huber(decay(theta[None])[0] - observed, delta).sum())

    reached = min(
        minimize(objective, start[0], method=method, options={"maxiter": 20_000}).fun
        for method in ("BFGS", "Nelder-Mead")
    )
    assert found.converged.all()
    assert found.objective[0] <= reached * (1 + 1e-9)


@pytest.mark.parametrize(("highest", "agreement"), [(np.inf, 1e-6), (2.5, 1e-5)])
def test_least_squares_agree_with_lmfit(highest: float, agreement: float) -> None:
    """Without outliers in play the solution is lmfit's to six digits, and at a bound it is no worse."""
    observed = noisy(outliers=0)
    upper = np.array([highest, np.inf, np.inf])
    start = np.array([[2.0, 1.0, 0.0]])
    found = solve(model_of(observed), start, np.ones((1, 60)), lower=-INF, upper=upper, delta=1e9)
    parameters = lmfit.Parameters()
    parameters.add("a", 2.0, max=highest)
    parameters.add("k", 1.0)
    parameters.add("c", 0.0)
    other = lmfit.minimize(
        lambda p: decay(np.array([[p["a"].value, p["k"].value, p["c"].value]]))[0] - observed,
        parameters,
        method="least_squares",
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    np.testing.assert_allclose(found.theta[0], [other.params[name].value for name in "akc"], rtol=agreement)
    assert found.objective[0] <= other.chisqr / 2 * (1 + 1e-9)


def test_every_member_solves_for_its_own_weights() -> None:
    """A member with weights gets what it would get from the points that its weights repeat."""
    observed = noisy()
    random = np.random.default_rng(3)
    weights = random.multinomial(60, np.full(60, 1 / 60), size=7).astype(float)
    start = np.tile([2.0, 1.0, 0.0], (7, 1))
    together = solve(model_of(observed), start, weights, lower=-INF, upper=INF, delta=0.03)
    for member in range(7):
        alone = solve(
            model_of(observed), start[:1], weights[member : member + 1], lower=-INF, upper=INF, delta=0.03
        )
        np.testing.assert_allclose(together.theta[member], alone.theta[0], rtol=1e-6)


def test_a_held_parameter_stays() -> None:
    """Equal bounds hold a parameter, and the others are fitted around it."""
    lower, upper = np.array([-np.inf, 0.5, -np.inf]), np.array([np.inf, 0.5, np.inf])
    found = solve(
        model_of(noisy()),
        np.array([[2.0, 1.0, 0.0]]),
        np.ones((1, 60)),
        lower=lower,
        upper=upper,
        delta=0.03,
    )
    assert found.theta[0, 1] == 0.5
    assert found.converged.all()


def test_a_start_where_the_model_is_undefined_is_given_up() -> None:
    """Such a member has an infinite objective and has not converged; the others are not disturbed."""

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residuals = np.log(theta) - np.array([1.0, 1.2])
        return residuals, np.broadcast_to((1 / theta)[..., None], (*residuals.shape, 1))

    found = solve(
        model,
        np.array([[-1.0], [1.0]]),
        np.ones((2, 2)),
        lower=np.array([-np.inf]),
        upper=np.array([np.inf]),
        delta=1e9,
    )
    assert found.converged.tolist() == [False, True]
    assert np.isinf(found.objective[0])
    assert found.theta[1, 0] == pytest.approx(np.exp(1.1))
