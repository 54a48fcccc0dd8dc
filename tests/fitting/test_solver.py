"""The batched solver against other people's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import lmfit
import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

from isoloss.arrays import namespace
from isoloss.fitting.solver import CHUNK_BYTES, Prior, huber, solve

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


class Decay(NamedTuple):
    """A model in the library of its arrays, for bounds, priors and bad input."""

    x: Any
    observed: Any

    def __call__(self, theta: Any) -> tuple[Any, Any]:
        xp = namespace(theta)
        falling = xp.exp(-theta[:, 1:2] * self.x)
        residuals = theta[:, :1] * falling + theta[:, 2:3] - self.observed
        columns = [falling, -theta[:, :1] * self.x * falling, xp.ones_like(falling)]
        return residuals, xp.stack(columns, axis=-1)


def resampled(members: int) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and weights of so many resamples of the noisy decay."""
    random = np.random.default_rng(3)
    weights = random.multinomial(60, np.full(60, 1 / 60), size=members).astype(float)
    return np.tile([2.0, 1.0, 0.0], (members, 1)), weights


@pytest.mark.parametrize("delta", [0.03, np.inf])
@pytest.mark.parametrize("prior", [None, (np.array([3.0, 0.5, 0.0]), np.array([0.0, 50.0, 0.0]))])
def test_numpy_and_torch_give_the_same_answers(delta: float, prior: Prior | None) -> None:
    """The same members end at the same place to 1e-10, after as many iterations, in the arrays that were given."""
    torch = pytest.importorskip("torch")
    start, weights = resampled(40)
    options = {"lower": -INF, "upper": INF, "delta": delta, "prior": prior}
    here = solve(Decay(X, noisy()), start, weights, **options)
    tensor = torch.from_numpy(start)
    there = solve(Decay(torch.from_numpy(X), torch.from_numpy(noisy())), tensor, weights, **options)
    assert isinstance(there.theta, torch.Tensor)
    np.testing.assert_allclose(there.theta.numpy(), here.theta, rtol=0, atol=1e-10)
    np.testing.assert_allclose(there.objective.numpy(), here.objective, rtol=1e-10)
    assert here.converged.all()
    assert there.converged.all()
    assert there.iterations.tolist() == here.iterations.tolist()


def test_the_library_does_not_import_torch() -> None:
    """A fit with NumPy arrays works, and imports no torch, where torch is installed."""
    code = "import sys, isoloss, isoloss.fitting.solver; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_member_may_have_its_own_bounds() -> None:
    """Members that hold one parameter at different values get what each gets alone, with those bounds for all."""
    start, weights = np.tile([2.0, 1.0, 0.0], (5, 1)), np.ones((5, 60))
    lower, upper = np.tile(-INF, (5, 1)), np.tile(INF, (5, 1))
    lower[:, 1] = upper[:, 1] = np.linspace(0.5, 1.2, 5)
    together = solve(model_of(noisy()), start, weights, lower=lower, upper=upper, delta=0.03)
    assert together.theta[:, 1].tolist() == lower[:, 1].tolist()
    assert together.converged.all()
    for one, held_low, held_high in zip(together.theta, lower, upper, strict=True):
        alone = solve(model_of(noisy()), start[:1], weights[:1], lower=held_low, upper=held_high, delta=0.03)
        np.testing.assert_allclose(one, alone.theta[0], rtol=1e-6)


def test_a_prior_is_one_more_observation() -> None:
    """Least squares with a prior are those of the points and one that measures the parameter directly."""
    observed = noisy(outliers=0)
    centre, precision = np.array([0.0, 1.5, 0.0]), np.array([0.0, 30.0, 0.0])

    def augmented(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residuals, jacobian = model_of(observed)(theta)
        extra = np.zeros((len(theta), 1, 3))
        extra[:, 0, 1] = np.sqrt(30.0)
        measured = np.sqrt(30.0) * (theta[:, 1:2] - 1.5)
        return np.concatenate([residuals, measured], axis=1), np.concatenate([jacobian, extra], axis=1)

    start = np.array([[2.0, 1.0, 0.0]])
    options = {"lower": -INF, "upper": INF, "delta": np.inf}
    found = solve(model_of(observed), start, np.ones((1, 60)), prior=(centre, precision), **options)
    other = solve(augmented, start, np.ones((1, 61)), **options)
    without = solve(model_of(observed), start, np.ones((1, 60)), **options)
    np.testing.assert_allclose(found.theta, other.theta, rtol=1e-8)
    np.testing.assert_allclose(found.objective, other.objective, rtol=1e-10)
    assert abs(found.theta[0, 1] - without.theta[0, 1]) > 0.01


def test_infinite_delta_is_plain_least_squares() -> None:
    """The same answer as a threshold that no residual reaches."""
    start, weights = resampled(3)
    options = {"lower": -INF, "upper": INF}
    plain = solve(model_of(noisy()), start, weights, delta=np.inf, **options)
    wide = solve(model_of(noisy()), start, weights, delta=1e9, **options)
    np.testing.assert_allclose(plain.theta, wide.theta, rtol=1e-8)
    np.testing.assert_allclose(plain.objective, wide.objective, rtol=1e-12)


def test_no_more_members_are_evaluated_at_once_than_fit() -> None:
    """`work` bounds the members that the model sees together, and changes no answer."""
    start, weights = resampled(50)
    seen: list[int] = []

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(theta))
        return model_of(noisy())(theta)

    options = {"lower": -INF, "upper": INF, "delta": 0.03}
    seven_fit = CHUNK_BYTES // (8 * 7)
    few = solve(model, start, weights, work=seven_fit, **options)
    assert max(seen) == 7
    many = solve(model_of(noisy()), start, weights, **options)
    np.testing.assert_allclose(few.theta, many.theta, rtol=1e-9)
    assert few.iterations.tolist() == many.iterations.tolist()


def two_wells(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals with a shallow optimum at 0.95, objective 0.18, and an exact one at -1."""
    residuals = np.stack([theta[:, 0] ** 2 - 1, 0.3 * (theta[:, 0] + 1)], axis=1)
    jacobian = np.stack([2 * theta[:, :1], np.full_like(theta[:, :1], 0.3)], axis=1)
    return residuals, jacobian


def test_a_start_that_passes_the_leader_goes_on() -> None:
    """In a race a start on its way to a lower optimum is not stopped at the height of the first that converged."""
    start = np.array([[0.95], [-30.0]])
    shallow = solve(two_wells, start[:1], np.ones((1, 2)), lower=-INF[:1], upper=INF[:1], delta=np.inf)
    assert shallow.objective[0] > 0.1
    found = solve(two_wells, start, np.ones((2, 2)), lower=-INF[:1], upper=INF[:1], delta=np.inf, race=True)
    assert found.converged[1]
    assert found.theta[1, 0] == pytest.approx(-1, abs=1e-9)
    assert found.objective[1] < 1e-18


def test_starts_of_a_race_agree_sooner_than_they_converge() -> None:
    """Who settles where the leader is has agreed: converged, at its objective, in no more iterations than alone."""
    start = np.array([[2.0, 1.0, 0.0], [4.0, 0.3, 1.0], [1.0, 2.0, 1.0]])
    options = {"lower": -INF, "upper": INF, "delta": 0.03}
    race = solve(model_of(noisy()), start, np.ones((3, 60)), race=True, **options)
    alone = solve(model_of(noisy()), start, np.ones((3, 60)), **options)
    assert race.converged.all()
    np.testing.assert_allclose(race.objective, alone.objective.min(), rtol=1e-4)
    assert np.all(race.iterations <= alone.iterations)


def test_a_point_without_weight_may_be_undefined() -> None:
    """Residuals and derivatives that are not numbers do no harm where no weight is on them."""
    observed = noisy()
    weights = np.ones((2, 60))
    weights[:, 7] = 0.0

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residuals, jacobian = model_of(observed)(theta)
        residuals[:, 7], jacobian[:, 7] = np.nan, np.inf
        return residuals, jacobian

    start = np.tile([2.0, 1.0, 0.0], (2, 1))
    options = {"lower": -INF, "upper": INF, "delta": 0.03}
    found = solve(model, start, weights, **options)
    clean = solve(model_of(observed), start, weights, **options)
    assert found.converged.all()
    np.testing.assert_allclose(found.theta, clean.theta, rtol=1e-10)


def test_without_data_a_member_stays_at_its_start() -> None:
    """Weights that are all zero: objective 0, not converged, and the other members are not disturbed."""
    start, weights = resampled(3)
    weights[1] = 0.0
    found = solve(model_of(noisy()), start, weights, lower=-INF, upper=INF, delta=0.03)
    assert found.converged.tolist() == [True, False, True]
    assert found.objective[1] == 0
    assert found.theta[1].tolist() == start[1].tolist()


def test_no_members_have_no_solutions() -> None:
    """An empty start gives empty answers of the right shapes."""
    found = solve(model_of(noisy()), np.zeros((0, 3)), np.zeros((0, 60)), lower=-INF, upper=INF, delta=0.03)
    assert found.theta.shape == (0, 3)
    assert found.objective.shape == found.converged.shape == found.iterations.shape == (0,)


@pytest.mark.parametrize("lower", [1.0, np.nan])
def test_bounds_that_contradict_each_other_are_refused(lower: float) -> None:
    """A lower bound above the upper one, or one that is no number, is an error and not an answer."""
    with pytest.raises(ValueError, match="lower bound"):
        solve(
            model_of(noisy()),
            np.ones((1, 3)),
            np.ones((1, 60)),
            lower=np.array([0.0, lower, 0.0]),
            upper=np.array([1.0, 0.5, 1.0]),
            delta=1.0,
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_that_is_no_number_is_given_up(bad: float) -> None:
    """It has an infinite objective and has not converged, without a warning."""
    start, weights = resampled(2)
    start[0, 1] = bad
    weights[0, :] = weights[0, :] if np.isnan(bad) else np.nan
    found = solve(model_of(noisy()), start, weights, lower=-INF, upper=INF, delta=0.03)
    assert np.isinf(found.objective[0])
    assert found.converged.tolist() == [False, True]


def test_a_model_without_information_ends() -> None:
    """Parameters without effect, or with the same effect, leave the others' optimum as it is."""

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residuals = theta[:, :1] + theta[:, 1:2] - np.array([1.0, 2.0, 3.0])
        jacobian = np.tile([1.0, 1.0, 0.0], (len(theta), 3, 1))
        return residuals, jacobian

    found = solve(model, np.zeros((1, 3)), np.ones((1, 3)), lower=-INF, upper=INF, delta=np.inf)
    assert found.converged.all()
    assert found.theta[0, :2].sum() == pytest.approx(2)
    assert found.theta[0, 2] == 0


def test_who_finds_no_better_step_far_from_an_optimum_has_not_converged() -> None:
    """A Jacobian of the wrong sign leads nowhere: that is said, after a few hundred steps at most."""

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residuals, jacobian = model_of(noisy(outliers=0))(theta)
        return residuals, -jacobian

    found = solve(model, np.array([[2.0, 1.0, 0.0]]), np.ones((1, 60)), lower=-INF, upper=INF, delta=np.inf)
    assert not found.converged.any()
    assert found.theta[0].tolist() == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("start", [(1.5, 1.0), (1.8, 1.2), (1.85, 1.1)])
def test_a_bound_between_a_start_and_the_free_optimum_does_not_stop_a_member(
    start: tuple[float, float],
) -> None:
    """Linear least squares under one bound end where SciPy's exact solver does, and nowhere before it."""
    x = np.linspace(1, 2, 20)
    columns = np.stack([np.ones(20), x], axis=1)
    observed = columns @ [2.0, 1.0] + 0.01 * np.sin(40 * x)
    lower, upper = np.array([-np.inf, -np.inf]), np.array([1.9, np.inf])
    found = solve(
        lambda theta: (theta @ columns.T - observed, np.broadcast_to(columns, (len(theta), 20, 2)).copy()),
        np.array([start]), np.ones((1, 20)), lower=lower, upper=upper, delta=np.inf,
    )  # fmt: skip
    assert found.converged.all()
    np.testing.assert_allclose(found.theta[0], lsq_linear(columns, observed, (lower, upper)).x, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_in_several_directions_end_where_an_exact_solver_does(seed: int) -> None:
    """Forty random boxes that cut off the free optimum of one linear problem: each ends at SciPy's optimum."""
    random = np.random.default_rng(seed)
    columns, observed = random.standard_normal((12, 5)), random.standard_normal(12)
    half = 0.3 * random.random((40, 5))
    found = solve(
        lambda theta: (theta @ columns.T - observed, np.broadcast_to(columns, (len(theta), 12, 5)).copy()),
        half * random.uniform(-1, 1, (40, 5)), np.ones((40, 12)), lower=-half, upper=half, delta=np.inf,
    )  # fmt: skip
    assert found.converged.all()
    exact = [lsq_linear(columns, observed, (-box, box), tol=1e-14).x for box in half]
    np.testing.assert_allclose(found.theta, exact, rtol=0, atol=1e-7)
