"""The concave-memory law against its own formula, step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from isoloss.laws.concave_memory import ConcaveMemory, Memory
from isoloss.observations import PlannedRun
from isoloss.schedules import Schedule, schedule_from_spec
from tests.laws.per_step import SCHEDULES, concave_memory, points

LAW = ConcaveMemory()
NAMES = [parameter.name for parameter in LAW.parameters]
THETA = np.array([2.6, 0.6, 0.5, 0.35, 15.0, 0.6, 0.3, 0.75, -0.05, 0.05])
OTHERS = np.array(
    [
        THETA,
        [3.1, 0.9, 0.4, 0.15, 40.0, 1.2, -0.1, 0.6, -0.2, -0.03],
        [2, 1, 0.8, 0.5, 3, 0.3, 0.8, 1.4, 0.1, 0],
    ]
)


def run(schedule: Schedule) -> PlannedRun:
    return PlannedRun(points(schedule), schedule)


def three_runs() -> Memory:
    """The features of a constant run, a decay and a jump: what the law is usually fitted to."""
    return LAW.prepare([run(SCHEDULES[name]) for name in ("cosine_24000", "constant_24000", "wsdcon_9")])


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_prediction_is_the_sum_over_every_step(name: str) -> None:
    """Nodes change no predicted loss by more than 1e-5 nats; measured: 6.6e-6 at most, 3e-6 usually."""
    schedule = SCHEDULES[name]
    predicted = LAW.predict(THETA[None], LAW.prepare([run(schedule)]))[0]
    exact = concave_memory(THETA, schedule, points(schedule))
    assert np.abs(predicted - exact).max() <= 1e-5


def test_a_short_decay_at_the_end_of_a_long_run_is_as_exact() -> None:
    """Three million steps before a decay of a thousand cost it no digit."""
    spec = {
        "kind": "wsd",
        "total_steps": 3_001_000,
        "decay_start": 3_000_000,
        "warmup_steps": 100,
        "peak_lr": 1e-3,
    }
    schedule, step = schedule_from_spec(spec), np.arange(3_000_000, 3_001_001, 50)
    predicted = LAW.predict(THETA[None], LAW.prepare([PlannedRun(step, schedule)]))[0]
    np.testing.assert_allclose(predicted, concave_memory(THETA, schedule, step), rtol=0, atol=1e-5)


def test_points_on_every_step_behind_a_drop_are_as_exact() -> None:
    """The first steps of a decay and of a jump are no worse than the rest."""
    for name, first in (("wsd_20000_24000", 20_000), ("wsd_sqrt", 19_000), ("wsdcon_3", 7_999)):
        schedule, step = SCHEDULES[name], np.arange(first, first + 300)
        predicted = LAW.predict(THETA[None], LAW.prepare([PlannedRun(step, schedule)]))[0]
        np.testing.assert_allclose(predicted, concave_memory(THETA, schedule, step), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_learning_rate_that_falls_from_the_first_step_is_no_trouble(kind: str) -> None:
    """Without a warm-up the first drop is the one into step 1, which the sum over steps leaves out: some 4e-5."""
    schedule = schedule_from_spec({"kind": kind, "peak_lr": 1e-3, "total_steps": 9_000})
    step = np.arange(1_000, 9_001, 1_000)
    predicted = LAW.predict(THETA[None], LAW.prepare([PlannedRun(step, schedule)]))[0]
    np.testing.assert_allclose(predicted, concave_memory(THETA, schedule, step), rtol=0, atol=6e-5)


@pytest.mark.parametrize("index", range(10), ids=NAMES)
def test_the_jacobian_equals_differences(index: int) -> None:
    """Every derivative agrees with the central difference of the prediction."""
    features = three_runs()
    values, jacobian = LAW.jacobian(OTHERS, features)
    np.testing.assert_allclose(values, LAW.predict(OTHERS, features), rtol=1e-13)
    move = np.zeros(10)
    move[index] = 1e-5
    difference = (LAW.predict(OTHERS + move, features) - LAW.predict(OTHERS - move, features)) / 2e-5
    np.testing.assert_allclose(jacobian[..., index], difference, rtol=1e-5, atol=2e-9)


def test_the_linear_parameters_multiply_the_basis() -> None:
    """L0, A, B and T enter linearly: the basis times them is the prediction."""
    features = three_runs()
    linear = [index for index, parameter in enumerate(LAW.parameters) if parameter.enters_linearly]
    rebuilt = np.einsum("mpk,mk->mp", LAW.basis(OTHERS, features), OTHERS[:, linear])
    np.testing.assert_allclose(rebuilt, LAW.predict(OTHERS, features), rtol=1e-13)


def test_tensors_give_the_same_numbers() -> None:
    """Basis, prediction and Jacobian are the same code on torch, to rounding."""
    torch = pytest.importorskip("torch")
    features = three_runs()
    columns = {key: value for key, value in vars(features).items() if isinstance(value, np.ndarray)}
    on_torch = dataclasses.replace(
        features, **{key: torch.as_tensor(value) for key, value in columns.items()}
    )
    theta: Any = torch.as_tensor(OTHERS)
    for one, other in zip(LAW.jacobian(theta, on_torch), LAW.jacobian(OTHERS, features), strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        np.asarray(LAW.predict(theta, on_torch)), LAW.predict(OTHERS, features), rtol=1e-13
    )
    np.testing.assert_allclose(
        np.asarray(LAW.basis(theta, on_torch)), LAW.basis(OTHERS, features), rtol=1e-12, atol=1e-14
    )


def test_runs_together_are_the_runs_alone() -> None:
    """The clock and the pairs of one run do not reach into the next."""
    names = ("wsd_sqrt", "wsdcon_3", "constant_24000", "cosine_to_0")
    together = LAW.prepare([run(SCHEDULES[name]) for name in names])
    alone = [LAW.predict(OTHERS, LAW.prepare([run(SCHEDULES[name])])) for name in names]
    np.testing.assert_allclose(LAW.predict(OTHERS, together), np.concatenate(alone, axis=1), rtol=1e-12)
    assert together.n_points == sum(part.shape[1] for part in alone)
    assert together.n_terms == together.pair_node.size


def test_each_run_is_measured_by_its_own_peak() -> None:
    """Learning rates in another unit change nothing, but for bins whose edges rounding moves."""
    spec = {"kind": "wsd", "total_steps": 12_000, "warmup_steps": 500, "decay_start": 9_000}
    one, other = (
        LAW.predict(OTHERS, LAW.prepare([run(schedule_from_spec(spec | {"peak_lr": peak}))]))
        for peak in (1e-3, 0.25)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_learning_rate_of_0_is_no_trouble() -> None:
    """Points where the rate has been 0 for long have finite losses and derivatives, also with g above 1."""
    knots = [[1, 0.0], [500, 1e-3], [5_000, 1e-3], [6_000, 0.0], [9_000, 0.0]]
    schedule = schedule_from_spec({"kind": "piecewise_linear", "knots": knots})
    theta = OTHERS.copy()
    theta[1, NAMES.index("g")] = 1.5
    features = LAW.prepare([PlannedRun(np.arange(600, 9_001, 100), schedule)])
    values, jacobian = LAW.jacobian(theta, features)
    assert np.isfinite(values).all()
    assert np.isfinite(jacobian).all()
    np.testing.assert_allclose(values[0, -20:], values[0, -1], rtol=1e-12)


def held(warmup_steps: int, first: int) -> dict[str, float]:
    spec = {"kind": "cosine", "total_steps": 20_000, "warmup_steps": warmup_steps, "peak_lr": 1e-3}
    return LAW.held(LAW.prepare([PlannedRun(np.arange(first, 20_001, 200), schedule_from_spec(spec))]))


def test_the_start_up_transient_is_fitted_only_where_points_show_it() -> None:
    """T is free behind a long warm-up; 0 where points begin later, or so early that S^-a falls as steeply."""
    assert held(warmup_steps=2_160, first=2_200) == {}
    assert held(warmup_steps=2_160, first=6_000) == {"T": 0.0}
    assert held(warmup_steps=300, first=400) == {"T": 0.0}


def test_without_annealing_its_parameters_are_undetermined() -> None:
    """A constant learning rate says nothing of B, C, b, g, p and z; one decay does."""
    constant, decay = (run(SCHEDULES[name]) for name in ("constant_24000", "wsd_linear"))
    assert set(LAW.undetermined(LAW.prepare([constant]))) == {"B", "C", "b", "g", "p", "z"}
    assert set(LAW.undetermined(LAW.prepare([constant]), fixed={"g", "p"})) == {"B", "C", "b", "z"}
    assert LAW.undetermined(LAW.prepare([constant, decay])) == {}


def test_half_of_a_small_drop_has_taken_effect_after_the_half_life() -> None:
    """The derived half-life is where G reaches a half, in steps at the peak."""
    [(unit, steps, needs)] = LAW.derived(THETA[None], []).values()
    C, b = THETA[NAMES.index("C")], THETA[NAMES.index("b")]
    assert (unit, needs) == ("steps", ("C", "b"))
    assert 1 - (1 + C * steps[0] / 1000 / b) ** -b == pytest.approx(0.5)


def test_the_starts_lie_inside_the_bounds() -> None:
    """Every start can be moved from in every direction, and the priors' centres are among them."""
    starts = LAW.grid(three_runs(), 32)
    free = [index for index, parameter in enumerate(LAW.parameters) if not parameter.enters_linearly]
    for index in free:
        parameter = LAW.parameters[index]
        assert np.all((parameter.lower < starts[:, index]) & (starts[:, index] < parameter.upper))
    for name, (centre, sd) in LAW.priors(three_runs()).centres.items():
        column = starts[:, NAMES.index(name)]
        scale = np.log if LAW.parameters[NAMES.index(name)].scale == "log" else np.asarray
        assert np.abs(scale(column) - scale(centre)).min() < sd
