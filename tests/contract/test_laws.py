"""What every law in `LAWS` promises: one suite, run over all of them.

A law joins by one entry in `TRUTHS`: parameters that the runs of `runs_of` determine.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from isoloss.fitting import fit
from isoloss.laws import LAWS
from isoloss.observations import Curve
from isoloss.schedules import Schedule, schedule_from_spec

TRUTHS: dict[str, dict[str, float]] = {
    "lr_annealing": {"L0": 2.4, "A": 0.5, "alpha": 0.48, "C": 0.6, "lambda": 0.997, "B": 40.0, "beta": 0.3},
}

WARMED = {"warmup_steps": 500, "peak_lr": 1e-3}
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"kind": "constant", "total_steps": 12_000},
    {"kind": "cosine", "total_steps": 8_000, "end_lr": 1e-4},
    {"kind": "wsd", "total_steps": 10_000, "decay_start": 8_000},
    {"kind": "two_stage", "total_steps": 9_000, "switch_step": 5_000, "second_lr": 3e-4},
)
SIZES = (2e7, 6e7, 2e8)


def theta_of(name: str) -> np.ndarray:
    return np.array([[TRUTHS[name][parameter.name] for parameter in LAWS[name].parameters]])


def blank_runs() -> list[Curve]:
    """Runs of three sizes under four schedules, whose losses are still to be written."""
    runs = []
    for size in SIZES:
        for spec in SCHEDULES:
            schedule = schedule_from_spec(spec | WARMED)
            step = np.arange(600, schedule.total_steps + 1, 100)
            runs.append(Curve(f"{spec['kind']}-{size:g}", step, np.ones(step.size), schedule, size, "total"))
    return runs


def runs_of(name: str) -> list[Curve]:
    """Noiseless runs that follow the law exactly."""
    law = LAWS[name]
    blank = blank_runs()
    losses = [law.predict(theta_of(name), law.prepare([run]))[0] for run in blank]
    return [dataclasses.replace(run, loss_nats=loss) for run, loss in zip(blank, losses, strict=True)]


every_law = pytest.mark.parametrize("name", sorted(LAWS))


def test_every_law_is_in_the_suite() -> None:
    """A law without a truth to recover is not in the registry."""
    assert TRUTHS.keys() == LAWS.keys()


@every_law
def test_a_law_describes_itself(name: str) -> None:
    """Formula, reference, requirements, and a unit, bounds and meaning for every parameter."""
    law = LAWS[name]
    described = law.describe()
    assert law.name == name
    assert described["formula"]
    assert "arXiv" in described["reference"] or "doi" in described["reference"]
    assert described["requires"]
    assert all(p.unit and p.meaning and p.lower < p.upper for p in law.parameters)
    assert set(law.optional) <= {p.name for p in law.parameters}


@every_law
def test_the_jacobian_equals_finite_differences(name: str) -> None:
    """The analytic derivatives of every parameter agree with differences of the prediction."""
    law, theta = LAWS[name], theta_of(name)[0]
    features = law.prepare(blank_runs())
    values, jacobian = law.jacobian(theta[None], features)
    np.testing.assert_allclose(values, law.predict(theta[None], features), rtol=1e-13)
    for index, parameter in enumerate(law.parameters):

        def moved(value: np.ndarray, index: int = index) -> np.ndarray:
            return law.predict(np.array([[*theta[:index], value[0], *theta[index + 1 :]]]), features)[0]

        room = min(theta[index] - parameter.lower, parameter.upper - theta[index], abs(theta[index]))
        difference = approx_fprime(theta[index : index + 1], moved, 1e-6 * room)[:, 0]
        np.testing.assert_allclose(
            jacobian[0, :, index], difference, rtol=1e-3, atol=1e-4 * np.abs(difference).max()
        )


@every_law
def test_members_are_independent(name: str) -> None:
    """A member of a batch gets what it would get alone."""
    law, theta = LAWS[name], theta_of(name)
    features = law.prepare(blank_runs())
    batch = np.concatenate([theta * factor for factor in (0.97, 0.98, 1.0)])
    together, jacobians = law.jacobian(batch, features)
    for member in range(len(batch)):
        alone, jacobian = law.jacobian(batch[member : member + 1], features)
        np.testing.assert_allclose(together[member], alone[0], rtol=1e-12)
        np.testing.assert_allclose(jacobians[member], jacobian[0], rtol=1e-9, atol=1e-12)


@every_law
def test_the_basis_times_the_linear_parameters_is_the_prediction(name: str) -> None:
    """Variable projection solves the law itself."""
    law, theta = LAWS[name], theta_of(name)
    features = law.prepare(blank_runs())
    linear = [index for index, parameter in enumerate(law.parameters) if parameter.enters_linearly]
    rebuilt = law.basis(theta, features) @ theta[0, linear]
    np.testing.assert_allclose(rebuilt, law.predict(theta, features), rtol=1e-12)


@every_law
def test_a_law_recovers_its_parameters_from_its_own_data(name: str) -> None:
    """Noiseless data give the true parameters back, and a sound verdict."""
    found = fit(name, runs_of(name), bootstrap=40)
    for parameter, truth in TRUTHS[name].items():
        assert found.parameters[parameter].value == pytest.approx(truth, rel=2e-3), parameter
    assert found.objective < 1e-12
    assert found.verdict == "sound", found.reasons


@every_law
def test_a_prediction_of_own_data_is_exact(name: str) -> None:
    """A schedule that was not fitted is predicted from noiseless data to 1e-5 nats."""
    law = LAWS[name]
    found = fit(name, runs_of(name), bootstrap=0)
    spec = {"kind": "linear", "total_steps": 11_000} | WARMED
    predicted = found.predict(schedule=spec, n_params=SIZES[1], steps=[700, 5_000, 11_000])
    features = law.prepare_prediction(schedule_from_spec(spec), [700, 5_000, 11_000], SIZES[1])
    np.testing.assert_allclose(predicted.value, law.predict(theta_of(name), features)[0], atol=1e-5)


def with_lr_scaled(runs: list[Curve], factor: float) -> list[Curve]:
    """The same runs with learning rates in another unit."""
    names = ("peak_lr", "end_lr", "second_lr")

    def scaled(schedule: Schedule) -> Schedule:
        spec = dict(schedule.spec or {})
        return schedule_from_spec(spec | {key: spec[key] * factor for key in names if key in spec})

    return [dataclasses.replace(run, schedule=scaled(run.schedule)) for run in runs]


@every_law
def test_predictions_do_not_depend_on_the_unit_of_the_learning_rate(name: str) -> None:
    """Learning rates a hundred times larger everywhere change no predicted loss."""
    runs = [
        dataclasses.replace(run, loss_nats=run.loss_nats * (1 + 1e-3 * np.sin(run.step)))
        for run in runs_of(name)
    ]
    spec = {"kind": "linear", "total_steps": 11_000} | WARMED
    one = fit(name, runs, bootstrap=0).predict(schedule=spec, n_params=SIZES[0])
    other = fit(name, with_lr_scaled(runs, 100.0), bootstrap=0).predict(
        schedule=spec | {"peak_lr": 0.1}, n_params=SIZES[0]
    )
    np.testing.assert_allclose(one.value, other.value, atol=1e-4)


@every_law
def test_loss_falls_with_size_and_tends_to_a_floor(name: str) -> None:
    """More parameters never raise the predicted loss, and it stays above the law's floor."""
    law, theta = LAWS[name], theta_of(name)
    schedule = schedule_from_spec(SCHEDULES[0] | WARMED)
    losses = [
        law.predict(theta, law.prepare_prediction(schedule, [12_000], size))[0, 0]
        for size in np.geomspace(1e6, 1e15, 20)
    ]
    assert np.all(np.diff(losses) < 0)
    assert losses[-1] > TRUTHS[name]["L0"]


def test_at_constant_learning_rate_loss_falls_monotonically() -> None:
    """Without annealing the law of two areas is a falling power law."""
    law = LAWS["lr_annealing"]
    schedule = schedule_from_spec(SCHEDULES[0] | WARMED)
    features = law.prepare_prediction(schedule, np.arange(1, 12_001), SIZES[0])
    assert np.all(np.diff(law.predict(theta_of("lr_annealing"), features)[0]) < 0)
