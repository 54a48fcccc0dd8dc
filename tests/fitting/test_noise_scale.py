"""The gradient noise scale over training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isoloss
from isoloss.errors import InvalidInput, Unidentified, UnusableData
from isoloss.fitting import Fit
from isoloss.laws.noise_scale import gradient_noise, simple_noise_scale, squared_gradient
from isoloss.observations import RunTable
from tests.fitting.synthetic_batches import BIG, SMALL, as_ratios, norms, readings, scale_at

positive = st.floats(1e-3, 1e3)


def fitted(table: RunTable, **options: Any) -> Fit:
    return isoloss.fit("noise_scale", table, **options)


def with_column(table: RunTable, name: str, values: np.ndarray) -> RunTable:
    return dataclasses.replace(table, columns={**table.columns, name: values})


@given(positive, positive, positive, st.floats(1.5, 100))
def test_the_estimators_invert_what_norms_are_expected_to_be(
    gradient: float, noise: float, batch: float, ratio: float
) -> None:
    """From E|g_B|^2 = |G|^2 + tr(Sigma)/B at two batches both come back, and their ratio."""
    small, big = (np.sqrt(np.array([gradient + noise / one])) for one in (batch, batch * ratio))
    batches = np.array([batch]), np.array([batch * ratio])
    scale = (gradient + noise / batch) * 1e-9
    assert squared_gradient(small, big, *batches)[0] == pytest.approx(gradient, rel=1e-9, abs=10 * scale)
    assert gradient_noise(small, big, *batches)[0] == pytest.approx(noise, rel=1e-9, abs=100 * scale * batch)


def test_the_estimators_are_unbiased_on_gradients() -> None:
    """On simulated gradients of known G and Sigma the averages lie within four standard errors of both."""
    random = np.random.default_rng(0)
    count, gradient, noise = 20_000, 0.2, 4e5
    small, big = norms(random, np.full(count, gradient), np.full(count, noise), dimensions=50)
    batches = np.array(SMALL), np.array(BIG)
    for estimate, truth in ((squared_gradient, gradient), (gradient_noise, noise)):
        found = estimate(small, big, *batches)
        assert abs(found.mean() - truth) < 4 * found.std() / np.sqrt(count)
    assert simple_noise_scale(small, big, SMALL, BIG) == pytest.approx(noise / gradient, rel=0.05)


@given(st.lists(positive, min_size=1, max_size=5))
def test_equal_norms_have_no_noise(values: list[float]) -> None:
    """Where both batches have the same norms tr(Sigma) is 0, and so is the noise scale."""
    same = np.array(values)
    assert np.all(gradient_noise(same, same, np.array(1.0), np.array(8.0)) == 0)
    assert simple_noise_scale(same, same, 1.0, 8.0) == 0


@given(positive, st.floats(1.01, 10))
def test_a_gradient_lost_in_noise_is_undetermined(norm: float, factor: float) -> None:
    """Where the average of |G|^2 is not above 0 there is no number."""
    small = np.array([norm * np.sqrt(8.0) * factor])
    assert simple_noise_scale(small, np.array([norm]), 1.0, 8.0) is None


def test_averages_come_before_the_ratio() -> None:
    """Readings of which one is below 0 alone count in the averages: their own ratios are never looked at."""
    small, big = np.array([3.0, 1.5]), np.array([1.0, 1.4])
    parts = [
        float(np.mean(one(small, big, np.array(1.0), np.array(8.0))))
        for one in (gradient_noise, squared_gradient)
    ]
    assert squared_gradient(small, big, np.array(1.0), np.array(8.0))[0] < 0
    assert simple_noise_scale(small, big, 1.0, 8.0) == (parts[0] / parts[1] if parts[1] > 0 else None)


@pytest.mark.parametrize(
    ("small", "big", "batches", "field"),
    [
        ([1.0], [1.0], (8.0, 8.0), "batch_small_tokens"),
        ([1.0], [1.0], (8.0, 1.0), "batch_small_tokens"),
        ([1.0], [1.0], (0.0, 1.0), "batch_small_tokens"),
        ([1.0], [1.0], (float("nan"), 1.0), "batch_small_tokens"),
        ([-1.0], [1.0], (1.0, 8.0), "grad_norm_small"),
        ([1.0], [float("nan")], (1.0, 8.0), "grad_norm_big"),
        ([], [], (1.0, 8.0), "grad_norm_small"),
    ],
)
def test_impossible_readings_are_refused(
    small: list[float], big: list[float], batches: tuple[float, float], field: str
) -> None:
    """Equal or reversed batches, negative norms, NaN and nothing at all are refused by their name."""
    with pytest.raises(InvalidInput) as caught:
        simple_noise_scale(np.array(small), np.array(big), *batches)
    assert caught.value.fields["field"] == field


def test_every_window_has_its_noise_scale() -> None:
    """Windows are evenly spaced in log tokens, and their intervals hold the truth most of the time."""
    found = fitted(readings(0, count=2000, memory=0.5))
    assert 8 <= len(found.groups) <= 10
    held = 0
    for group in found.groups:
        one = group["parameters"][0]
        middle = np.sqrt(group["by"]["from_tokens"] * group["by"]["to_tokens"])
        low, high = one["interval"]
        held += low < scale_at(middle) < high
        assert low < one["value"] < high
    assert held >= 0.7 * len(found.groups)


def test_the_ratio_alone_will_do() -> None:
    """Where only B_simple was logged its median stands for it, and it is said that norms would be better."""
    table = as_ratios(readings(0, count=2000))
    found = fitted(table)
    told = found.predict(n_tokens=2e10)
    assert told.value[0] == pytest.approx(scale_at(np.array(2e10)), rel=0.2)
    assert any("only grad_noise_scale was logged" in reason for reason in found.reasons)


def test_runs_are_told_apart_by_their_curve() -> None:
    """Windows are those of each run, and a run is predicted from the others."""
    found = fitted(readings(0, curves=3))
    assert {group["by"]["curve"] for group in found.groups} == {"curve-0", "curve-1", "curve-2"}
    assert found.holdout is not None
    assert any("from the others" in one["predicted"] for one in found.holdout["others"])


def test_a_run_off_the_others_widens_the_interval() -> None:
    """A run of four times the noise scale shows what another run may be."""
    alike = readings(0, curves=2)
    other = np.array([name == "curve-1" for name in alike.label("curve")])
    small, big = alike.columns["grad_norm_small"], alike.columns["grad_norm_big"]
    noise = gradient_noise(small, big, np.array(SMALL), np.array(BIG))
    gradient = squared_gradient(small, big, np.array(SMALL), np.array(BIG))
    louder = np.sqrt(np.maximum(gradient + 4 * noise / SMALL, 0))
    quiet = np.sqrt(np.maximum(gradient + 4 * noise / BIG, 0))
    apart = with_column(alike, "grad_norm_small", np.where(other, louder, small))
    apart = with_column(apart, "grad_norm_big", np.where(other, quiet, big))
    usual, wide = (fitted(table).predict(n_tokens=2e10) for table in (alike, apart))
    assert wide.upper[0] / wide.lower[0] > 1.5 * usual.upper[0] / usual.lower[0]


def test_names_of_runs_mean_nothing() -> None:
    """Other names of the curves give the same numbers."""
    table = readings(0, curves=3, count=300)
    renamed = tuple(
        {"curve-0": "z", "curve-1": "a", "curve-2": "m"}[name or ""] for name in table.label("curve")
    )
    here, there = fitted(table), fitted(dataclasses.replace(table, labels={"curve": renamed}))
    np.testing.assert_allclose(here.theta, there.theta, rtol=1e-12)
    np.testing.assert_allclose(
        here.predict(n_tokens=1e12).upper, there.predict(n_tokens=1e12).upper, rtol=1e-9
    )


def test_a_curve_may_be_a_number() -> None:
    """Runs may be told apart by a column of numbers too."""
    table = readings(0, curves=2)
    numbers = np.array([float((name or "")[-1]) for name in table.label("curve")])
    found = fitted(dataclasses.replace(with_column(table, "curve", numbers), labels={}))
    np.testing.assert_allclose(found.theta, fitted(table).theta)


def lost(table: RunTable, from_tokens: float) -> RunTable:
    """The same with a gradient that is lost in noise from some tokens on."""
    late = table.column("n_tokens") >= from_tokens
    return with_column(table, "grad_norm_big", np.where(late, 0.3, 1.0) * table.columns["grad_norm_big"])


def test_a_window_whose_gradient_is_lost_has_no_number() -> None:
    """A negative average of |G|^2 is null in its group and named, and the verdict is no better than weak."""
    found = fitted(lost(readings(0), 6e10))
    values = [group["parameters"][0]["value"] for group in found.public()["groups"]]
    assert values[-1] is None
    assert values[0] is not None
    assert found.verdict != "sound"
    assert "the average of |G|^2 is not above 0" in " ".join(found.reasons)


def test_a_gradient_lost_throughout_is_unidentified() -> None:
    """Without any |G|^2 above 0 there is no law, and a prediction is refused with the reason."""
    found = fitted(lost(readings(0), 0))
    assert found.verdict == "unidentified"
    assert all(one.value is None for one in found.parameters.values())
    with pytest.raises(Unidentified, match=r"\|G\|\^2 is not above 0"):
        found.predict(n_tokens=1e11)


def test_equal_norms_are_no_law() -> None:
    """Readings without noise determine no power: unidentified, not zero."""
    table = readings(0)
    found = fitted(with_column(table, "grad_norm_small", table.columns["grad_norm_big"]))
    assert found.verdict == "unidentified"


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("grad_norm_small", -1.0, "a norm never is"),
        ("grad_norm_big", np.nan, "it lacks one of"),
        ("grad_norm_big", np.inf, "not finite"),
        ("batch_small_tokens", BIG, "must lie above 0 and below its batch_big_tokens"),
        ("batch_small_tokens", 0.0, "must lie above 0 and below its batch_big_tokens"),
        ("n_tokens", np.nan, "n_tokens"),
        ("n_tokens", -5.0, "n_tokens"),
    ],
)
def test_impossible_rows_are_left_out_by_name(column: str, value: float, reason: str) -> None:
    """A reading that cannot be is named with why, and the others are fitted; where all are so it is refused."""
    table = readings(0)
    values = table.columns[column].copy()
    values[7] = value
    found = fitted(with_column(table, column, values))
    assert [one["run_id"] for one in found.left_out] == ["reading-00007"]
    assert reason in found.left_out[0]["reason"]
    if not np.isnan(value) or column == "n_tokens":
        with pytest.raises(UnusableData, match="no run is left to fit"):
            fitted(with_column(table, column, np.full(values.size, value)))


@pytest.mark.parametrize("value", [np.nan, 0.0, np.inf])
def test_impossible_ratios_are_left_out_by_name(value: float) -> None:
    """A ratio that is no number, zero or infinite is named; one below 0 says that the gradient was lost."""
    table = as_ratios(readings(0))
    values = table.columns["grad_noise_scale"].copy()
    values[3] = value
    found = fitted(with_column(table, "grad_noise_scale", values))
    assert [one["run_id"] for one in found.left_out] == ["reading-00003"]
    assert (
        fitted(with_column(table, "grad_noise_scale", -np.abs(values))).verdict == "unidentified"
        if value
        else True
    )


def test_a_moment_counts_once() -> None:
    """Of two readings of a run at the same tokens one is left out: a resumed run logs its steps again."""
    table = readings(0)
    tokens = table.columns["n_tokens"].copy()
    tokens[11] = tokens[10]
    found = fitted(with_column(table, "n_tokens", tokens))
    assert len(found.left_out) == 1
    assert "a reading at the same tokens" in found.left_out[0]["reason"]


@pytest.mark.parametrize("count", [1, 5, 20])
def test_few_readings_are_no_law(count: int) -> None:
    """Readings that fill fewer than four windows are unidentified, with how many are needed."""
    found = fitted(readings(0, count=count))
    assert found.verdict == "unidentified"
    assert "and 4 are needed" in found.reasons[0]


def test_readings_of_one_moment_are_no_law() -> None:
    """Without any length of training there is no power."""
    table = readings(0)
    found = fitted(with_column(table, "n_tokens", np.full(table.n_runs, 1e9)))
    assert found.verdict == "unidentified"


def test_a_table_of_losses_is_refused() -> None:
    """Runs without readings are told what they lack."""
    table = RunTable(("a", "b"), {"n_tokens": np.array([1e9, 2e9])}, np.array([3.0, 2.9]))
    with pytest.raises(UnusableData, match=r"it has no config\.grad_noise_scale"):
        fitted(table)


def test_without_resamples_there_are_no_intervals() -> None:
    """A fit without resamples has values and is weak."""
    found = fitted(readings(0), bootstrap=0)
    assert found.verdict == "weak"
    assert found.parameters["exponent"].interval is None


def test_readings_come_from_a_file(tmp_path: Path) -> None:
    """A CSV of readings needs no loss column, and its text column `curve` tells runs apart."""
    table = readings(0, curves=2)
    names = [*table.columns]
    lines = [",".join(["curve", *names])]
    for row, curve in enumerate(table.label("curve")):
        lines.append(",".join([str(curve), *(repr(float(table.columns[name][row])) for name in names)]))
    path = tmp_path / "readings.csv"
    path.write_text("\n".join(lines))
    read = isoloss.read_runs(path)
    assert not any("no law reads" in note for note in read.notes)
    np.testing.assert_allclose(fitted(read).theta, fitted(table).theta, rtol=1e-9)
