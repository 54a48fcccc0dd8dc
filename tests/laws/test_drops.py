"""The nodes that stand for the steps at which a learning rate changes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from isoloss.laws.drops import Drops, areas, drops_of
from isoloss.observations import PlannedRun
from isoloss.schedules import Schedule, schedule_from_spec
from isoloss.schedules.pieces import Table
from tests.laws.per_step import SCHEDULES, points

every_schedule = pytest.mark.parametrize("name", sorted(SCHEDULES))


def changes(drops: Drops, values: np.ndarray, n_points: int) -> np.ndarray:
    """The sum over the nodes before each point of change times value."""
    weighed = (drops.start_lr - drops.end_lr) * values
    return np.bincount(drops.point, weighed[drops.node], minlength=n_points)


@every_schedule
@pytest.mark.parametrize("from_first_step", [False, True])
def test_the_nodes_before_a_point_add_up_to_the_whole_change(name: str, from_first_step: bool) -> None:
    """What a point sees is the learning rate before the first of the changes less its own."""
    schedule = SCHEDULES[name]
    begin = 0 if from_first_step else schedule.warmup_steps
    step = points(schedule)
    drops = drops_of(PlannedRun(step, schedule), begin)
    before = schedule.lr([begin])[0] if begin else schedule.pieces[0].level()
    expected = np.where(step > begin, before - schedule.lr(step), 0.0)
    np.testing.assert_allclose(
        changes(drops, np.ones_like(drops.position), step.size), expected, atol=1e-12 * schedule.peak_lr
    )


@every_schedule
def test_the_mean_position_of_the_changes_before_a_point_is_exact(name: str) -> None:
    """A kernel that is a straight line would be summed without error."""
    schedule, step = SCHEDULES[name], points(SCHEDULES[name])
    drops = drops_of(PlannedRun(step, schedule), schedule.warmup_steps)
    k = np.arange(schedule.warmup_steps + 1, schedule.total_steps + 1)
    sums = np.cumsum((schedule.lr(k - 1) - schedule.lr(k)) * (k - 1))
    expected = sums[np.maximum(step - k[0], 0)] * (step >= k[0])
    np.testing.assert_allclose(changes(drops, drops.position, step.size), expected, rtol=1e-9, atol=1e-9)


@every_schedule
def test_no_node_lies_behind_a_point_that_sees_it(name: str) -> None:
    """Every point has at least one node, and each of them a change that came before the point."""
    schedule, step = SCHEDULES[name], points(SCHEDULES[name])
    drops = drops_of(PlannedRun(step, schedule), schedule.warmup_steps)
    changed = (drops.start_lr != drops.end_lr)[drops.node]
    assert np.all(drops.position[drops.node[changed]] <= step[drops.point[changed]] - 1)
    assert np.array_equal(np.unique(drops.point), np.arange(step.size))
    assert np.all(np.diff(drops.point) >= 0)


def test_a_jump_is_one_node_for_all_points() -> None:
    """A learning rate that jumps once costs one pair a point, and keeps its exact place."""
    schedule = SCHEDULES["wsdcon_3"]
    step = np.arange(8_000, 16_001, 100)
    drops = drops_of(PlannedRun(step, schedule), schedule.warmup_steps)
    assert drops.node.size == step.size
    assert drops.position[drops.node[0]] == 7_999


def test_a_rise_again_has_nodes_of_its_own() -> None:
    """A restart is no part of the decay before it: no bin has a turn inside."""
    knots = [[1, 0.0], [100, 1e-3], [5_000, 1e-4], [10_000, 1e-3], [20_000, 0.0]]
    schedule = schedule_from_spec({"kind": "piecewise_linear", "knots": knots})
    step = np.array([5_000, 10_000, 20_000])
    drops = drops_of(PlannedRun(step, schedule), 100)
    last = drops.node[drops.point == 2]
    change, position = (drops.start_lr - drops.end_lr)[last], drops.position[last]
    rising = (position >= 5_000) & (position < 10_000)
    assert np.all(change[rising] < 0)
    assert np.all(change[~rising] > 0)
    assert change[rising].sum() == pytest.approx(-9e-4)


def test_a_schedule_written_as_a_table_has_the_same_nodes_as_declared() -> None:
    """How a learning rate was told changes no sum: declared, or as a value for every step."""
    declared = SCHEDULES["wsd_linear"]
    steps = np.arange(1, declared.total_steps + 1)
    table = Schedule((Table(np.append(0.0, declared.lr(steps))),), declared.warmup_steps)
    step = points(declared)
    one, other = (drops_of(PlannedRun(step, schedule), 2_160) for schedule in (declared, table))
    for drops in (one, other):
        assert drops.node.size < 30 * step.size
    kernel = [changes(drops, np.exp(-(drops.position / 1e4)), step.size) for drops in (one, other)]
    np.testing.assert_allclose(kernel[0], kernel[1], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "table"])
def test_ten_million_steps_are_prepared_in_seconds(kind: str) -> None:
    """A declared schedule costs no more the longer it is; a table of values one look at each."""
    spec = {"kind": "cosine", "total_steps": 10_000_000, "warmup_steps": 10_000, "peak_lr": 3e-4}
    schedule = schedule_from_spec(spec)
    if kind == "table":
        values = schedule.lr(np.arange(1, schedule.total_steps + 1))
        schedule = Schedule((Table(np.append(0.0, values)),), 10_000)
    step = np.linspace(20_000, 10_000_000, 300).astype(np.int64)
    began = time.process_time()
    drops = drops_of(PlannedRun(step, schedule), 10_000)
    assert time.process_time() - began < (0.5 if kind == "cosine" else 5.0)
    assert drops.node.size < 80 * step.size


def test_a_learning_rate_that_never_rests_has_a_bounded_number_of_nodes() -> None:
    """A log of a hundred thousand entries that jitter by percents is read in coarser bins."""
    jitter = np.random.default_rng(0).uniform(0.9, 1.1, 100_000)
    knots = np.arange(1, 100_001)
    schedule = Schedule((Table(np.append(0.0, jitter * 1e-3)),), 1)
    drops = drops_of(PlannedRun(knots[-10:], schedule), 1)
    assert drops.node.size < 10 * 40_000


def test_a_run_without_points_behind_the_beginning_sees_nothing() -> None:
    """Points of warm-up, and schedules that end with it, have only nodes without change."""
    schedule = SCHEDULES["cosine_24000"]
    step = np.array([100, 2_160])
    for begin in (2_160, 24_000):
        drops = drops_of(PlannedRun(step, schedule), begin)
        assert not changes(drops, np.ones_like(drops.position), step.size).any()


def test_areas_between_steps_lie_on_a_line() -> None:
    """S1 after a fraction of a step is that share of the step's learning rate further on."""
    schedule = SCHEDULES["cosine_24000"]
    found = areas(schedule, np.array([5_000.0, 5_000.25, 24_000.0]))
    expected = schedule.area([5_000, 5_000, 24_000])
    expected[1] += 0.25 * schedule.lr([5_001])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
