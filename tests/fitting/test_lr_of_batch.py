"""The best learning rate over the batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

import isoloss
from isoloss.errors import InvalidInput, Unidentified, UnusableData
from isoloss.fitting import Fit
from isoloss.laws import LAWS
from isoloss.laws.lr_of_batch import LROfBatch
from isoloss.observations import RunTable
from tests.fitting.synthetic_batches import B0, BATCHES, SITES, best_lr, rising

DATA = Path(__file__).parents[3] / "shared" / "data"
ONE = SITES[:1]
SWEPT = ("n_params", "n_tokens", "batch_tokens")
FORMS = ("adam", "sgd", "sqrt", "linear")
every_form = pytest.mark.parametrize("form", FORMS)


def fitted(runs: RunTable, **options: Any) -> Fit:
    return isoloss.fit("lr_of_batch", runs, **options)


def said(found: Fit) -> str:
    return " ".join(found.reasons)


@every_form
def test_the_jacobian_of_every_form_equals_finite_differences(form: str) -> None:
    """Each convention brings its own parameters and their derivatives."""
    law = LAWS["lr_of_batch"].under(form)
    assert isinstance(law, LROfBatch)
    columns = {"n_params": [1e8, 1e9, 4e9], "n_tokens": [2e9, 3e10, 1e11], "batch_tokens": [4e4, 3e5, 2e6]}
    features = law.prepare({name: np.array(values) for name, values in columns.items()})
    theta = np.array([2e-3, -0.5, 0.2, B0])[: len(law.parameters)]
    predicted, jacobian = law.jacobian(theta[None], features)
    np.testing.assert_allclose(predicted, law.predict(theta[None], features))
    for index, at in enumerate(theta):

        def moved(value: np.ndarray, index: int = index) -> np.ndarray:
            return law.predict(np.array([[*theta[:index], value[0], *theta[index + 1 :]]]), features)[0]

        difference = approx_fprime(theta[index : index + 1], moved, 1e-6 * abs(at))[:, 0]
        np.testing.assert_allclose(jacobian[0, :, index], difference, rtol=1e-4)


def test_forms_are_what_they_say() -> None:
    """A saturating form is its power of small batches and stops at large ones; the others go on."""
    columns = {
        "n_params": np.full(3, 1e9),
        "n_tokens": np.full(3, 2e10),
        "batch_tokens": np.array([1.0, 4.0, 1e15]),
    }
    for form, power in zip(FORMS, (0.5, 1.0, 0.5, 1.0), strict=True):
        law = LAWS["lr_of_batch"].under(form)
        assert isinstance(law, LROfBatch)
        theta = np.array([[1.0, 0.0, 0.0, 1e6]])[:, : len(law.parameters)]
        one, four, most = law.predict(theta, law.prepare(columns))[0]
        assert four / one == pytest.approx(4**power, rel=1e-5)
        assert most == pytest.approx(1.0 if law.saturates else 1e15**power, rel=1e-6)


@every_form
def test_the_true_form_predicts_left_out_batches_best(form: str) -> None:
    """The error of batches left out is there for every form, and least for the true one or its kin."""
    found = fitted(rising(0, sites=SITES[:3], form=form))
    readings = found.diagnostics["readings"]
    kin = {"adam": "adam", "sgd": "sgd", "sqrt": "adam", "linear": "sgd"}[form]
    assert readings.keys() == set(FORMS)
    assert min(readings, key=readings.get) in (form, kin)
    assert found.law.convention == kin
    assert "batches left out in turn are missed" in said(found)


def test_a_winner_is_named_with_by_how_much() -> None:
    """Where one form is better by more than chance, it is said which, and how much nearer it is."""
    reason = next(one for one in fitted(rising(0)).reasons if "left out in turn" in one)
    assert "adam wins" in reason
    assert "times nearer than sgd" in reason


@pytest.mark.parametrize("form", ["sqrt", "linear"])
def test_data_without_saturation_have_an_open_b0(form: str) -> None:
    """B0 and eta_inf are no numbers where all batches lie in the root or linear part; the lower limit of B0 is."""
    found = fitted(rising(0, form=form))
    assert found.verdict == "weak"
    assert "the data do not show saturation" in said(found)
    for name in ("eta_inf", "B0"):
        assert found.parameters[name].value is None
    assert found.parameters["B0"].profile is not None
    low, high = found.parameters["B0"].profile
    assert low is not None
    assert low > BATCHES[-1]
    assert high is None
    asked = {"n_params": 1e9, "n_tokens": 2e10, "batch_tokens": 2.0**24}
    told = found.predict(config=asked)
    truth = best_lr(*(np.array(one) for one in asked.values()), form)
    assert told.lower[0] < truth < 1.1 * told.upper[0]
    assert told.upper[0] / told.lower[0] > 1.1


def test_batches_in_the_saturated_part_say_so() -> None:
    """Where the learning rate does not grow with the batch, B0 is below a limit and eta_inf is known."""
    found = fitted(rising(0, batches=B0 * 2.0 ** np.arange(8, 14)), convention="adam")
    assert "does not grow with these batches" in said(found)
    assert found.parameters["B0"].value is None
    assert found.parameters["eta_inf"].value == pytest.approx(2e-3, rel=0.1)


def test_a_form_without_end_has_a_coefficient_and_no_b0() -> None:
    """Asked for the square root, a fit gives its coefficient."""
    found = fitted(rising(0, form="sqrt"), convention="sqrt")
    assert set(found.parameters) == {"coefficient", "exponent_n_params", "exponent_n_tokens"}
    assert found.parameters["coefficient"].value == pytest.approx(2e-3 / np.sqrt(B0), rel=0.1)
    assert Fit.from_document(found.as_document()).law.convention == "sqrt"


def test_every_site_has_its_own_eta_inf_and_every_sweep_its_optimum() -> None:
    """Groups say by size and data what large batches take, and by batch where the loss is least."""
    found = fitted(rising(0))
    sites = [one for one in found.groups if "batch_tokens" not in one["by"]]
    sweeps = [one for one in found.groups if "batch_tokens" in one["by"]]
    assert len(sites) == len(SITES)
    assert len(sweeps) == len(SITES) * len(BATCHES)
    for group in sweeps:
        truth = best_lr(*(np.array(one) for one in group["by"].values()))
        assert group["parameters"][0]["value"] == pytest.approx(truth, rel=0.25)
    for group in sites:
        eta, alone = group["parameters"]
        truth = best_lr(*(np.array(one) for one in group["by"].values()), np.array(1e30))
        assert eta["interval"][0] < truth * 1.05
        assert eta["interval"][1] > truth / 1.05
        assert alone["name"] == "B0_alone"
        assert alone["interval"][0] < 1.2 * B0
        assert alone["interval"][1] > B0 / 1.2


def test_sites_that_differ_in_b0_are_named() -> None:
    """A shared B0 is tested against one for each site, and the powers that these go with are given."""
    parts = [rising(1, sites=[site]) for site in SITES]
    runs = [
        (
            part.run_ids,
            part.columns | {"batch_tokens": part.columns["batch_tokens"] * 2.0 ** (2 * k)},
            part.outcome,
        )
        for k, part in enumerate(parts)
    ]
    columns = {name: np.concatenate([one[1][name] for one in runs]) for name in runs[0][1]}
    names = tuple(f"{k}-{name}" for k, one in enumerate(runs) for name in one[0])
    found = fitted(RunTable(names, columns, np.concatenate([one[2] for one in runs])))
    assert "B0 seems to differ between sites" in said(found)
    assert {one.name for one in found.derived} == {"B0_alone.exponent_n_params", "B0_alone.exponent_n_tokens"}
    assert not fitted(rising(1)).reasons[0].startswith("B0 seems")


def test_one_site_need_not_be_named_and_no_other_is_answered() -> None:
    """At one size and data a prediction asks for the batch alone; another size is refused."""
    found = fitted(rising(0, sites=ONE))
    size, data = ONE[0]
    told = found.predict(config={"batch_tokens": 3e5})
    assert told.value[0] == pytest.approx(best_lr(np.array(size), np.array(data), np.array(3e5)), rel=0.1)
    assert found.parameters["eta_inf"].value is not None
    with pytest.raises(Unidentified, match="seen runs with n_params of 1e"):
        found.predict(config={"n_params": 1e9, "n_tokens": data, "batch_tokens": 3e5})


def test_a_best_run_on_the_edge_of_its_sweep_is_left_out_and_named() -> None:
    """Censored sweeps are in the reasons, their runs among those left out."""
    runs = rising(0)
    size, data, batch, rate = (
        runs.column(one) for one in ("n_params", "n_tokens", "batch_tokens", "peak_lr")
    )
    cut = (batch == BATCHES[0]) & (rate > best_lr(size, data, batch))
    found = fitted(runs.only(np.flatnonzero(~cut)))
    assert found.diagnostics["n_sweeps"] == len(SITES) * (len(BATCHES) - 1)
    assert "with the best learning rate on the edge of the sweep: n_params" in said(found)
    assert all("the largest that was tried" in one["reason"] for one in found.left_out)


def test_runs_that_diverged_were_tried() -> None:
    """A diverged run beyond the best one shows that the best is not on the edge."""
    runs = rising(None)
    top = runs.column("peak_lr") > 1.01 * best_lr(*(runs.column(one) for one in SWEPT))
    silent = dataclasses.replace(runs, outcome=np.where(top, np.nan, runs.outcome))
    status = tuple("diverged" if one else "finished" for one in top)
    assert fitted(silent).verdict == "unidentified"
    flagged = fitted(dataclasses.replace(silent, labels={"status": status}))
    assert flagged.diagnostics["n_sweeps"] == len(SITES) * len(BATCHES)


@pytest.mark.parametrize(
    ("design", "reason"),
    [
        ({"batches": BATCHES[:1]}, "there is one batch alone"),
        ({"levels": 2}, "three are needed"),
        ({"levels": 1}, "three are needed"),
        ({"sites": [(1e8, 2e9), (2e8, 4e9), (4e8, 8e9)]}, "size and data grow together"),
    ],
)
def test_what_cannot_be_told_is_not_told(design: dict[str, Any], reason: str) -> None:
    """One batch, too few learning rates, or sites on one line: unidentified, with the reason, and no prediction."""
    found = fitted(rising(0, **design))
    assert found.verdict == "unidentified"
    assert reason in said(found)
    assert found.parameters["eta_inf"].value is None
    with pytest.raises(Unidentified):
        found.predict(config={"n_params": 1e9, "n_tokens": 2e10, "batch_tokens": 1e6})


def test_two_batches_test_nothing() -> None:
    """Two batches give a B0 that nothing stands against: weak at best."""
    found = fitted(rising(0, batches=BATCHES[[0, 7]]))
    assert found.verdict != "sound"
    assert "two batches give one B0" in said(found)
    assert "too few batches to leave one out" in said(found)


def test_losses_that_only_fall_or_rise_have_no_optimum() -> None:
    """A loss that is highest in the middle of its sweeps has no best learning rate."""
    runs = rising(None)
    least = runs.outcome.reshape(-1, 7).min(axis=1).repeat(7)
    bent = dataclasses.replace(runs, outcome=least * np.exp(0.002 - 0.2 * np.log(runs.outcome / least)))
    peak = bent.outcome.reshape(-1, 7)
    peak[:, 3] = peak.min(axis=1) - 1e-5
    found = fitted(dataclasses.replace(bent, outcome=peak.ravel()))
    assert found.verdict in ("unidentified", "weak")


@pytest.mark.parametrize("value", [np.nan, -1.0, 0.0])
def test_runs_with_impossible_numbers_are_left_out_by_name(value: float) -> None:
    """A batch that is missing, negative or zero keeps its run out, not the others."""
    runs = rising(0)
    batch = runs.columns["batch_tokens"].copy()
    batch[0] = value
    found = fitted(dataclasses.replace(runs, columns={**runs.columns, "batch_tokens": batch}))
    assert "run-0000" in {one["run_id"] for one in found.left_out}
    assert found.verdict == "sound"


def test_a_table_without_learning_rates_is_refused() -> None:
    """Runs that do not say their learning rate cannot be swept over it."""
    runs = rising(0)
    without = {name: values for name, values in runs.columns.items() if name != "peak_lr"}
    with pytest.raises(UnusableData, match=r"it has no config\.peak_lr"):
        fitted(dataclasses.replace(runs, columns=without))


def test_a_run_that_stands_twice_is_refused() -> None:
    """Two rows of one name contradict each other."""
    runs = rising(0)
    with pytest.raises(InvalidInput, match="stands in it 2 times"):
        fitted(dataclasses.replace(runs, run_ids=("run-0001", *runs.run_ids[1:])))


def test_without_resamples_there_are_no_intervals() -> None:
    """A fit without resamples has values, says that intervals are lacking, and is weak."""
    found = fitted(rising(0), bootstrap=0)
    assert found.verdict == "weak"
    assert found.parameters["B0"].value == pytest.approx(B0, rel=0.1)
    assert found.parameters["B0"].interval is None


@pytest.mark.skipif(not (DATA / "steplaw").exists(), reason="shared/data/steplaw is absent")
def test_the_published_sweeps_saturate() -> None:
    """On public sweeps the forms without end are far off, and B0 grows with the data (benchmarks/RESULTS.md)."""
    names = {"n_params": "N", "n_tokens": "D", "final_loss": "smooth_loss", "peak_lr": "lr"}
    found = fitted(isoloss.read_runs(DATA / "steplaw" / "dense.csv", map=names))
    off = found.diagnostics["readings"]
    assert max(off["adam"], off["sgd"]) < 0.75 * off["sqrt"] < off["linear"]
    assert found.verdict == "weak"
    assert "B0 seems to differ between sites" in said(found)
    exponents = {one.name: one.interval for one in found.derived}
    low, high = exponents["B0_alone.exponent_n_tokens"] or (0.0, 0.0)
    assert 0.4 < low < high < 0.9
