"""The Multi-Power Law against its own formula, step by step, and against what was published."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks.datasets import TEST, WARMUP, available, multi_power_curves
from isoloss.laws.multi_power import MultiPower, Nodes
from isoloss.observations import PlannedRun
from isoloss.schedules import Schedule, schedule_from_spec
from isoloss.schedules.pieces import constant, linear
from tests.laws.per_step import SCHEDULES, multi_power, points

PUBLISHED = {
    "25M": [3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257],
    "100M": [2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644],
}
"""L0, A, alpha, B, C, beta, gamma of Luo et al. 2025, from the authors' code."""

PUBLISHED_RMSE = {
    "25M": [0.00188, 0.00801, 0.00430, 0.00383, 0.00678, 0.00311],
    "100M": [0.00567, 0.00821, 0.00592, 0.00492, 0.00890, 0.00190],
}
"""Of the six test curves, in the order of `TEST`."""

THETA = np.array(list(PUBLISHED.values()))
CONVENTIONS = ("after_warmup", "from_first_step")
NAMES = [parameter.name for parameter in MultiPower.parameters]

both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)


def run(schedule: Schedule) -> PlannedRun:
    return PlannedRun(points(schedule), schedule)


def three_runs(law: MultiPower) -> Nodes:
    return law.prepare([run(SCHEDULES[name]) for name in ("cosine_24000", "constant_24000", "wsdcon_9")])


@both_conventions
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_prediction_is_the_sum_over_every_step(name: str, convention: str) -> None:
    """Nodes change no predicted loss by more than 1e-5 nats; measured: 5e-6 at most, 1e-7 usually."""
    schedule, law = SCHEDULES[name], MultiPower(convention)
    begin = 0 if convention == "from_first_step" else schedule.warmup_steps
    predicted = law.predict(THETA, law.prepare([run(schedule)]))
    for member, theta in zip(predicted, THETA, strict=True):
        exact = multi_power(theta, schedule, points(schedule), begin)
        assert np.abs(member - exact).max() <= 1e-5


LARGE = np.array([[2.4, 0.5, 0.5, 150.0, 0.3, 0.6, 0.65], [2.4, 0.5, 0.5, 500.0, 2.0, 0.6, 0.65]])
"""Of the second, half of a drop at the peak of .003 takes effect in eight steps, and the drops sum to 1.5 nats."""


@both_conventions
@pytest.mark.parametrize("warmup_steps", [1, 100, 2_000])
@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "constant", "total_steps": 12_000},
        {"kind": "cosine", "total_steps": 24_000},
        {"kind": "linear", "total_steps": 9_000},
        {"kind": "wsd", "total_steps": 10_000, "decay_start": 8_000},
    ],
    ids=lambda spec: spec["kind"],
)
def test_high_peaks_and_short_warmups_are_summed_as_exactly(
    spec: dict[str, Any], warmup_steps: int, convention: str
) -> None:
    """Within 1e-5 nats where drops count ten times as much, and where the rate rises within a few steps."""
    schedule = schedule_from_spec(spec | {"warmup_steps": warmup_steps, "peak_lr": 3e-3})
    near = warmup_steps + np.array([1, 2, 5, 10, 20, 50, 100, 200, 500])
    far = np.linspace(warmup_steps + 1, schedule.total_steps, 60)
    step = np.unique(np.append(near, far).astype(np.int64))
    law, begin = MultiPower(convention), 0 if convention == "from_first_step" else warmup_steps
    predicted = law.predict(LARGE, law.prepare([PlannedRun(step, schedule)]))
    for member, theta in zip(predicted, LARGE, strict=True):
        assert np.abs(member - multi_power(theta, schedule, step, begin)).max() <= 1e-5


def with_published_warmup(schedule: Schedule) -> Schedule:
    """The same schedule with linspace(0, peak, 2160) before it: the peak is reached a step earlier."""
    warmup = (linear(0.0, 3e-4, 2_159), constant(3e-4, 1))
    return Schedule((*warmup, *schedule.after(2_160)), 2_159)


@pytest.mark.skipif(not available("multipowerlaw"), reason="the public data are not here")
@pytest.mark.parametrize("size", ["25M", "100M"])
def test_the_published_parameters_have_the_published_errors(size: str) -> None:
    """The RMSE of all six test curves is reproduced to half of the last digit printed (two lie on the edge)."""
    law = MultiPower("from_first_step")
    errors = []
    for curve in multi_power_curves(size, TEST):
        curve = dataclasses.replace(curve, schedule=with_published_warmup(curve.schedule))
        error = law.predict(np.array([PUBLISHED[size]]), law.prepare([curve]))[0] - curve.loss_nats
        errors.append(np.sqrt(np.mean(error**2)))
    np.testing.assert_allclose(errors, PUBLISHED_RMSE[size], rtol=0, atol=5.5e-6)


@both_conventions
@pytest.mark.parametrize("index", range(7), ids=NAMES)
def test_the_jacobian_equals_differences(index: int, convention: str) -> None:
    """Every derivative agrees with the central difference of the prediction."""
    law = MultiPower(convention)
    features = three_runs(law)
    values, jacobian = law.jacobian(THETA, features)
    np.testing.assert_allclose(values, law.predict(THETA, features), rtol=1e-13)
    move = np.zeros(7)
    move[index] = 1e-5 * THETA[0, index]
    difference = law.predict(THETA + move, features) - law.predict(THETA - move, features)
    np.testing.assert_allclose(
        jacobian[..., index], difference / (2 * move[index]), rtol=1e-4, atol=1e-9 / move[index] * 1e-5
    )


def test_the_linear_parameters_multiply_the_basis() -> None:
    """L0, A and B enter linearly: the basis times them is the prediction."""
    law = MultiPower()
    features = three_runs(law)
    linear_ones = [index for index, parameter in enumerate(law.parameters) if parameter.enters_linearly]
    rebuilt = np.einsum("mpk,mk->mp", law.basis(THETA, features), THETA[:, linear_ones])
    np.testing.assert_allclose(rebuilt, law.predict(THETA, features), rtol=1e-13)


@both_conventions
def test_tensors_give_the_same_numbers(convention: str) -> None:
    """Basis, prediction and Jacobian are the same code on torch, to rounding."""
    torch = pytest.importorskip("torch")
    law = MultiPower(convention)
    features = three_runs(law)
    columns = {key: value for key, value in vars(features).items() if isinstance(value, np.ndarray)}
    on_torch = dataclasses.replace(
        features, **{key: torch.as_tensor(value) for key, value in columns.items()}
    )
    theta: Any = torch.as_tensor(THETA)
    for one, other in zip(law.jacobian(theta, on_torch), law.jacobian(THETA, features), strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        np.asarray(law.predict(theta, on_torch)), law.predict(THETA, features), rtol=1e-12
    )
    np.testing.assert_allclose(
        np.asarray(law.basis(theta, on_torch)), law.basis(THETA, features), rtol=1e-11, atol=1e-14
    )


def test_the_drops_are_summed_from_the_end_of_warmup_unless_asked_otherwise() -> None:
    """The usual reading sees no drop at a constant learning rate; the published one a negative one."""
    schedule = SCHEDULES["constant_24000"]
    usual, published = MultiPower(), MultiPower().under("from_first_step")
    lowered, raised = (law.basis(THETA, law.prepare([run(schedule)]))[..., 2] for law in (usual, published))
    assert usual.convention == "after_warmup"
    assert not lowered.any()
    assert np.all(raised > 0)


@both_conventions
def test_a_learning_rate_of_0_is_no_trouble(convention: str) -> None:
    """Points where the rate has been 0 for long have finite losses and derivatives, and the loss stays."""
    knots = [[1, 0.0], [500, 1e-3], [5_000, 1e-3], [6_000, 0.0], [9_000, 0.0]]
    schedule = schedule_from_spec({"kind": "piecewise_linear", "knots": knots})
    law = MultiPower(convention)
    step = np.arange(600, 9_001, 100)
    values, jacobian = law.jacobian(THETA, law.prepare([PlannedRun(step, schedule)]))
    assert np.isfinite(values).all()
    assert np.isfinite(jacobian).all()
    np.testing.assert_allclose(values[:, -20:], values[:, -1:] + np.zeros(20), rtol=1e-12)
    begin = 0 if convention == "from_first_step" else schedule.warmup_steps
    np.testing.assert_allclose(values[0], multi_power(THETA[0], schedule, step, begin), atol=1e-4)


def test_without_annealing_its_parameters_are_undetermined() -> None:
    """A constant learning rate says nothing of B, C, beta and gamma; one decay does."""
    law = MultiPower()
    constant_run, decay = (run(SCHEDULES[name]) for name in ("constant_24000", "wsd_linear"))
    assert set(law.undetermined(law.prepare([constant_run]))) == {"B", "C", "beta", "gamma"}
    assert set(law.undetermined(law.prepare([constant_run]), fixed={"gamma"})) == {"B", "C", "beta"}
    assert law.undetermined(law.prepare([constant_run, decay])) == {}


def test_many_different_schedules_fit_into_memory() -> None:
    """A fit takes so few points that a point and a node make a million pairs at most, though all runs differ."""
    cosines = [
        schedule_from_spec({"kind": "cosine", "total_steps": 8_000 + length} | WARMUP)
        for length in range(0, 100, 10)
    ]
    share = MultiPower.most_points // len(cosines)
    steps = [np.linspace(2_200, one.total_steps, share).astype(np.int64) for one in cosines]
    runs = [PlannedRun(step, schedule) for step, schedule in zip(steps, cosines, strict=True)]
    assert MultiPower().prepare(runs).n_terms <= 1_000_000


def test_half_of_a_small_drop_has_taken_effect_after_the_half_life() -> None:
    """The derived half-life is where G reaches a half, in steps at the peak."""
    [(unit, steps, _)] = MultiPower().derived(THETA, [run(SCHEDULES["cosine_24000"])]).values()
    _, _, _, _, C, beta, gamma = THETA[0]
    assert unit == "steps"
    assert 1 - (1 + C * 3e-4**-gamma * steps[0] * 3e-4) ** -beta == pytest.approx(0.5)


def test_the_starts_follow_the_unit_of_the_learning_rate() -> None:
    """Learning rates a hundred times larger give the same starts in the law's own terms."""
    law = MultiPower()
    spec = {"kind": "cosine", "total_steps": 12_000, "warmup_steps": 500}
    rates = []
    for peak in (1e-3, 0.1):
        starts = law.grid(law.prepare([run(schedule_from_spec(spec | {"peak_lr": peak}))]), 32)
        rates.append(starts[:, NAMES.index("C")] * peak ** (1 - starts[:, NAMES.index("gamma")]))
    np.testing.assert_allclose(rates[0], rates[1])
