"""Curves from columns: what is kept, what is left out with a note, what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isoloss.errors import InvalidInput, InvalidSchedule, UnusableData
from isoloss.observations import Curve, PlannedRun, RunTable, branch_learning_rates, n_params_of
from isoloss.schedules import schedule_from_spec

SPEC = {"kind": "constant", "total_steps": 400, "peak_lr": 1e-3, "warmup_steps": 100}
DECLARED = schedule_from_spec(SPEC)
STEP = np.arange(0, 401, 50)
LOSS = np.linspace(4, 3, STEP.size)


def test_columns_become_a_curve() -> None:
    """Step 0 comes before any update and is left out with a note; the rest is kept."""
    config = {"n_params": 10, "n_params_kind": "total", "batch_tokens": 64}
    curve = Curve.from_columns("run", {"step": STEP, "loss": LOSS}, schedule=SPEC, config=config)
    assert curve.step.tolist() == STEP[1:].tolist()
    assert (curve.n_params, curve.n_params_kind, curve.batch_tokens) == (10.0, "total", 64)
    assert curve.notes == ("1 of its points left out: outside steps 1..400",)


def test_missing_losses_are_passed_over_and_those_that_are_not_finite_counted() -> None:
    """What was not logged is masked or None; a loss that was logged and is not finite is counted in a note."""
    loss = LOSS.copy()
    loss[2], loss[3] = np.nan, np.inf
    curve = Curve.from_columns("run", {"step": STEP, "loss": loss}, schedule=SPEC)
    assert curve.n_points == STEP.size - 3
    assert "2 of its points left out: loss not finite" in curve.notes
    silent = [None if np.isnan(value) else value for value in loss], np.ma.masked_where(np.isnan(loss), loss)
    for column in silent:
        curve = Curve.from_columns("run", {"step": STEP, "loss": column}, schedule=SPEC)
        assert curve.n_points == STEP.size - 3
        assert "1 of its points left out: loss not finite" in curve.notes


def test_losses_that_are_nan_to_the_end_ask_whether_the_run_diverged() -> None:
    """From which step on is said; a column that is filled every so often ends as it goes on."""
    diverged = np.where(STEP > 250, np.nan, LOSS)
    curve = Curve.from_columns("run", {"step": STEP, "loss": diverged}, schedule=SPEC)
    assert curve.notes[:2] == (
        "3 of its points left out: loss not finite",
        "the loss is NaN from step 300 on: diverged?",
    )
    every_third = np.where(STEP % 150 == 50, LOSS, np.nan)
    curve = Curve.from_columns("run", {"step": STEP, "loss": every_third}, schedule=SPEC)
    assert curve.n_points == 3
    assert not any("diverged" in note for note in curve.notes)


def test_a_logged_rate_that_disagrees_is_noted() -> None:
    """The note on the learning rate comes with the curve."""
    columns = {"step": STEP[1:], "loss": LOSS[1:], "lr": DECLARED.lr(STEP[1:]) * 2}
    curve = Curve.from_columns("run", columns, schedule=SPEC)
    assert "the logged lr is" in curve.notes[0]
    assert curve.schedule.peak_lr == pytest.approx(2e-3)


def test_a_run_without_learning_rates_is_no_curve() -> None:
    """Neither a schedule nor a log: unusable, and the message says what to do."""
    with pytest.raises(UnusableData, match="declare its schedule or log its lr"):
        Curve.from_columns("run", {"step": STEP, "loss": LOSS})


def test_a_run_without_its_target_is_no_curve() -> None:
    """The missing column is named."""
    with pytest.raises(UnusableData, match="no val_loss"):
        Curve.from_columns("run", {"step": STEP, "loss": LOSS}, schedule=SPEC, target="val_loss")
    with pytest.raises(UnusableData, match="no finite loss"):
        Curve.from_columns("run", {"step": STEP, "loss": LOSS * np.nan}, schedule=SPEC)


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"step": STEP, "loss": LOSS[1:]}, "loss"),
        ({"step": STEP, "loss": -LOSS}, "loss"),
        ({"step": STEP, "loss": LOSS * 0}, "loss"),
        ({"step": STEP + 0.5, "loss": LOSS}, "step"),
        ({"step": STEP[::-1], "loss": LOSS}, "step"),
        ({"step": ["a"] * STEP.size, "loss": LOSS}, "step"),
    ],
)
def test_columns_that_contradict_themselves_are_refused(columns: dict[str, np.ndarray], field: str) -> None:
    """Each names the column at fault."""
    with pytest.raises(InvalidInput) as caught:
        Curve.from_columns("run", columns, schedule=SPEC)
    assert caught.value.fields["field"] == field


def test_a_branch_with_a_declaration_follows_it_after_its_parent() -> None:
    """Up to the branch step the parent's rates, behind it the declared ones."""
    own = schedule_from_spec({"kind": "linear", "total_steps": 600, "peak_lr": 1e-3})
    nothing = np.zeros(0)
    schedule, note = branch_learning_rates("b", DECLARED, 300, nothing.astype(np.int64), nothing, own)
    assert note is None
    np.testing.assert_allclose(schedule.lr([50, 300, 301, 600]), [5e-4, 1e-3, *own.lr([301, 600])])
    assert schedule.warmup_steps == 100


def test_a_branch_with_a_log_alone_follows_it() -> None:
    """The parent's schedule fills the steps before the branch's first log."""
    step, lr = np.array([310, 320]), np.array([8e-4, 4e-4])
    schedule, _ = branch_learning_rates("b", DECLARED, 300, step, lr, None)
    np.testing.assert_allclose(schedule.lr([305, 310, 315, 320]), [1e-3, 8e-4, 6e-4, 4e-4])


def test_a_branch_that_says_nothing_of_its_rates_is_no_curve() -> None:
    """A branch without a declaration and without a log is unusable."""
    step = np.array([310, 320])
    with pytest.raises(UnusableData):
        branch_learning_rates("b", DECLARED, 300, step, np.full(2, np.nan), None)


def test_a_branch_behind_its_parents_end_is_refused() -> None:
    """The parent's schedule must reach the branch step."""
    with pytest.raises(InvalidSchedule, match="outside the parent's schedule of 400 steps"):
        branch_learning_rates("b", DECLARED, 500, np.array([510]), np.array([1e-3]), None)


def test_the_parameter_count_of_a_kind() -> None:
    """`n_params` with its kind is the one meant; another kind may be asked for."""
    config = {"n_params": 7, "n_params_kind": "total", "n_params_non_embedding": 5}
    assert n_params_of(config) == ("total", 7.0)
    assert n_params_of(config, "non_embedding") == ("non_embedding", 5.0)
    assert n_params_of(config, "active") == ("active", None)
    assert n_params_of({}) == (None, None)


@pytest.mark.parametrize("kind", ["foo", "", 5, ["total"]])
def test_a_kind_that_there_is_not_is_refused(kind: Any) -> None:
    """Wherever it is said: it would keep runs of one kind apart, or those of two together."""
    wrong = {"n_params": 7, "n_params_kind": kind}
    columns = {"step": np.array([10, 20]), "loss": np.array([3.0, 2.9])}
    acts: list[Callable[[], object]] = [
        lambda: n_params_of(wrong),
        lambda: n_params_of({"n_params": 7}, kind),
        lambda: Curve.from_columns("r", columns, schedule=DECLARED, config=wrong),
        lambda: Curve("r", np.array([10]), np.array([3.0]), DECLARED, 7.0, kind),
        lambda: RunTable(("r",), {}, np.ones(1), n_params_kind=kind),
        lambda: RunTable.from_runs([{"run_id": "r", "config": wrong}]),
    ]
    for act in acts:
        with pytest.raises(InvalidInput, match="total, non_embedding, active") as refused:
            act()
        assert refused.value.fields["field"] == "n_params_kind"


@pytest.mark.parametrize("count", ["7B", True, [7]])
def test_a_count_that_is_no_number_is_refused(count: Any) -> None:
    """The refusal names the field and shows the value."""
    with pytest.raises(InvalidInput, match=r"^n_params: .* is no number"):
        n_params_of({"n_params": count})


ODD: tuple[Any, ...] = (5, "x", [1], {1: 2}, object(), 10**400, np.array(["a"]), lambda: 1)


def test_parts_of_a_wrong_kind_are_refused() -> None:
    """Whatever stands where columns, a schedule, a configuration or runs belong: the refusal names the part."""
    curve: dict[str, Any] = {
        "run_id": "r",
        "step": np.array([10]),
        "loss_nats": np.ones(1),
        "schedule": DECLARED,
    }
    columns: dict[str, Any] = {"step": [10, 20], "loss": [3.0, 2.9]}
    table: dict[str, Any] = {"run_ids": ("r",), "columns": {"n_params": np.ones(1)}, "outcome": np.ones(1)}
    row = {"run_id": "r", "config": {}, "summary": {}}
    acts: list[tuple[str, Callable[[Any], object]]] = [
        ("step", lambda odd: Curve(**{**curve, "step": odd})),
        ("loss", lambda odd: Curve(**{**curve, "loss_nats": odd})),
        ("schedule", lambda odd: Curve(**{**curve, "schedule": odd})),
        ("schedule.kind", lambda odd: Curve.from_columns("r", columns, schedule=odd)),
        ("columns", lambda odd: Curve.from_columns("r", odd, schedule=DECLARED)),
        ("loss", lambda odd: Curve.from_columns("r", {**columns, "loss": odd}, schedule=DECLARED)),
        ("config", lambda odd: Curve.from_columns("r", columns, schedule=DECLARED, config=odd)),
        ("columns", lambda odd: RunTable(**{**table, "columns": odd})),
        ("final_loss", lambda odd: RunTable(**{**table, "outcome": odd})),
        ("target", lambda odd: RunTable(**table, target=odd)),
        ("target", lambda odd: RunTable.from_runs([row], target=odd)),
        ("runs[0]", lambda odd: RunTable.from_runs([odd])),
        ("runs[0].config", lambda odd: RunTable.from_runs([{**row, "config": odd}])),
        ("runs[0].summary", lambda odd: RunTable.from_runs([{**row, "summary": odd}])),
    ]
    for part, act in acts:
        for odd in ODD:
            with pytest.raises(InvalidInput) as refused:
                act(odd)
            assert refused.value.fields["field"] in (part, part.removeprefix("schedule.")), (part, odd)


def test_a_kind_of_weight_decay_that_there_is_not_is_refused() -> None:
    """It would be read as none of the kinds, and the run as one without decay."""
    config = {"weight_decay": 0.1, "weight_decay_kind": "foo"}
    with pytest.raises(InvalidInput, match="'foo' is not one of lr_scaled, independent, l2"):
        Curve.from_columns("r", {"step": [10], "loss": [3.0]}, schedule=DECLARED, config=config)
    with pytest.raises(InvalidInput, match=r"^weight_decay: 'x' is no number"):
        Curve.from_columns(
            "r", {"step": [10], "loss": [3.0]}, schedule=DECLARED, config={"weight_decay": "x"}
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("weight_decay", odd) for odd in (-0.1, 10.1, np.nan)),
        *(("batch_tokens", odd) for odd in (0, -1, np.nan)),
    ],
)
def test_a_decay_or_a_batch_that_cannot_be_is_refused(field: str, value: float) -> None:
    """Of a curve and of a planned run, with the field and what it may be."""
    one: dict[str, Any] = {field: value}
    acts: list[Callable[[], object]] = [
        lambda: Curve.from_columns("r", {"step": [10], "loss": [3.0]}, schedule=DECLARED, config=one),
        lambda: Curve("r", np.array([10]), np.array([3.0]), DECLARED, **one),
        lambda: PlannedRun(np.array([10]), DECLARED, **one),
    ]
    for act in acts:
        with pytest.raises(InvalidInput, match="must ") as refused:
            act()
        assert refused.value.fields["field"] == field


def test_a_curve_and_a_table_are_shown_in_a_line_each() -> None:
    """What it is, and not its numbers."""
    curve = Curve.from_columns("a", {"step": STEP, "loss": LOSS}, schedule=SPEC, config={"n_params": 7e6})
    assert repr(curve) == "Curve('a': 8 points of loss, steps 50 to 400, n_params 7e+06)"
    row = {"run_id": "a", "config": {"n_params": 1e6, "n_tokens": 1e9}, "summary": {"final_loss": 3.0}}
    table = RunTable.from_runs([row, {"run_id": "b"}])
    assert repr(table) == "RunTable(2 runs: final_loss of 1, columns n_params, n_tokens)"
    assert repr(table.only([0])) == "RunTable(1 run: final_loss of all, columns n_params, n_tokens)"
    assert repr(table.only([])) == "RunTable(0 runs: final_loss of all, columns n_params, n_tokens)"


def test_a_declaration_that_the_log_belies_is_refused() -> None:
    """It would be taken for the steps before the first log; the error names run, step and both rates."""
    for peak, words in ((10.0, "10,000 times"), (1e-7, "one 10,000th of")):
        spec = {"kind": "constant", "total_steps": 400, "peak_lr": peak}
        columns = {"step": STEP[1:], "loss": LOSS[1:], "lr": np.full(STEP.size - 1, 1e-3)}
        reason = f"run 'r': at step 50 the declared learning rate, {peak:g}, is {words} the logged one, 0.001"
        with pytest.raises(InvalidSchedule, match=re.escape(reason)):
            Curve.from_columns("r", columns, schedule=spec)
        from_one = {"step": [1, 2], "loss": [4.0, 3.0], "lr": [1e-3, 1e-3]}
        assert Curve.from_columns("r", from_one, schedule=spec).schedule.peak_lr == 1e-3
    from_zero = {"step": STEP[1:], "loss": LOSS[1:], "lr": np.where(STEP[1:] == 50, 0, DECLARED.lr(STEP[1:]))}
    assert "the logged lr is 0" in Curve.from_columns("r", from_zero, schedule=SPEC).notes[0]


def test_a_branch_may_begin_at_any_rate() -> None:
    """Its parent's schedule is no declaration of its own."""
    schedule, _ = branch_learning_rates("b", DECLARED, 300, np.array([310]), np.array([1e-5]), None)
    assert schedule.lr([305, 310]).tolist() == [1e-3, 1e-5]
