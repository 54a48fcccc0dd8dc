"""What other laws say of a recommended setting, and what the shape of a model adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import isoloss
from benchmarks.datasets import available, scheduled_runs
from isoloss.advice import best_peak
from isoloss.errors import InvalidInput, Unidentified
from isoloss.observations import RunTable
from tests.advice.test_advice import TARGET, study
from tests.fitting.synthetic_batches import readings
from tests.fitting.synthetic_sweeps import best_lr, together
from tests.fitting.test_staged import steps

with_lr_scheduling = pytest.mark.skipif(
    not available("lr_scheduling"), reason="the data set lr_scheduling is not beside this checkout"
)
SHAPED = {"n_params": 8e8, "n_tokens": 3.2e10}


def told(runs: RunTable, target: Any = TARGET, **asked: Any) -> dict[str, Any]:
    return isoloss.recommend(runs, **target, bootstrap=60, **asked).as_dict()


def curves() -> list[isoloss.Curve]:
    """The cosine and constant runs of all peaks, of one size and batch."""
    found = []
    for run in scheduled_runs():
        if not run.is_cooldown:
            own = {name: getattr(run.curve, name) for name in run.curve.__dataclass_fields__}
            found.append(isoloss.Curve(**{**own, "n_params": 1.24e8, "batch_tokens": 102_400.0}))
    return found


@with_lr_scheduling
def test_curves_of_several_peaks_are_a_second_reading_of_the_learning_rate() -> None:
    """Both readings hold for the curves' own size, batch and the target's tokens; the measured best lies near."""
    said = told(study(), {"n_params": 4e9, "n_tokens": 5.12e9}, curves=curves())["peak_lr"]
    (one,) = said["readings"]
    assert one["law"] == "effective_lr"
    assert one["at"] == {
        "n_params": 1.24e8,
        "batch_tokens": 102_400.0,
        "n_tokens": 5.12e9,
        "schedule": "linear",
    }
    assert 1.2e-3 < one["value"] < 2e-3
    assert one["interval"][0] < one["value"] < one["interval"][1]
    assert one["beside"] == pytest.approx(best_lr(np.array(1.24e8), np.array(5.12e9)), rel=0.2)
    assert [basis["law"] for basis in one["basis"]] == ["effective_lr"]


@with_lr_scheduling
def test_a_best_peak_at_the_end_of_those_that_were_trained_is_none() -> None:
    """At 15,000 steps of cosine the largest trained peak is the best: how far the best lies beyond is not shown."""
    fit = isoloss.fit("effective_lr", curves(), bootstrap=30)
    warmed = {"total_steps": 15_000, "warmup_steps": 300}
    with pytest.raises(Unidentified, match=r"the largest that was trained \(0.002\): it may lie beyond"):
        best_peak(fit, {"kind": "cosine", **warmed})
    wsd = best_peak(fit, {"kind": "wsd", "decay_start": 12_000, **warmed})
    assert np.exp(wsd.log_value) == pytest.approx(1.45e-3, rel=0.1)  # laws.md 1.5
    assert wsd.log_samples.shape == (30,)
    with pytest.raises(InvalidInput, match="does not carry over"):
        best_peak(isoloss.fit("lr_annealing", curves()[:3], bootstrap=5), {"kind": "cosine", **warmed})


def test_steps_to_a_loss_and_gradient_noise_stand_beside_the_critical_batch() -> None:
    """Each with its own runs, interval and the point that it holds for; b_crit is that of the simulated truth."""
    said = told(together(study(), steps(0)), noise=readings(0))["critical_batch_tokens"]
    by_law = {one["law"]: one for one in said["readings"]}
    assert by_law.keys() == {"steps_to_target", "noise_scale"}
    for one in by_law.values():
        assert one["reason"] is None
        assert one["interval"][0] < one["value"] < one["interval"][1]
        assert one["unit"] == "tokens"
    assert by_law["noise_scale"]["at"] == {"n_tokens": TARGET["n_tokens"]}


def test_without_other_runs_there_are_no_other_readings() -> None:
    said = told(study())
    assert all(said[name]["readings"] == [] for name in isoloss.advice.Recommendation.NAMES)


def shaped(runs: RunTable, aspect: float = 64.0) -> RunTable:
    """The runs with the widths and depths that twelve times depth times width squared gives."""
    depth = np.cbrt(runs.column("n_params") / 12 / aspect**2)
    columns = {**runs.columns, "depth": depth, "width": aspect * depth}
    return RunTable(runs.run_ids, columns, runs.outcome, n_params_kind="non_embedding", labels=runs.labels)


def test_a_fixed_width_gives_the_depth_of_the_size_as_the_runs_count() -> None:
    said = told(shaped(study()), constraints={"width": 4096})
    assert said["shape"]["params_per_depth_width2"] == pytest.approx(12)
    assert said["shape"]["depth"] == pytest.approx(4e9 / 12 / 4096**2)
    assert any("width over depth" in one for one in said["warnings"])
    said = told(shaped(study()), constraints={"depth": 43.3})
    assert said["shape"]["width"] == pytest.approx(np.sqrt(4e9 / 12 / 43.3))
    assert not any("width over depth" in one for one in said["warnings"])
    assert told(study())["shape"] is None


def test_a_width_and_depth_of_another_size_are_named() -> None:
    said = told(shaped(study()), constraints={"width": 1024, "depth": 10})["shape"]
    assert said["reason"] == "this width and depth have 1.26e+08 parameters, not 4e+09"
    assert told(study(), constraints={"width": 1024})["shape"]["reason"].startswith("the runs state no width")


def test_the_width_rule_is_refused_away_from_the_data_and_batch_of_the_runs() -> None:
    """At a hundred billion tokens no run was tuned: the timescale law sets the weight decay, the rule says so."""
    said = told(shaped(study()), constraints={"width": 4096})
    for name in ("peak_lr", "weight_decay"):
        (one,) = said[name]["readings"]
        assert one["law"] == "width_rule"
        assert one["value"] is None
        assert "holds at fixed data and batch" in one["reason"]
    assert said["weight_decay"]["value"] is not None


def test_the_width_rule_stands_beside_the_laws_at_equal_data_and_batch() -> None:
    """From the widest sweep at the target's data, learning rate as 1 / width and weight decay as its root."""
    target = {"n_params": 3.2e9, "n_tokens": 3.2e10}
    runs = shaped(study())
    said = told(runs, target, constraints={"width": 4 * _width(runs, 8e8)})
    rate, decay = (said[name]["readings"][0] for name in ("peak_lr", "weight_decay"))
    assert "holds at fixed data and batch" in decay["reason"]  # the weight decay was swept at another batch
    own = float(best_lr(np.array(8e8), np.array(3.2e10)))
    assert rate["value"] == pytest.approx(own / 4, rel=0.1)
    assert rate["at"]["n_tokens"] == pytest.approx(3.2e10)
    assert rate["at"]["tuned_at_width"] == pytest.approx(_width(runs, 8e8))


def test_the_weight_decay_of_the_width_rule_is_shown_beside_that_of_the_timescale() -> None:
    """At the batch of the sweeps of weight decay both have a value, and they contradict each other."""
    target, runs = {"n_params": 3.2e9, "n_tokens": 3.2e10}, shaped(study())
    limits = {"width": 4 * _width(runs, 8e8), "max_batch_tokens": 2**18}
    said = told(runs, target, constraints=limits)["weight_decay"]
    (rule,) = said["readings"]
    assert rule["value"] == pytest.approx(2 * _tuned_decay(runs), rel=0.25)
    assert rule["interval"][0] < rule["value"] < rule["interval"][1]
    assert abs(np.log(rule["value"] / said["value"])) > 0.2


def test_under_mup_the_learning_rate_of_hidden_matrices_falls_too() -> None:
    """Runs state the rate that these get, behind all multipliers: only the rate that is typed stays."""
    target = {"n_params": 3.2e9, "n_tokens": 3.2e10}
    runs = shaped(study())
    mup = RunTable(
        runs.run_ids,
        runs.columns,
        runs.outcome,
        n_params_kind="non_embedding",
        labels={"parametrization": ("mup",) * runs.n_runs},
    )
    said = told(mup, target, constraints={"width": 4 * _width(runs, 8e8)})["peak_lr"]["readings"][0]
    assert said["value"] == pytest.approx(best_lr(np.array(8e8), np.array(3.2e10)) / 4, rel=0.1)


def _width(runs: RunTable, n_params: float) -> float:
    return float(runs.column("width")[runs.column("n_params") == n_params][0])


def _tuned_decay(runs: RunTable) -> float:
    """The weight decay of the best run at the largest site."""
    at = (runs.column("n_params") == 8e8) & (runs.column("n_tokens") == 3.2e10)
    at &= np.isfinite(runs.column("weight_decay"))
    rows = np.flatnonzero(at)
    return float(runs.column("weight_decay")[rows[np.argmin(runs.outcome[rows])]])


@pytest.mark.parametrize("name", ["width", "depth"])
@pytest.mark.parametrize("value", [0, -1, "1024", True, float("nan")])
def test_a_width_or_depth_that_is_no_size_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"constraints.{name}"):
        told(study(), constraints={name: value})


@with_lr_scheduling
def test_other_learning_rates_go_along_with_the_peak_that_is_searched() -> None:
    """A decay to a tenth of each peak is another question than one to a fixed learning rate."""
    fit = isoloss.fit("effective_lr", curves(), bootstrap=0, resample=None)
    warmed = {"kind": "wsd", "total_steps": 50_000, "warmup_steps": 300, "decay_start": 40_000}
    tenth = best_peak(fit, {**warmed, "peak_lr": 1e-3, "end_lr": 1e-4})
    again = best_peak(fit, {**warmed, "peak_lr": 5e-4, "end_lr": 5e-5})
    fixed = best_peak(fit, {**warmed, "end_lr": 1e-4})
    assert tenth.log_value == pytest.approx(again.log_value)
    assert tenth.log_value != pytest.approx(fixed.log_value, abs=1e-3)


def test_other_readings_are_told_where_no_law_of_settings_can_be_fitted() -> None:
    """Runs that reached a target loss and say nothing else: the critical batch has that reading, and no value."""
    said = told(steps(0))
    assert all(said[name]["value"] is None for name in isoloss.advice.Recommendation.NAMES)
    (one,) = said["critical_batch_tokens"]["readings"]
    assert (one["law"], one["reason"]) == ("steps_to_target", None)
    assert one["value"] > 0
