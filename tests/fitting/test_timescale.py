"""The timescale of the peak and of the mean learning rate, over shapes of schedules and kinds of decay."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting import Fit
from isoloss.observations import RunTable
from isoloss.schedules import schedule_from_spec
from tests.fitting.synthetic_sweeps import SITES, best_timescale, decays

FAR = {"n_params": 4e9, "n_tokens": 4e11}
BEST = float(best_timescale(np.array([FAR["n_params"]]), np.array([FAR["n_tokens"]]))[0])
LINEAR, STABLE = 0.5, 0.9
MIXED = tuple(STABLE if number % 3 == 0 else LINEAR for number in range(len(SITES)))


def with_columns(table: RunTable, **columns: np.ndarray) -> RunTable:
    return dataclasses.replace(table, columns={**table.columns, **columns})


def with_labels(table: RunTable, **labels: str | tuple[str | None, ...]) -> RunTable:
    said = {name: (one,) * table.n_runs if isinstance(one, str) else one for name, one in labels.items()}
    return dataclasses.replace(table, labels=said)


def reading(fit: Fit) -> str:
    return str(fit.provenance["convention"])


def told(fit: Fit) -> float:
    return float(fit.predict(config=FAR).value[0])


def test_several_shapes_of_schedule_are_read_on_the_mean_learning_rate() -> None:
    """tau_eff = 1 / (lambda * sum of eta) joins runs whose ratio of mean to peak differs, and says so."""
    fit = isoloss.fit("timescale", decays(shares=MIXED))
    assert reading(fit) == "effective"
    assert fit.verdict == "sound", fit.reasons
    assert told(fit) == pytest.approx(BEST, rel=1e-5)
    assert "from 50% to 90% of the peak" in " ".join(fit.reasons)
    assert not fit.left_out


def test_one_shape_of_schedule_is_read_on_the_peak_as_published_and_tells_the_other_reading_too() -> None:
    """tau_peak = share * tau_eff; the coefficient of the other reading is derived, with its interval."""
    fit = isoloss.fit("timescale", decays(0, shares=[LINEAR] * len(SITES)))
    assert reading(fit) == "peak"
    assert told(fit) == pytest.approx(BEST * LINEAR, rel=0.05)
    other = isoloss.fit("timescale", decays(0, shares=[LINEAR] * len(SITES)), convention="effective")
    for one, factor, name in (
        (fit, 1 / LINEAR, "coefficient_effective"),
        (other, LINEAR, "coefficient_peak"),
    ):
        found = next(derived for derived in one.derived if derived.name == name)
        coefficient = one.parameters["coefficient"]
        assert found.value == pytest.approx(coefficient.value * factor)
        assert found.interval == pytest.approx(tuple(factor * np.array(coefficient.interval)))
    assert told(other) == pytest.approx(told(fit) / LINEAR, rel=1e-9)


def test_shapes_that_differ_by_less_than_linear_and_cosine_are_one() -> None:
    """A warm-up that is a little longer is no other shape; cosine decay to a tenth beside linear decay is one."""
    near = [0.5, 0.51, 0.52] * 4
    assert reading(isoloss.fit("timescale", decays(shares=near))) == "peak"
    assert reading(isoloss.fit("timescale", decays(shares=[0.5, 0.55] * 6))) == "effective"


def test_the_peak_is_never_read_over_several_shapes() -> None:
    """Who asks for the published reading gets it for the usual shape, and the other runs named.

    Read together, shapes that go with the tokens per parameter pass for an exponent of -.71 where it is -.5.
    """
    runs = decays(shares=MIXED)
    fit = isoloss.fit("timescale", runs, convention="peak")
    other = {
        name for name, share in zip(runs.run_ids, runs.column("mean_lr_share"), strict=True) if share > 0.8
    }
    assert {one["run_id"] for one in fit.left_out} == other
    assert fit.left_out[0]["reason"] == (
        "its mean learning rate is 90% of its peak, and that of most runs 50%"
    )
    assert told(fit) == pytest.approx(BEST * LINEAR, rel=1e-5)
    wrong = isoloss.fit("timescale", runs, convention="peak", gate={"mixed_shapes": False})
    assert wrong.parameters["exponent"].value == pytest.approx(-0.71, abs=0.01)


def test_runs_without_a_schedule_are_taken_to_be_of_one_shape_and_told_so() -> None:
    """A table that says nothing of schedules is read on the peak, as before."""
    fit = isoloss.fit("timescale", decays())
    assert reading(fit) == "peak"
    assert told(fit) == pytest.approx(BEST, rel=1e-5)
    assert any("must be of one shape" in one for one in fit.reasons)
    with pytest.raises(UnusableData, match="states no schedule"):
        isoloss.fit("timescale", decays(), convention="effective")


@pytest.mark.parametrize(("convention", "n_left_out"), [(None, 7), ("peak", 28)])
def test_a_run_of_an_unknown_shape_beside_several_is_left_out(
    convention: str | None, n_left_out: int
) -> None:
    """Neither reading can place it."""
    runs = decays(shares=MIXED)
    share = runs.column("mean_lr_share").copy()
    share[:7] = np.nan
    fit = isoloss.fit("timescale", with_columns(runs, mean_lr_share=share), convention=convention)
    assert len(fit.left_out) == n_left_out
    assert "states no schedule" in fit.left_out[0]["reason"]
    assert fit.predict(config=FAR).value[0] == pytest.approx(
        BEST * (1 if convention is None else LINEAR), rel=1e-5
    )


def test_two_shapes_at_the_same_sites_are_two_sweeps() -> None:
    """Their losses differ by more than the decay does: they are never compared within a sweep."""
    linear, stable = decays(0, shares=[LINEAR] * 12), decays(1, shares=[STABLE] * 12)
    columns = {name: np.concatenate([linear.column(name), stable.column(name)]) for name in linear.columns}
    names = tuple(f"{shape}-{name}" for shape in ("linear", "stable") for name in linear.run_ids)
    outcome = np.concatenate([linear.outcome, stable.outcome * 1.004])
    fit = isoloss.fit("timescale", RunTable(names, columns, outcome, n_params_kind="total"))
    assert fit.diagnostics["n_sweeps"] == 24
    assert {group["by"]["mean_decay_share"] for group in fit.groups} == {LINEAR, STABLE}
    assert told(fit) == pytest.approx(BEST, rel=0.05)


def of_kind(runs: RunTable, kind: str, goes_with: str | None) -> tuple[np.ndarray, float]:
    """The decay of a kind that takes off the weights what the runs' own does, and its mean's share of its peak."""
    decay, rate, share = (runs.column(name) for name in ("weight_decay", "peak_lr", "mean_lr_share"))
    if kind == "lr_scaled":
        return decay, LINEAR
    if goes_with == "constant":
        return decay * rate * share, 1.0
    return decay * rate, LINEAR


@pytest.mark.parametrize("convention", ["peak", "effective"])
@pytest.mark.parametrize(
    ("kind", "goes_with"),
    [("lr_scaled", None), ("independent", None), ("independent", "lr"), ("independent", "constant")],
)
def test_every_kind_of_decay_has_its_timescale_in_both_readings(
    kind: str, goes_with: str | None, convention: str
) -> None:
    """lambda / eta where it goes with the schedule, 1 / (lambda * steps) where it is constant (laws.md 3)."""
    runs = decays(shares=[LINEAR] * len(SITES))
    decay, share = of_kind(runs, kind, goes_with)
    labels = {"weight_decay_kind": kind} | ({"weight_decay_schedule": goes_with} if goes_with else {})
    table = with_labels(with_columns(runs, weight_decay=decay), **labels)
    fit = isoloss.fit("timescale", table, convention=convention)
    assert told(fit) == pytest.approx(BEST if convention == "effective" else BEST * share, rel=1e-5)


def test_a_constant_decay_needs_no_schedule() -> None:
    """Its timescale is 1 / (lambda * steps), whatever the learning rate does: of the mean, by default."""
    runs = decays()
    decay = runs.column("weight_decay") * runs.column("peak_lr")
    labels = {"weight_decay_kind": "independent", "weight_decay_schedule": "constant"}
    fit = isoloss.fit("timescale", with_labels(with_columns(runs, weight_decay=decay), **labels))
    assert reading(fit) == "effective"
    assert told(fit) == pytest.approx(BEST, rel=1e-5)


def test_kinds_of_decay_are_read_together_on_the_mean() -> None:
    """Sites with scaled, following and constant decay show one law."""
    runs = decays(shares=[LINEAR] * len(SITES))
    choices = [("lr_scaled", "lr"), ("independent", "lr"), ("independent", "constant")]
    which = np.arange(runs.n_runs) // 7 % 3
    decay = np.choose(which, [of_kind(runs, *choice)[0] for choice in choices])
    kinds, goes_with = (tuple(choices[one][part] for one in which) for part in range(2))
    table = with_labels(
        with_columns(runs, weight_decay=decay), weight_decay_kind=kinds, weight_decay_schedule=goes_with
    )
    fit = isoloss.fit("timescale", table)
    assert reading(fit) == "effective"
    assert told(fit) == pytest.approx(BEST, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"weight_decay_kind": "independent", "weight_decay_schedule": "cosine"}, "is neither"),
        ({"weight_decay_kind": "lr_scaled", "weight_decay_schedule": "constant"}, "is not constant"),
        ({"weight_decay_schedule": "constant"}, "is not constant"),
    ],
)
def test_a_decay_that_contradicts_itself_is_left_out(labels: dict[str, str], why: str) -> None:
    """Words that say nothing, and a decay that is scaled and constant at once."""
    with pytest.raises(UnusableData, match=why):
        isoloss.fit("timescale", with_labels(decays(0), **labels))


@pytest.mark.parametrize("value", [0.0, -0.5, 1.2, 50.0])
@pytest.mark.parametrize("convention", [None, "peak", "effective"])
def test_a_mean_that_is_no_share_of_the_peak_leaves_its_run_out(value: float, convention: str | None) -> None:
    """Percents, and means above the peak, are named; the others are fitted."""
    runs = decays(shares=MIXED)
    share = runs.column("mean_lr_share").copy()
    share[3] = value
    fit = isoloss.fit("timescale", with_columns(runs, mean_lr_share=share), convention=convention)
    assert "run-003" in {one["run_id"] for one in fit.left_out}
    alone = with_columns(runs, mean_lr_share=np.full(runs.n_runs, value))
    with pytest.raises(UnusableData, match="mean_lr_share"):
        isoloss.fit("timescale", alone, convention=convention)


def test_a_reading_that_there_is_not_is_refused() -> None:
    """The readings are named."""
    with pytest.raises(InvalidInput, match="supported, peak, effective"):
        isoloss.fit("timescale", decays(0), convention="mean")


SPECS: tuple[dict[str, Any], ...] = (
    {"kind": "constant", "total_steps": 700},
    {"kind": "linear", "total_steps": 900, "warmup_steps": 100},
    {"kind": "cosine", "total_steps": 1000, "warmup_steps": 37, "end_lr": 1e-4},
    {"kind": "wsd", "total_steps": 1000, "decay_start": 800, "decay_shape": "sqrt"},
    {"kind": "wsd", "total_steps": 1000, "decay_start": 600, "decay_shape": "exponential", "end_lr": 1e-5},
    {"kind": "two_stage", "total_steps": 500, "switch_step": 200, "second_lr": 3e-4},
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec["kind"]))
def test_the_mean_of_a_declared_schedule_is_exact(spec: dict[str, Any]) -> None:
    """The sum over every step, over steps and peak, to the last digits."""
    declared = {"peak_lr": 1e-3, **spec}
    schedule = schedule_from_spec(declared)
    each = schedule.lr(np.arange(1, schedule.total_steps + 1))
    table = RunTable.from_runs([{"run_id": "a", "config": {"n_params": 10}, "schedule": declared}])
    assert table.column("mean_lr_share")[0] == pytest.approx(each.mean() / 1e-3, rel=1e-12)
