"""Readings in time off the logged points of runs: the same numbers as of tables, each point once, bounded."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import isoloss
from isoloss.errors import InvalidInput, UnusableData
from isoloss.fitting import Fit
from isoloss.laws.noise_scale import NORMS
from isoloss.observations import RunTable
from isoloss.readings import LoggedRun, table_of_readings
from isoloss.readings.tabulated import MOST_OF_A_CURVE
from tests.fitting.synthetic_batches import BIG, SMALL, as_ratios, readings

BATCHES = {"batch_small_tokens": SMALL, "batch_big_tokens": BIG}


def columns_of(table: RunTable, curve: str) -> dict[str, Any]:
    """The readings of one curve as the columns that its run would have logged."""
    rows = np.array([name == curve for name in table.label("curve")])
    columns = {name: values[rows] for name, values in table.columns.items() if not name.startswith("batch_")}
    return {"step": np.arange(1, rows.sum() + 1), "tokens": columns.pop("n_tokens"), **columns}


def logged(
    run_id: str, config: dict[str, Any] | None = None, parent: Any = None, **columns: Any
) -> LoggedRun:
    return LoggedRun.from_columns(run_id, columns, config=config, parent=parent)


def numbers(found: Fit) -> dict[str, Any]:
    return {name: (one.value, one.std_error, one.interval) for name, one in found.parameters.items()}


def noises(last: int, run_id: str = "run", first: int = 1, **said: Any) -> LoggedRun:
    """A run that logs a noise scale of 100 times its step at every step."""
    step = np.arange(first, last + 1)
    said = {"config": {"batch_tokens": 10.0}, **said}
    return logged(run_id, step=step, grad_noise_scale=100.0 * step, **said)


def steps_of(table: RunTable, curve: str) -> list[int]:
    rows = [name == curve for name in table.label("curve")]
    return [int(one) for one in table.column("step")[rows]]


@pytest.mark.parametrize("alone", [False, True], ids=["norms", "ratios"])
def test_logged_points_and_rows_of_a_table_give_the_same_fit(alone: bool) -> None:
    """Norms at two batches, or their ratio alone: every number is the same to the last bit."""
    table = readings(0, count=900, curves=2)
    table = as_ratios(table) if alone else table
    config = {} if alone else BATCHES
    runs = [logged(name, config, **columns_of(table, name)) for name in ("curve-0", "curve-1")]
    points = isoloss.fit("noise_scale", table_of_readings("noise_scale", runs))
    rows = isoloss.fit("noise_scale", table)
    assert numbers(points) == numbers(rows)
    assert (points.verdict, points.reasons) == (rows.verdict, rows.reasons)
    assert [one["parameters"] for one in points.groups] == [one["parameters"] for one in rows.groups]


def test_batches_may_be_columns_or_fields_of_the_configuration() -> None:
    """What the points say goes before what the configuration says, point by point."""
    columns = columns_of(readings(0, count=300), "curve-0")
    batches = {name: np.full(300, value) for name, value in BATCHES.items()}
    one = table_of_readings("noise_scale", [logged("run", BATCHES, **columns)])
    other = table_of_readings(
        "noise_scale", [logged("run", {"batch_small_tokens": 1.0}, **columns, **batches)]
    )
    for name in ("squared_gradient", "gradient_noise"):
        np.testing.assert_array_equal(one.column(name), other.column(name))


def test_tokens_follow_from_the_batch_where_they_were_not_logged() -> None:
    """Step times batch; between logged values the line that joins them; after the last one the batch again."""
    step = np.arange(1, 9)
    tokens = np.array([np.nan, 30.0, np.nan, np.nan, 90.0, np.nan, np.nan, np.nan])
    ratio = np.full(8, 5.0)
    for config, logged_tokens, expected in (
        ({"batch_tokens": 10}, None, 10.0 * step),
        ({"batch_tokens": 10}, tokens, [15, 30, 50, 70, 90, 100, 110, 120]),
        ({}, tokens, [15, 30, 50, 70, 90]),
    ):
        columns = {} if logged_tokens is None else {"tokens": logged_tokens}
        table = table_of_readings(
            "noise_scale", [logged("run", config, step=step, grad_noise_scale=ratio, **columns)]
        )
        np.testing.assert_array_equal(table.column("n_tokens"), expected)
    assert table.notes == (
        "run run: 3 points left out, the first at step 6: the tokens seen by then are not known",
    )


def test_a_branch_alone_has_its_parents_readings_up_to_where_it_branches() -> None:
    """Tokens go on from the parent's, at the branch's own batch."""
    from isoloss.readings.readers import reader_of
    from isoloss.readings.tabulated import logs_of, tabulated

    runs = [noises(8, "trunk"), noises(9, "branch", 6, parent=("trunk", 5), config={"batch_tokens": 100})]
    table, left_out = tabulated(reader_of("noise_scale"), ["branch"], logs_of(runs))
    assert table is not None
    assert left_out == []
    assert steps_of(table, "branch") == [*range(1, 10)]
    np.testing.assert_array_equal(table.column("n_tokens"), [10, 20, 30, 40, 50, 150, 250, 350, 450])


def test_readings_that_runs_share_count_once() -> None:
    """A trunk and two branches: what several have is the trunk's, whether it is selected or not."""
    from isoloss.readings.readers import reader_of
    from isoloss.readings.tabulated import logs_of, tabulated

    trunk = noises(8, "trunk")
    early = noises(9, "early", 4, parent=("trunk", 3))
    late = noises(9, "late", 7, parent=("trunk", 6))
    logs, reader = logs_of([trunk, early, late]), reader_of("noise_scale")
    expected = {
        ("trunk", "early", "late"): {"trunk": (1, 8), "early": (4, 9), "late": (7, 9)},
        ("early", "late"): {"trunk": (1, 3), "early": (4, 9), "late": (4, 9)},
        ("trunk", "late"): {"trunk": (1, 8), "late": (7, 9)},
        ("late",): {"late": (1, 9)},
    }
    for selected, curves in expected.items():
        table, _ = tabulated(reader, selected, logs)
        assert table is not None
        found = {name: steps_of(table, name) for name in set(table.label("curve"))}
        assert found == {name: [*range(first, last + 1)] for name, (first, last) in curves.items()}, selected


def test_a_branch_of_a_branch_shares_what_its_line_shares() -> None:
    """Three generations: every point of all of them stands in the table once."""
    runs = [
        noises(10, "first"),
        noises(20, "second", 6, parent=("first", 5)),
        noises(30, "third", 16, parent=("second", 15)),
    ]
    table = table_of_readings("noise_scale", runs)
    assert {name: len(steps_of(table, name)) for name in ("first", "second", "third")} == {
        "first": 10,
        "second": 15,
        "third": 15,
    }
    np.testing.assert_array_equal(table.column("n_tokens"), 10 * table.column("step"))


def test_a_fit_with_a_parent_and_its_branch_is_that_of_the_points_that_there_are() -> None:
    """One run, cut into a trunk and a branch, gives the numbers of two curves of a table and counts none twice."""
    table = readings(0, count=900)
    columns = columns_of(table, "curve-0")
    early, late = (
        {name: values[part] for name, values in columns.items()} for part in (slice(500), slice(500, None))
    )
    runs = [logged("trunk", BATCHES, **early), logged("branch", BATCHES, ("trunk", 500), **late)]
    named = dataclasses.replace(table, labels={"curve": ("trunk",) * 500 + ("branch",) * 400})
    found = isoloss.fit("noise_scale", table_of_readings("noise_scale", runs))
    assert numbers(found) == numbers(isoloss.fit("noise_scale", named))
    assert found.diagnostics["n_runs"] == 900


def test_neither_names_nor_order_of_runs_change_a_number() -> None:
    """Branches and trunk under other names, the other way round."""
    table = readings(1, count=900)
    columns = columns_of(table, "curve-0")
    parts = [
        {name: values[part] for name, values in columns.items()} for part in (slice(500), slice(500, None))
    ]
    fits = []
    for trunk, branch, turn in (("a", "b", 1), ("z", "y", -1)):
        runs = [logged(trunk, BATCHES, **parts[0]), logged(branch, BATCHES, (trunk, 500), **parts[1])]
        fits.append(numbers(isoloss.fit("noise_scale", table_of_readings("noise_scale", runs[::turn]))))
    assert fits[0] == fits[1]


def test_a_million_points_are_averaged_before_the_ratio() -> None:
    """Blocks of neighbours: their averages are those of all points, and so is the fit but for its noise."""
    table = readings(3, count=40_000, memory=0.5)
    columns = columns_of(table, "curve-0")
    found = table_of_readings("noise_scale", [logged("run", BATCHES, **columns)])
    assert found.n_runs == MOST_OF_A_CURVE
    assert found.notes == ("run run: 4,000 averages of neighbours stand for its 40,000 readings",)
    whole = isoloss.fit("noise_scale", table, bootstrap=0)
    thinned = isoloss.fit("noise_scale", found)
    for name, one in thinned.parameters.items():
        assert one.interval is not None
        assert one.interval[0] < whole.parameters[name].value < one.interval[1]
    assert found.run_ids[:2] == ("run@1-10", "run@11-20")


def test_ratios_alone_are_thinned_by_medians_of_their_inverse() -> None:
    """One wild ratio in a block moves nothing."""
    step = np.arange(1, 3 * MOST_OF_A_CURVE + 1)
    ratio = np.full(step.size, 50.0)
    ratio[::3] = -1e9
    found = table_of_readings(
        "noise_scale", [logged("run", {"batch_tokens": 1}, step=step, grad_noise_scale=ratio)]
    )
    np.testing.assert_allclose(found.column("grad_noise_scale"), 50.0)


def test_of_ratios_and_norms_those_at_more_points_are_read_and_the_others_told() -> None:
    """Thousands of logged ratios are not given up for a few norms, nor norms for a few ratios."""
    step = np.arange(1, 2001)
    few = np.where(step % 400 == 0, 2.0, np.nan)
    config = {**BATCHES, "batch_tokens": 10}
    ratios = logged(
        "run", config, step=step, grad_noise_scale=100.0 * step, grad_norm_small=few, grad_norm_big=0.8 * few
    )
    table = table_of_readings("noise_scale", [ratios])
    assert table.n_runs > 100
    assert np.isfinite(table.column("grad_noise_scale")).all()
    assert table.notes[0] == (
        "run run: 5 points with norms at two batches, not used: more have grad_noise_scale"
    )
    small, big = np.full(2000, 2.0), np.full(2000, 1.6)
    norms = logged("run", config, step=step, grad_noise_scale=few, grad_norm_small=small, grad_norm_big=big)
    told = table_of_readings("noise_scale", [norms])
    assert np.isfinite(told.column("squared_gradient")).all()
    assert not any("not used" in note for note in told.notes)
    norms_lack_a_few = np.where(step % 400 == 0, np.nan, 2.0)
    norms = logged(
        "run", config, step=step, grad_noise_scale=few, grad_norm_small=norms_lack_a_few, grad_norm_big=big
    )
    told = table_of_readings("noise_scale", [norms])
    assert "5 points with grad_noise_scale alone, not used: more have norms at two batches" in "".join(
        told.notes
    )


@pytest.mark.parametrize(
    ("law", "columns", "config", "reason"),
    [
        ("noise_scale", {"grad_noise_scale": [1.0]}, {}, "no tokens and its config no batch_tokens"),
        ("noise_scale", {"tokens": [1.0]}, {}, "it lacks grad_norm_small, grad_norm_big"),
        ("noise_scale", {"tokens": [1.0], "grad_norm_small": [1.0]}, BATCHES, "it lacks grad_norm_big"),
        ("noise_scale", {"tokens": [1.0], "grad_norm_small": [1.0], "grad_norm_big": [1.0]},
         {"batch_small_tokens": 8.0, "batch_big_tokens": 8.0}, "above 0 and below batch_big_tokens"),
        ("noise_scale", {"grad_noise_scale": [0.0]}, {"batch_tokens": 8}, "grad_noise_scale is 0"),
        ("noise_scale", {"grad_noise_scale": [5.0]}, {"batch_tokens": -8}, "batch_tokens: must be finite"),
        ("rl_compute", {"reward": [0.5]}, {"n_params": 1e9, "n_tokens": 1e9}, "does not follow from size"),
        ("rl_compute", {"compute_flops": [0.5]}, {}, "no reward"),
        ("rl_compute", {"reward": [1.5], "compute_flops": [1.0]}, {}, "reward must lie between 0 and 1"),
        ("rl_compute", {"reward": [0.5], "compute_flops": [1e-40]}, {}, "compute_flops must be 0, or lie"),
    ],
)  # fmt: skip
def test_a_run_that_lacks_something_is_refused_by_what_it_lacks(
    law: str, columns: dict[str, Any], config: dict[str, Any], reason: str
) -> None:
    """What is missing is named, and compute is never made up of sizes."""
    with pytest.raises(UnusableData, match=reason):
        table_of_readings(law, [logged("run", config, step=[3], **columns)])


def test_a_counter_that_falls_is_refused() -> None:
    """A branch that counts from 0 again, and tokens that are of a step alone."""
    with pytest.raises(UnusableData, match=r"tokens: falls from 9 at step 2 to 5 at step 3"):
        table_of_readings("noise_scale", [logged("run", step=[2, 3], tokens=[9, 5], grad_noise_scale=[1, 1])])
    trunk = logged("trunk", step=[1, 2], compute_flops=[5, 10], reward=[0.1, 0.2])
    branch = logged("branch", None, ("trunk", 2), step=[3], compute_flops=[5], reward=[0.3])
    with pytest.raises(UnusableData, match=r"'branch': compute_flops: falls from 10 at step 2"):
        table_of_readings("rl_compute", [trunk, branch])


def test_points_that_are_no_readings_are_told_and_the_others_count() -> None:
    """A point without its partner, one of a negative norm, and one before any token."""
    run = logged(
        "run", {**BATCHES, "batch_tokens": 10}, step=[0, 1, 2, 3],
        grad_norm_small=[2, 2, 2, -2], grad_norm_big=[1, None, 1, 1],
    )  # fmt: skip
    table = table_of_readings("noise_scale", [run])
    assert steps_of(table, "run") == [2]
    assert table.notes == (
        "run run: 1 point left out, at step 1: they lack one of " + ", ".join(NORMS),
        "run run: 1 point left out, at step 3: a norm is never below 0",
        "run run: 1 point left out, at step 0: no token had been seen by then",
    )


def test_a_reward_before_any_step_says_where_the_curve_begins() -> None:
    """At step 0 no compute was spent, logged or not; compute that was logged less often is on the line between."""
    run = logged(
        "run", step=[0, 5, 10, 20, 25], reward=[0.1, 0.2, 0.3, 0.4, 0.5],
        compute_flops=[None, None, 1e3, 3e3, None],
    )  # fmt: skip
    table = table_of_readings("rl_compute", [run])
    np.testing.assert_array_equal(table.column("compute_flops"), [0, 500, 1e3, 3e3])
    assert table.target == "reward"
    assert table.notes == ("run run: 1 point left out, at step 25: no compute_flops is known there",)


def test_a_branch_of_rewards_has_the_whole_curve_beside_its_parent() -> None:
    """Every curve has a sigmoid of its own: what both share stands in both."""
    step = np.arange(0, 8)
    trunk = logged("trunk", step=step, reward=step / 10, compute_flops=step)
    own = np.arange(5, 10)
    branch = logged("branch", None, ("trunk", 4), step=own, reward=own / 10, compute_flops=own)
    table = table_of_readings("rl_compute", [trunk, branch])
    assert (steps_of(table, "trunk"), steps_of(table, "branch")) == ([*range(8)], [*range(10)])


def test_readings_that_a_fit_leaves_out_are_told_run_by_run() -> None:
    """The noisy part before the rise is one entry with its steps, not one for every point."""
    step = np.arange(0, 64)
    share = step**2.2 / (step**2.2 + 18**2.2)
    reward = 0.3 + 0.6 * share + 1e-3 * np.random.default_rng(0).standard_normal(64)
    reward[1:4] = 0.05
    found = isoloss.fit(
        "rl_compute",
        table_of_readings("rl_compute", [logged("run", step=step, reward=reward, compute_flops=1e15 * step)]),
    )
    assert [one["run_id"] for one in found.left_out] == ["run"]
    assert found.left_out[0]["reason"].startswith("steps 1 to 3: it lies below where its curve began")


def test_a_run_that_is_held_out_is_predicted_from_the_others() -> None:
    """By its name, with what windows of it show; a share holds out the last part of training."""
    table = readings(0, count=1200, curves=3)
    runs = [logged(name, BATCHES, **columns_of(table, name)) for name in sorted(set(table.label("curve")))]
    points = table_of_readings("noise_scale", runs)
    found = isoloss.fit("noise_scale", points, holdout={"run_ids": ["curve-1"]})
    two = isoloss.fit("noise_scale", table_of_readings("noise_scale", [runs[0], runs[2]]))
    assert numbers(found) == numbers(two)
    assert found.holdout is not None
    assert found.provenance["holdout_sha256"] is not None
    assert found.holdout["mean"]["max_relative_error"] < 0.5
    assert all(name.startswith("curve-1, ") for name in found.holdout["runs"])
    assert (
        isoloss.fit("noise_scale", points, holdout={"run_ids": ["curve-1"]}, previous=found).theta
        is found.theta
    )
    last = isoloss.fit("noise_scale", points, holdout={"fraction": 0.2})
    assert last.diagnostics["n_runs"] == 2880
    for holdout, reason in (
        ({"run_ids": ["nobody"]}, "is not among the selected runs"),
        ({"run_ids": [f"curve-{number}" for number in range(3)]}, "leaves no run to fit"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            isoloss.fit("noise_scale", points, holdout=holdout)


@pytest.mark.parametrize(
    ("columns", "parent", "field"),
    [
        ({"loss": [1.0]}, None, "step"),
        ({"step": [1.5]}, None, "step"),
        ({"step": [2, 1], "tokens": [1, 2]}, None, "step"),
        ({"step": [-1]}, None, "step"),
        ({"step": [1], "tokens": ["many"]}, None, "tokens"),
        ({"step": [1], "tokens": [True]}, None, "tokens"),
        ({"step": [1], "tokens": [1, 2]}, None, "tokens"),
        ([1, 2, 3], None, "columns"),
        (5, None, "columns"),
        ({"step": [1]}, "trunk", "parent"),
        ({"step": [1]}, ("trunk", 1.5), "parent"),
    ],
)
def test_what_is_no_log_is_refused_by_its_field(columns: Any, parent: Any, field: str) -> None:
    """Columns that are none, steps that do not increase, and parents that are none."""
    with pytest.raises(InvalidInput) as caught:
        LoggedRun.from_columns("run", columns, parent=parent)
    assert caught.value.fields["field"] == field


def test_runs_that_make_no_table_are_refused() -> None:
    """No runs, one twice, a parent that is not there, two that branch off each other, a law of finished runs."""
    one = noises(9)
    with pytest.raises(UnusableData):
        table_of_readings("noise_scale", [])
    with pytest.raises(InvalidInput, match="twice"):
        table_of_readings("noise_scale", [one, one])
    with pytest.raises(InvalidInput, match="read it too"):
        table_of_readings("noise_scale", [noises(9, "branch", 6, parent=("trunk", 5))])
    with pytest.raises(InvalidInput, match="takes no readings in time"):
        table_of_readings("chinchilla", [one])
    with pytest.raises(InvalidInput, match="must be a LoggedRun"):
        table_of_readings("noise_scale", [{"step": [1]}])  # type: ignore[list-item]


class Frame:
    """Columns by their names, as data frames have them, which iterate over something else."""

    columns = ("step", "grad_noise_scale")

    def __iter__(self) -> Any:
        return iter(range(3))

    def __getitem__(self, name: str) -> Any:
        return {"step": [1, 2, 3], "grad_noise_scale": [5.0, None, 7.0]}[name]


def test_a_data_frame_is_as_good_as_a_mapping() -> None:
    """What says the names of its columns and gives each by its name."""
    frame = LoggedRun.from_columns("run", Frame(), config={"batch_tokens": 2})
    table = table_of_readings("noise_scale", [frame])
    assert table.run_ids == ("run@1", "run@3")


def test_numbers_beyond_reason_are_left_out_of_a_fit() -> None:
    """Norms whose squares overflow, tokens that count nothing."""
    step = np.arange(1, 3)
    huge = logged(
        "run", {**BATCHES, "batch_tokens": 1}, step=step, grad_norm_small=[1e200, 2], grad_norm_big=[1e199, 1]
    )
    table = table_of_readings("noise_scale", [huge])
    assert table.run_ids == ("run@2",)
    assert "squares of its norms are not finite" in table.notes[0]
    with pytest.raises(UnusableData, match="tokens must lie between"):
        table_of_readings(
            "noise_scale", [logged("run", step=step, tokens=1e33 * step, grad_noise_scale=[1, 2])]
        )


def test_long_curves_share_the_room_that_there_is() -> None:
    """Each of many curves has fewer readings, and never fewer than the windows need."""
    step = np.arange(1, 501)
    columns = {"grad_noise_scale": 5.0 * step}
    runs = [LoggedRun(f"run-{number}", step, columns, {"batch_tokens": 1.0}) for number in range(200)]
    assert table_of_readings("noise_scale", runs).n_runs == 200 * 200
    more = [LoggedRun(f"run-{number}", step, columns, {"batch_tokens": 1.0}) for number in range(300)]
    assert table_of_readings("noise_scale", more).n_runs == 300 * 160
