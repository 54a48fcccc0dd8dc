"""What every law in `LAWS` promises: one suite, run over all of them.

A law joins by one entry in `TRUTHS`: parameters that the runs of `blank` determine.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from isoloss.fitting import Fit, fit
from isoloss.laws import LAWS, CurveLaw, Features, StagedLaw, SweepLaw, TableLaw
from isoloss.observations import Curve, PlannedRun, RunTable
from isoloss.schedules import Schedule, schedule_from_spec

# fmt: off
TRUTHS: dict[str, dict[str, float]] = {
    "lr_annealing": {"L0": 2.4, "A": 0.5, "alpha": 0.48, "C": 0.6, "lambda": 0.997, "B": 40.0, "beta": 0.3},
    "multi_power": {
        "L0": 2.4, "A": 0.5, "alpha": 0.5, "B": 150.0, "C": 0.3, "beta": 0.6, "gamma": 0.65,
    },
    "concave_memory": {
        "L0": 2.6, "A": 0.9, "a": 0.5, "B": 0.3, "C": 15.0, "b": 0.6, "g": 0.3, "p": 0.75, "z": -0.05, "T": 0.0,
    },
    "effective_lr": {
        "L0": 2.7, "A": 0.58, "a": 0.486, "B": 0.57, "C": 13.9, "b": 1.02, "g": 0.24, "p": 0.736,
        "c": 0.85, "l": 0.553, "z": -0.042, "D": 0.0031,
    },
    "power_law": {"E": 1.8, "coefficient": 900.0, "exponent": -0.31},
    "chinchilla": {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.31},
    "kaplan": {"N_c": 8.8e13, "alpha_N": 0.076, "D_c": 5.4e13, "alpha_D": 0.095},
    "power_law_compute": {"E": 1.7, "coefficient": 200.0, "exponent": -0.12},
    "broken_power_law": {"E": 1.5, "A": 200.0, "a": 0.12, "C_b": 5e18, "b": 0.25, "f": 0.5},
    "steps_to_target": {
        "a_coefficient": 1.3, "a_exponent_n_params": 0.38, "b_coefficient": 18.0, "b_exponent_n_params": 1.0,
    },
    "critical_batch": {"coefficient": 4.0, "exponent": 0.46},
    "timescale": {"coefficient": 1.1, "exponent": -0.53},
    "optimal_batch": {"coefficient": 20.0, "exponent": 0.45, "exponent_n_params": 0.1},
    "optimal_lr": {"coefficient": 1.8, "exponent_n_params": -0.6, "exponent_n_tokens": 0.25},
    "lr_of_batch": {"eta_inf": 2e-3, "exponent_n_params": -0.6, "exponent_n_tokens": 0.25, "B0": 4e5},
    "noise_scale": {"coefficient": 30.0, "exponent": 0.5},
    "rl_compute": {"R0": 0.04, "A": 0.7, "C_mid": 3e18, "B": 1.2},
    "recipe_comparison": {"E": 1.7, "coefficient": 200.0, "exponent": -0.12},
    "three_term": {"E": 1.6, "A": 400.0, "alpha": 0.34, "B": 40.0, "beta": 0.5, "C": 20.0, "gamma": 0.3},
}
# fmt: on

WARMED = {"warmup_steps": 500, "peak_lr": 1e-3}
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"kind": "constant", "total_steps": 12_000},
    {"kind": "cosine", "total_steps": 8_000, "end_lr": 1e-4},
    {"kind": "wsd", "total_steps": 10_000, "decay_start": 8_000},
    {"kind": "two_stage", "total_steps": 9_000, "switch_step": 5_000, "second_lr": 3e-4},
)
PEAKS = (5e-4, 1e-3, 2e-3)
SIZES = (2e7, 6e7, 2e8)
BATCHES = np.array([2.0**16, 2.0**18, 2.0**20])
UNSEEN = {"kind": "linear", "total_steps": 11_000} | WARMED
AT = [700, 5_000, 11_000]

FEW_STARTS = {"multi_power": "The priors leave one optimum, which all of them reach."}
"""Laws whose search is not widened, with what they say of it."""

every_law = pytest.mark.parametrize("name", sorted(LAWS))
every_curve_law = pytest.mark.parametrize(
    "name", sorted(name for name, law in LAWS.items() if isinstance(law, CurveLaw))
)
every_table_law = pytest.mark.parametrize(
    "name", sorted(name for name, law in LAWS.items() if isinstance(law, TableLaw) and law.predicts_outcomes)
)
every_fitted_law = pytest.mark.parametrize(
    "name", sorted(name for name, law in LAWS.items() if not isinstance(law, SweepLaw | StagedLaw))
)
"""Laws that are fitted to runs themselves; the others are tried in test_sweeps.py and test_staged.py."""


def theta_of(name: str) -> np.ndarray:
    return np.array([[TRUTHS[name][parameter.name] for parameter in LAWS[name].parameters]])


def has_sizes(name: str) -> bool:
    return "beta" in LAWS[name].optional


def blank_curves(name: str) -> list[Curve]:
    """Runs under four schedules, of three sizes or peaks where the law knows them, with losses to be written."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    sizes = SIZES if has_sizes(name) else SIZES[:1]
    peaks = PEAKS if law.carries_over_peaks else PEAKS[1:2]
    runs = []
    for size in sizes:
        for peak in peaks:
            for spec in SCHEDULES:
                schedule = schedule_from_spec(spec | WARMED | {"peak_lr": peak})
                step = np.arange(600, schedule.total_steps + 1, 100)
                label = f"{spec['kind']}-{size:g}-{peak:g}"
                ones = np.ones(step.size)
                runs.append(Curve(label, step, ones, schedule, size, "total", weight_decay=0.1))
    return runs


def blank_table() -> RunTable:
    """Runs over two decades of sizes and of tokens, with three batches among them."""
    size, data = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    row = np.arange(size.size)
    columns = {"n_params": size, "n_tokens": data, "batch_tokens": BATCHES[(row + row // 6) % 3]}
    return RunTable(tuple(f"run-{one:02}" for one in row), columns, np.ones(size.size), n_params_kind="total")


def columns_of(name: str, table: RunTable) -> dict[str, np.ndarray]:
    law = LAWS[name]
    assert isinstance(law, TableLaw)
    return {column: table.column(column) for column in law.columns}


def features_of(name: str) -> Features:
    law = LAWS[name]
    if isinstance(law, TableLaw):
        return law.prepare(columns_of(name, blank_table()))
    return law.prepare(blank_curves(name))


def observed(name: str) -> list[Curve] | RunTable:
    """Noiseless observations that follow the law exactly."""
    law = LAWS[name]
    if isinstance(law, TableLaw):
        outcome = law.predict(theta_of(name), features_of(name))[0]
        return dataclasses.replace(blank_table(), columns=columns_of(name, blank_table()), outcome=outcome)
    blank = blank_curves(name)
    losses = [law.predict(theta_of(name), law.prepare([run]))[0] for run in blank]
    return [dataclasses.replace(run, loss_nats=loss) for run, loss in zip(blank, losses, strict=True)]


def noisy(name: str) -> list[Curve] | RunTable:
    """The same with a part in a thousand of what the law does not know."""
    exact = observed(name)
    if isinstance(exact, RunTable):
        return dataclasses.replace(
            exact, outcome=exact.outcome * (1 + 1e-3 * np.sin(np.arange(exact.n_runs)))
        )
    return [
        dataclasses.replace(run, loss_nats=run.loss_nats * (1 + 1e-3 * np.sin(run.step))) for run in exact
    ]


def test_every_law_is_in_the_suite() -> None:
    """A law without a truth to recover is not in the registry."""
    assert TRUTHS.keys() == LAWS.keys()


@every_law
def test_a_law_describes_itself(name: str) -> None:
    """Formula, reference, requirements, remedy, and a unit, bounds and meaning for every parameter."""
    law = LAWS[name]
    described = law.describe()
    names = {parameter.name for parameter in law.parameters}
    assert law.name == name
    assert described["formula"]
    assert described["reference"]
    assert described["requires"]
    assert law.remedy
    assert all(p.unit and p.meaning and p.lower < p.upper for p in law.parameters)
    assert set(law.optional) <= names
    assert all(pair <= names for pair in law.remedies)


@every_law
def test_a_search_can_be_widened(name: str) -> None:
    """As many different starts inside the bounds as are asked for, or the law says why a few are enough."""
    law = LAWS[name]
    theta = law.grid(features_of(name), 50)
    free = [index for index, parameter in enumerate(law.parameters) if not parameter.enters_linearly]
    inside = [(law.parameters[i].lower < theta[:, i]) & (theta[:, i] < law.parameters[i].upper) for i in free]
    assert np.all(inside)
    if name in FEW_STARTS:
        assert FEW_STARTS[name] in " ".join((law.grid.__doc__ or "").split())
    else:
        assert len(np.unique(theta, axis=0)) >= 50


@every_law
def test_the_jacobian_equals_finite_differences(name: str) -> None:
    """The analytic derivatives of every parameter agree with differences of the prediction."""
    law, theta = LAWS[name], theta_of(name)[0]
    features = features_of(name)
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
    features = features_of(name)
    batch = np.concatenate([theta * factor for factor in (0.97, 0.98, 1.0)])
    together, jacobians = law.jacobian(batch, features)
    for member in range(len(batch)):
        alone, jacobian = law.jacobian(batch[member : member + 1], features)
        np.testing.assert_allclose(together[member], alone[0], rtol=1e-12)
        np.testing.assert_allclose(jacobians[member], jacobian[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(LAWS) - {"kaplan"}))  # where nothing enters linearly
def test_the_basis_times_the_linear_parameters_is_the_prediction(name: str) -> None:
    """Variable projection solves the law itself."""
    law, theta = LAWS[name], theta_of(name)
    features = features_of(name)
    linear = [index for index, parameter in enumerate(law.parameters) if parameter.enters_linearly]
    rebuilt = law.basis(theta, features) @ theta[0, linear]
    np.testing.assert_allclose(rebuilt, law.predict(theta, features), rtol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "cuda"])
@every_fitted_law
def test_torch_gives_the_same_numbers(name: str, backend: str) -> None:
    """The law and the solver are the same code on tensors: the optimum agrees to 1e-6."""
    torch = pytest.importorskip("torch")
    if backend == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    one = fit(name, noisy(name), bootstrap=0)
    other = fit(name, noisy(name), bootstrap=0, backend=backend)
    np.testing.assert_allclose(other.theta, one.theta, rtol=1e-6, atol=1e-9)
    assert other.objective == pytest.approx(one.objective, rel=1e-9)


@every_fitted_law
def test_a_law_recovers_its_parameters_from_its_own_data(name: str) -> None:
    """Noiseless data give their truth back, with a sound verdict, where priors leave them alone."""
    found = fit(name, observed(name), bootstrap=40, prior_strength=1e-8)
    for parameter, truth in TRUTHS[name].items():
        if parameter in found.parameters:
            assert found.parameters[parameter].value == pytest.approx(truth, rel=2e-3), parameter
    assert found.objective < 1e-12
    assert found.verdict == "sound", found.reasons


@every_fitted_law
def test_the_score_on_runs_predicted_from_others_is_part_of_every_fit(name: str) -> None:
    """Noiseless data are predicted exactly, and it is said which runs were predicted."""
    found = fit(name, observed(name), bootstrap=0)
    assert found.holdout is not None
    assert found.holdout["predicted"]
    assert found.holdout["runs"]
    assert found.holdout["mean"]["mae"] < 1e-4


@every_fitted_law
def test_a_refit_from_an_earlier_fit_is_the_fit(name: str) -> None:
    """The same data give the earlier fit itself back; other data the optimum of a fit from nothing."""
    data = noisy(name)
    before = fit(name, observed(name), bootstrap=20)
    assert fit(name, observed(name), bootstrap=20, previous=before) is before
    fresh, warm = fit(name, data, bootstrap=0), fit(name, data, bootstrap=0, previous=before)
    assert warm.objective == pytest.approx(fresh.objective, rel=1e-5)


@every_curve_law
def test_a_prediction_of_own_data_is_exact(name: str) -> None:
    """A schedule that was not fitted is predicted from noiseless data to 1e-5 nats."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    found = fit(name, observed(name), bootstrap=0)
    predicted = found.predict(schedule=UNSEEN, n_params=SIZES[0], steps=AT)
    run = PlannedRun(np.array(AT), schedule_from_spec(UNSEEN), SIZES[0], weight_decay=0.1)
    np.testing.assert_allclose(predicted.value, law.predict(theta_of(name), law.prepare([run]))[0], atol=1e-5)


def with_lr_scaled(runs: list[Curve], factor: float) -> list[Curve]:
    """The same runs with learning rates in another unit."""
    names = ("peak_lr", "end_lr", "second_lr")

    def scaled(schedule: Schedule) -> Schedule:
        spec = dict(schedule.spec or {})
        return schedule_from_spec(spec | {key: spec[key] * factor for key in names if key in spec})

    return [dataclasses.replace(run, schedule=scaled(run.schedule)) for run in runs]


@every_curve_law
def test_predictions_do_not_depend_on_the_unit_of_the_learning_rate(name: str) -> None:
    """Learning rates a hundred times larger everywhere change no predicted loss."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    if law.carries_over_peaks:
        pytest.skip("its priors and units are those of learning rates of AdamW")
    runs = noisy(name)
    assert isinstance(runs, list)
    one = fit(name, runs, bootstrap=0).predict(schedule=UNSEEN, n_params=SIZES[0])
    other = fit(name, with_lr_scaled(runs, 100.0), bootstrap=0).predict(
        schedule=UNSEEN | {"peak_lr": 0.1}, n_params=SIZES[0]
    )
    np.testing.assert_allclose(one.value, other.value, atol=1e-4)


@every_curve_law
def test_at_constant_learning_rate_loss_falls_monotonically(name: str) -> None:
    """Without annealing every law of curves falls."""
    law = LAWS[name]
    assert isinstance(law, CurveLaw)
    run = PlannedRun(
        np.arange(1_000, 12_001), schedule_from_spec(SCHEDULES[0] | WARMED), SIZES[0], weight_decay=0.1
    )
    assert np.all(np.diff(law.predict(theta_of(name), law.prepare([run]))[0]) < 0)


@pytest.mark.parametrize("name", [name for name in sorted(LAWS) if has_sizes(name)])
def test_loss_falls_with_size_and_tends_to_a_floor(name: str) -> None:
    """More parameters never raise the predicted loss, and it stays above the law's floor."""
    law, theta = LAWS[name], theta_of(name)
    schedule = schedule_from_spec(SCHEDULES[0] | WARMED)
    losses = [
        law.predict(theta, law.prepare([PlannedRun(np.array([12_000]), schedule, size)]))[0, 0]
        for size in np.geomspace(1e6, 1e15, 20)
    ]
    assert np.all(np.diff(losses) < 0)
    assert losses[-1] > TRUTHS[name]["L0"]


@every_table_law
def test_loss_falls_with_every_column_and_tends_to_a_floor(name: str) -> None:
    """More of everything never raises the predicted loss, and it stays above E, where there is one."""
    law, theta = LAWS[name], theta_of(name)
    assert isinstance(law, TableLaw)
    more = np.geomspace(1e6, 1e60, 40)
    grown = {column: more**2 if column == "n_tokens" else more for column in law.columns}
    losses = law.predict(theta, law.prepare(grown))[0]
    assert np.all(np.diff(losses) <= 0)
    assert np.all(np.diff(losses[:10]) < 0)
    assert losses[-1] == pytest.approx(TRUTHS[name].get("E", 0.0), rel=1e-2, abs=1e-2)


@every_table_law
def test_predictions_do_not_depend_on_the_unit_of_a_count(name: str) -> None:
    """Counts in thousands change no predicted outcome."""
    table = noisy(name)
    assert isinstance(table, RunTable)
    columns = {key: value / 1e3 for key, value in columns_of(name, table).items()}
    thousands = dataclasses.replace(table, columns=columns)
    one, other = (fit(name, data, bootstrap=0) for data in (table, thousands))
    config = {"n_params": 1e10, "n_tokens": 1e12, "batch_tokens": 1e6, "compute_flops": 6e22}
    asked = {key: config[key] for key in LAWS[name].columns}  # type: ignore[attr-defined]
    scaled = {key: value / 1e3 for key, value in asked.items()}
    value: Fit = one
    np.testing.assert_allclose(
        value.predict(config=asked).value, other.predict(config=scaled).value, rtol=1e-6
    )
