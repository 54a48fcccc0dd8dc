"""Rungs: what is expected of a trial, and which trials go on."""

from __future__ import annotations

import numpy as np
import pytest

from isoloss.errors import InvalidInput, UnusableData
from isoloss.observations import Curve
from isoloss.proxies.final_losses import FinalLosses
from isoloss.proxies.halving import Decision, Expected, Rungs, Standing, decide, pilots_of

RUNGS = Rungs((1 / 9, 1 / 3), 3)
TOTAL = 900


def standing(
    number: int, value: float | None, half: float = 0.01, status: str = "held", rung: int = 0
) -> Standing:
    expected = None if value is None else Expected(value, value - half, value + half, 100)
    return Standing(number, status, rung, expected)


def pruned(decisions: dict[int, Decision]) -> list[int]:
    return sorted(number for number, decision in decisions.items() if decision.prune)


def test_the_clearly_worse_are_pruned_and_the_best_goes_on() -> None:
    """Of nine at a rung the best three set the line; who overlaps it waits, or goes on where a worker is free."""
    values = [2.0, 2.1, 2.2, 2.205, 2.3, 2.4, 2.5, 2.6, 2.7]
    there = [standing(k, value, 0.01) for k, value in enumerate(values)]
    decisions = decide(there, RUNGS)
    assert pruned(decisions) == [4, 5, 6, 7, 8]
    assert {number for number, one in decisions.items() if not one.prune} == {0}  # nobody else trains
    assert {number for number, one in decide(there, RUNGS, free=3).items() if not one.prune} == {0, 1, 2}
    reason = str(decisions[4].reason)
    assert "expected to end at 2.3000 (2.2900 to 2.3100)" in reason
    assert "3 are kept" in reason


def test_wide_intervals_prune_nothing() -> None:
    decisions = decide([standing(k, 2 + k / 10, half=1.0) for k in range(9)], RUNGS, free=9)
    assert pruned(decisions) == []
    assert len(decisions) == 9


def test_trials_wait_while_workers_have_others_to_train() -> None:
    """Those that come later may make their intervals narrower; the clearly worse are pruned at once."""
    there = [standing(0, 2.0), standing(1, 2.1), standing(2, 2.2), standing(3, 3.0)]
    coming = [standing(k, None, status="queued") for k in range(4, 9)]
    decisions = decide([*there, *coming], RUNGS)
    assert list(decisions) == pruned(decisions) == [3]


def test_who_is_pruned_early_would_be_pruned_where_all_are_there() -> None:
    """The order in which trials come spares more or less work, and never the wrong one."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.normal(2.5, 0.2, 9)
        everyone = [standing(k, float(value), 0.05) for k, value in enumerate(values)]
        n_there = int(rng.integers(1, 9))
        there = [*everyone[:n_there], *(standing(k, None, status="queued") for k in range(n_there, 9))]
        assert set(pruned(decide(there, RUNGS))) <= set(pruned(decide(everyone, RUNGS)))


def test_a_trial_of_which_nothing_is_known_goes_last_and_is_never_pruned() -> None:
    known = [standing(k, 2.0, status="finished") for k in range(7)]
    there = [*known, standing(7, None), standing(8, 2.005)]
    assert decide(there, RUNGS) == {8: Decision(False)}
    assert decide(there, RUNGS, free=2) == {7: Decision(False), 8: Decision(False)}


def test_failed_trials_neither_count_nor_are_better() -> None:
    gone = [standing(k, 1.0, status="failed") for k in range(5)]
    alive = [standing(5, 2.0), standing(6, 2.1, status="cancelled")]
    assert pruned(decide([*gone, *alive], RUNGS)) == []


def test_rungs_are_powers_of_eta_or_what_is_asked_for() -> None:
    assert Rungs.of(3).shares == pytest.approx((1 / 9, 1 / 3))
    assert Rungs.of(4).shares == (0.25,)
    assert Rungs.of(2, [0.1, 0.5]).shares == (0.1, 0.5)
    assert [RUNGS.stop_at(rung, TOTAL) for rung in range(3)] == [100, 300, 900]
    assert [RUNGS.kept(27, rung) for rung in range(3)] == [9, 3, 1]
    for wrong in ([], [0], [0.5, 0.2], [1.0], [0.1, 0.2, 0.3, 0.4, 0.5]):
        with pytest.raises(InvalidInput, match="rungs"):
            Rungs.of(3, wrong)
    with pytest.raises(InvalidInput, match="eta"):
        Rungs.of(1)


def test_pilots_are_drawn_by_lot_and_the_seed_repeats_them() -> None:
    """Every trial is a pilot as often as any other."""
    assert pilots_of(27, 3) == pilots_of(27, 3)
    assert pilots_of(2, 0) == [0, 1]
    drawn = np.bincount([place for seed in range(900) for place in pilots_of(9, seed)], minlength=9)
    assert drawn.sum() == 3600
    assert np.all(np.abs(drawn - 400) < 80)


def curve(peak_lr: float, seed: int, share: float = 1.0) -> Curve:
    """A curve with its best peak at 0.01, which falls as it is annealed, with a little noise."""
    spec = {"kind": "linear", "total_steps": TOTAL, "warmup_steps": 45, "peak_lr": peak_lr}
    step = np.arange(1, round(share * TOTAL) + 1)
    level = 2.0 + 0.2 * np.log(peak_lr / 0.01) ** 2
    loss = level + 3.0 * (step + 10) ** -0.5 + 0.1 * (1 - step / TOTAL)
    noise = np.random.default_rng(seed).normal(0, 0.01, TOTAL)[: step.size]
    config = {"weight_decay": 0.1, "batch_tokens": 1024}
    return Curve.from_columns(
        f"r{seed}", {"step": step, "loss": loss * np.exp(noise)}, schedule=spec, config=config
    )


def test_the_end_of_a_trial_is_expected_within_its_interval() -> None:
    """From a third of them, the ends of eight trials lie in their intervals, and these are no wider than needed."""
    peaks = [0.003, 0.006, 0.01, 0.02, 0.03]
    ended = {k: curve(peak, k) for k, peak in enumerate(peaks)}
    others = {k: curve(peak, k) for k, peak in enumerate(np.geomspace(0.004, 0.025, 8), start=10)}
    going = {k: curve(one.schedule.peak_lr, k, 1 / 3) for k, one in others.items()}
    learned = FinalLosses.learn(ended, going, (1 / 9, 1 / 3))
    assert learned == FinalLosses.from_document(learned.as_document())
    held = []
    for number, one in going.items():
        told = learned.expect(one)
        assert told is not None
        final = float(others[number].loss_nats[-9:].mean())
        held.append(told.lower <= final <= told.upper)
        assert told.upper - told.lower < 0.5
    assert sum(held) >= 7
    assert learned.expect(curve(0.01, 30, 0.05)) is None  # before the first rung


def test_too_few_trials_that_ended_tell_nothing() -> None:
    ended = {k: curve(0.01, k) for k in range(3)}
    with pytest.raises(UnusableData, match="needs 4 trials that have ended, not 3"):
        FinalLosses.learn(ended, {}, (1 / 3,))
