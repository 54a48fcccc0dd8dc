"""The law across peak learning rates, against closed forms, sums over single steps, and differences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from isoloss.errors import UnusableData
from isoloss.laws.effective_lr import EffectiveLR, _rates
from isoloss.laws.norm_blocks import NormBlocks
from isoloss.laws.norm_sums import norms
from isoloss.observations import PlannedRun
from isoloss.schedules import Schedule, schedule_from_spec

LAW = EffectiveLR()
NAMES = [parameter.name for parameter in LAW.parameters]
THETA = np.array([[2.68, 0.6, 0.46, 0.6, 15.0, 0.94, 0.27, 0.77, 1.28, 0.6, -0.02, 0.0035]])
"""Close to what the runs of `lr_scheduling` give (laws.md 1.5), in the order of `NAMES`."""

WARMED = {"warmup_steps": 300, "peak_lr": 1e-3}
POINTS = (310, 650, 1000, 2000, 3000, 5000, 5050, 5500, 7000, 8000)
DECAY = {"total_steps": 8000, "decay_start": 5000}
SPECS: dict[str, dict[str, Any]] = {
    "constant": {"kind": "constant", "total_steps": 8000} | WARMED,
    "cosine to zero": {"kind": "cosine", "total_steps": 8000} | WARMED,
    "cosine at 3e-3": {"kind": "cosine", "total_steps": 8000, "end_lr": 3e-4} | WARMED | {"peak_lr": 3e-3},
    "linear without warm-up": {"kind": "linear", "total_steps": 8000, "peak_lr": 1e-3},
    "linear decay": {"kind": "wsd"} | DECAY | WARMED,
    "sqrt decay": {"kind": "wsd", "decay_shape": "sqrt"} | DECAY | WARMED,
    "exponential decay": {"kind": "wsd", "decay_shape": "exponential", "end_lr": 1e-6} | DECAY | WARMED,
    "jump": {"kind": "two_stage", "total_steps": 8000, "switch_step": 5001, "second_lr": 3e-4} | WARMED,
    "jump to zero": {"kind": "two_stage", "total_steps": 8000, "switch_step": 5001, "second_lr": 0.0}
    | WARMED,
    "second rise": {
        "kind": "piecewise_linear",
        "knots": [[1, 0.0], [300, 1e-3], [3000, 0.0], [3300, 2e-3], [8000, 1e-4]],
    },
}


def run_of(spec: dict[str, Any], steps: tuple[int, ...] = POINTS, decay: float = 0.1) -> PlannedRun:
    return PlannedRun(np.array(steps), schedule_from_spec(spec), weight_decay=decay)


def all_runs() -> list[PlannedRun]:
    return [run_of(spec) for spec in SPECS.values()]


def moved(**values: float) -> np.ndarray:
    theta = THETA.copy()
    for name, value in values.items():
        theta[0, NAMES.index(name)] = value
    return theta


def by_single_steps(theta: np.ndarray, run: PlannedRun) -> np.ndarray:
    """The formula of laws.md 1.5 with its integrals as sums over every step, the norm step after step."""
    L0, A, a, B, C, b, g, p, c, l, z, D = theta  # noqa: E741
    lr = 1e3 * run.schedule.lr(np.arange(1, run.step[-1] + 1))
    x = 2 * l * run.weight_decay * lr * 1e-3
    grown = c * lr**2 * 1e-3 * np.where(x > 0, -np.expm1(-x) / np.where(x > 0, x, 1.0), 1.0)
    squared = [1.0]
    for kept, added in zip(np.exp(-x), grown, strict=True):
        squared.append(kept * squared[-1] + added)
    norm = np.sqrt(squared)
    middle = (norm[1:] + norm[:-1]) / 2
    e = lr / middle
    S = np.cumsum(e) * 1e-3
    clock = np.append(0.0, np.cumsum(np.where(e > 0, np.maximum(e, 1e-300) ** (1 - g), 0.0)) * 1e-3)
    before = np.append(lr[0], lr[:-1])
    drops = np.flatnonzero((lr < before) & (np.arange(lr.size) >= run.schedule.warmup_steps))
    height = (before[drops] ** p - lr[drops] ** p) / middle[drops] ** p
    time = (clock[drops] + clock[drops + 1]) / 2
    out = []
    for step in run.step:
        past = drops < step
        left = (1 + C * (clock[step] - time[past]) / b) ** -b
        n = (lr[step - 1] / norm[step]) ** p + height[past] @ left
        s = S[step - 1]
        out.append(L0 + A * s**-a + B * n * (s / 4) ** z + D * (1e3 * run.schedule.peak_lr) ** 2)
    return np.array(out)


def test_constant_rates_without_decay_have_the_closed_form() -> None:
    """Without weight decay R^2 = 1 + c eta^2 t, so that S and the loss are known exactly."""
    L0, A, a, B, _, _, _, p, c, _, z, D = THETA[0]
    run = run_of({"kind": "constant", "total_steps": 8000, "peak_lr": 2e-3}, decay=0.0)
    R = np.sqrt(1 + c * 4 * run.step / 1000)
    S = 2 * (R - 1) / (c * 2)
    expected = L0 + A * S**-a + B * (2 / R) ** p * (S / 4) ** z + D * 4
    np.testing.assert_allclose(LAW.predict(THETA, LAW.prepare([run]))[0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_blocks_predict_what_single_steps_do(name: str) -> None:
    """Blocks of steps cost at most 1e-5 nats (measured: 7.2e-6 at worst) against sums over every step."""
    run = run_of(SPECS[name])
    predicted = LAW.predict(THETA, LAW.prepare([run]))[0]
    np.testing.assert_allclose(predicted, by_single_steps(THETA[0], run), rtol=0, atol=1e-5)


def test_a_long_run_is_cut_into_as_few_blocks() -> None:
    """A run of 300,000 steps, and a table of every one of them, keep the same precision with few terms."""
    steps = (1_000, 10_000, 50_000, 200_000, 250_000, 300_000)
    spec = {
        "kind": "wsd",
        "total_steps": 300_000,
        "decay_start": 240_000,
        "warmup_steps": 2_000,
        "peak_lr": 1e-3,
    }
    run = run_of(spec, steps)
    features = LAW.prepare([run])
    assert features.n_terms < 1_000
    exact = by_single_steps(THETA[0], run)
    np.testing.assert_allclose(LAW.predict(THETA, features)[0], exact, rtol=0, atol=1e-5)
    table = run_of({"kind": "values", "lr": run.schedule.lr(np.arange(1, 300_001)).tolist()}, steps)
    np.testing.assert_allclose(LAW.predict(THETA, LAW.prepare([table]))[0], exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "theta",
    [THETA, moved(b=1.0, g=1.2, p=0.4, z=0.2), moved(C=100.0, b=0.3, g=-0.5, c=30.0, l=5.0)],
    ids=["usual", "b = 1", "far"],
)
def test_the_jacobian_equals_differences(theta: np.ndarray) -> None:
    """Every derivative agrees with differences of fourth order, through the norm and the clock."""
    features = LAW.prepare(all_runs())
    values, jacobian = LAW.jacobian(theta, features)
    np.testing.assert_allclose(values, LAW.predict(theta, features), rtol=1e-13)
    for index in range(len(NAMES)):
        step = np.zeros_like(theta)
        step[0, index] = 1e-3 * max(abs(theta[0, index]), 0.01)
        near, far = (
            (LAW.predict(theta + k * step, features) - LAW.predict(theta - k * step, features))[0]
            for k in (1, 2)
        )
        difference = (8 * near - far) / (12 * step[0, index])
        largest = np.abs(difference).max()
        np.testing.assert_allclose(jacobian[0, :, index], difference, rtol=1e-6, atol=1e-7 * largest)


def test_runs_do_not_touch_each_other() -> None:
    """A run among others, whatever they begin and end with, is predicted as alone."""
    runs = all_runs()
    together, slopes = LAW.jacobian(THETA, LAW.prepare(runs))
    parts = [LAW.jacobian(THETA, LAW.prepare([run])) for run in runs]
    np.testing.assert_allclose(together, np.concatenate([part[0] for part in parts], axis=1), rtol=1e-11)
    alone = np.concatenate([part[1] for part in parts], axis=1)
    np.testing.assert_allclose(slopes, alone, rtol=1e-7, atol=1e-10)


def test_torch_gives_what_numpy_gives() -> None:
    """The same code on torch tensors in float64 agrees to rounding."""
    torch = pytest.importorskip("torch")
    theta = np.concatenate([THETA, moved(C=5.0, c=4.0)])
    features = LAW.prepare(all_runs())
    on_torch = with_arrays(features, torch.from_numpy)
    values, jacobian = (np.asarray(found) for found in LAW.jacobian(torch.from_numpy(theta), on_torch))
    expected, slopes = LAW.jacobian(theta, features)
    np.testing.assert_allclose(values, expected, rtol=1e-11)
    np.testing.assert_allclose(jacobian, slopes, rtol=1e-7, atol=1e-9)
    predicted = np.asarray(LAW.predict(torch.from_numpy(theta), on_torch))
    np.testing.assert_allclose(predicted, expected, rtol=1e-11)


def with_arrays(features: NormBlocks, convert: Any) -> NormBlocks:
    arrays = {
        field.name: convert(getattr(features, field.name))
        for field in dataclasses.fields(features)
        if isinstance(getattr(features, field.name), np.ndarray)
    }
    return dataclasses.replace(features, **arrays)


@pytest.mark.parametrize("theta", [THETA, moved(c=1e3, l=10.0), moved(c=1e-3, l=0.05, g=1.5)])
def test_ten_million_steps_stay_in_range(theta: np.ndarray) -> None:
    """A run of 1e7 steps at 2e-3 and a decay of 1 has finite derivatives, and the norm R^2 = c eta / (2 l wd)."""
    spec = {"kind": "constant", "total_steps": 10_000_000, "peak_lr": 2e-3, "warmup_steps": 2000}
    decaying = {"kind": "wsd", "decay_start": 8_000_000} | spec | {"kind": "wsd"}
    steps = (2_000, 100_000, 8_000_000, 9_000_000, 10_000_000)
    features = LAW.prepare([run_of(spec, steps, decay=1.0), run_of(decaying, steps, decay=1.0)])
    values, jacobian = LAW.jacobian(theta, features)
    assert np.isfinite(values).all()
    assert np.isfinite(jacobian).all()
    end = norms(_rates(theta), features, slopes=False).log_end[0, features.at[4]]
    c, decay = theta[0, NAMES.index("c")], theta[0, NAMES.index("l")]
    assert end == pytest.approx(np.log(c * 2 / (2 * decay)) / 2, rel=1e-9, abs=1e-9)


def peaks_of(*peaks: float) -> NormBlocks:
    return LAW.prepare([run_of(SPECS["cosine to zero"] | {"peak_lr": peak}) for peak in peaks])


def test_priors_follow_the_number_of_peaks() -> None:
    """One or two peaks lean on the priors most; three or more show D themselves; jitter makes no new peak."""
    assert LAW.priors(peaks_of(1e-3, 2e-3)).strength == 0.03
    assert LAW.priors(peaks_of(1e-3, 1.0001e-3)) == LAW.priors(peaks_of(1e-3))
    three = LAW.priors(peaks_of(5e-4, 1e-3, 2e-3))
    assert three.strength == 0.015
    assert three.centres["D"][1] > LAW.priors(peaks_of(1e-3, 2e-3)).centres["D"][1]
    logs = {parameter.name: parameter for parameter in LAW.parameters}
    assert all(logs[name].lower < centre < logs[name].upper for name, (centre, _) in three.centres.items())


def test_one_peak_leaves_what_it_does_undetermined() -> None:
    """Runs of one peak hold D, which is then part of L0, and name c, l and D as undetermined."""
    assert LAW.held(peaks_of(1e-3)) == {"D": 0.0}
    assert LAW.undetermined(peaks_of(1e-3)).keys() == {"c", "l", "D"}
    assert not LAW.held(peaks_of(1e-3, 2e-3)) | LAW.undetermined(peaks_of(1e-3, 2e-3))
    assert LAW.undetermined(peaks_of(1e-3), fixed=("c", "D")).keys() == {"l"}


def test_without_annealing_its_parameters_are_undetermined() -> None:
    """Constant rates of two peaks do not show the memory; of one peak, not even the noise."""
    runs = [run_of(SPECS["constant"] | {"peak_lr": peak}) for peak in (1e-3, 2e-3)]
    assert LAW.undetermined(LAW.prepare(runs)).keys() == {"C", "b", "g"}
    assert LAW.undetermined(LAW.prepare(runs[:1])).keys() == {"B", "C", "b", "g", "p", "z", "c", "l", "D"}


def test_a_run_without_weight_decay_stated_is_refused() -> None:
    """The refusal says which run lacks what."""
    unstated = dataclasses.replace(run_of(SPECS["jump"]), weight_decay=None)
    with pytest.raises(UnusableData, match="run 2 of 2 states no weight_decay of the kind lr_scaled"):
        LAW.prepare([run_of(SPECS["jump"]), unstated])


def test_a_log_that_jitters_is_a_constant_rate() -> None:
    """Noise of 1e-9 in logged rates changes no prediction, and makes no thousands of drops."""
    rates = 1e-3 * (1 + 1e-9 * np.random.default_rng(0).standard_normal(8000))
    log = LAW.prepare([run_of({"kind": "values", "lr": rates.tolist()})])
    constant = LAW.prepare([run_of({"kind": "constant", "total_steps": 8000, "peak_lr": 1e-3})])
    np.testing.assert_allclose(LAW.predict(THETA, log), LAW.predict(THETA, constant), rtol=1e-6)
    assert log.n_terms < 3_000
    assert "C" in LAW.undetermined(log)


def test_starts_lie_inside_the_bounds() -> None:
    """Every start has its nonlinear parameters inside their bounds."""
    theta = LAW.grid(peaks_of(1e-3, 2e-3), 12)
    inside = [(theta[:, i] >= p.lower) & (theta[:, i] <= p.upper) for i, p in enumerate(LAW.parameters)]
    assert np.all(inside)
    assert len(theta) >= 12


def test_the_memory_of_the_norm_follows_from_weight_decay() -> None:
    """The norm forgets in 1/(l wd) thousand steps at lr 1e-3, where the runs have one weight decay."""
    unit, steps, needs = LAW.derived(THETA, all_runs())["norm_memory_steps"]
    assert (unit, needs) == ("steps at lr 1e-3", ("l",))
    assert steps[0] == pytest.approx(1000 / (0.6 * 0.1))
    assert not LAW.derived(THETA, [run_of(SPECS["jump"]), run_of(SPECS["jump"], decay=0.2)])


def test_points_may_lie_anywhere() -> None:
    """A point at the first step of a warm-up from zero, where no area is yet, has a finite loss."""
    run = PlannedRun(
        np.array([1, 2, 50]), Schedule(schedule_from_spec(SPECS["constant"]).pieces, 300), weight_decay=0.1
    )
    values, jacobian = LAW.jacobian(THETA, LAW.prepare([run]))
    assert np.isfinite(values).all()
    assert np.isfinite(jacobian).all()
