"""Input that no law fits: the outcome is a verdict or a clear error, never a silent number, a flood or a hang."""

from __future__ import annotations

import dataclasses
import json
import time
from functools import cache
from typing import Any

import numpy as np
import pytest

from isoloss.errors import FitFailed, InvalidInput, InvalidSchedule, IsolossError, Unidentified, UnusableData
from isoloss.fitting import Fit, compare, fit
from isoloss.laws import LAWS, CurveLaw, TableLaw
from isoloss.observations import Curve, RunTable
from isoloss.schedules import Schedule, schedule_from_spec

REFUSALS = (InvalidInput, UnusableData, FitFailed)
LONGEST_S = 20.0
"""Seconds of a slow processor that no small problem may take; other work beside it does not count."""

CURVE_LAWS = sorted(name for name, law in LAWS.items() if isinstance(law, CurveLaw))
TABLE_LAWS = sorted(name for name, law in LAWS.items() if isinstance(law, TableLaw) and law.predicts_outcomes)
every_law = pytest.mark.parametrize("name", sorted([*CURVE_LAWS, *TABLE_LAWS]))
every_curve_law = pytest.mark.parametrize("name", CURVE_LAWS)
every_table_law = pytest.mark.parametrize("name", TABLE_LAWS)

WARMED = {"warmup_steps": 100, "peak_lr": 1e-3}
SPECS: tuple[dict[str, Any], ...] = (
    {"kind": "constant", "total_steps": 6_000},
    {"kind": "cosine", "total_steps": 4_000, "end_lr": 1e-4},
    {"kind": "wsd", "total_steps": 5_000, "decay_start": 4_000},
    {"kind": "two_stage", "total_steps": 4_500, "switch_step": 2_500, "second_lr": 3e-4},
)


def run(run_id: str, spec: dict[str, Any], n_points: int = 40, **fields: Any) -> Curve:
    """A run whose loss falls with its progress and a little with its learning rate."""
    schedule = schedule_from_spec(WARMED | spec)
    total = schedule.total_steps
    step = np.unique(np.linspace(min(101, total), total, n_points).astype(np.int64))
    wiggle = 1 + 1e-3 * np.sin(7.0 * np.arange(step.size))
    with np.errstate(divide="ignore", over="ignore"):
        fall = (schedule.area(step) / schedule.peak_lr / 1e3) ** -0.45
    loss = (2.5 + 0.6 * np.minimum(fall, 10.0) + 0.2 * schedule.lr(step) / schedule.peak_lr) * wiggle
    curve = Curve(run_id, step, loss, schedule, 1e7, "total", weight_decay=0.1)
    return dataclasses.replace(curve, **fields)


def runs(n_points: int = 40) -> list[Curve]:
    return [run(spec["kind"], spec, n_points) for spec in SPECS]


def table(n_runs: int = 24) -> RunTable:
    """Finished runs over two decades of sizes, tokens and batches, with a wiggle of a part in a thousand."""
    order = np.arange(n_runs)
    batch = 10 ** (4 + 2 * ((order * 0.732) % 1))
    size, data = 10 ** (7 + 2 * ((order * 0.618) % 1)), 10 ** (9 + 2 * ((order * 0.414) % 1))
    loss = (1.7 + 400 * size**-0.34 + 900 * data**-0.31) * (1 + 1e-3 * np.sin(7.0 * order))
    columns = {"n_params": size, "n_tokens": data, "batch_tokens": batch}
    return RunTable(tuple(f"run-{row:02}" for row in order), columns, loss, n_params_kind="total")


def good(name: str) -> list[Curve] | RunTable:
    return table() if name in TABLE_LAWS else runs()


def names_of(observations: list[Curve] | RunTable) -> list[str]:
    if isinstance(observations, RunTable):
        return list(observations.run_ids)
    return [one.run_id for one in observations]


def outcome(name: str, observations: list[Curve] | RunTable, **options: Any) -> Fit | IsolossError:
    """Fit, check what every outcome promises, and return the fit or the refusal."""
    begin = time.process_time()
    try:
        found = fit(name, observations, **{"bootstrap": 5, **options})
    except REFUSALS as refusal:
        return _said(refusal)
    finally:
        assert time.process_time() - begin < LONGEST_S
    document = json.loads(json.dumps(found.as_document(), allow_nan=False))
    assert Fit.from_document(document).public() == found.public()
    assert found.verdict == "sound" or found.reasons
    if found.verdict != "unidentified":
        assert np.all(np.isfinite(found.theta))
        _predict(name, found)
    return found


def _said(refusal: IsolossError) -> IsolossError:
    """A refusal has words, and names the field where there is one."""
    assert len(str(refusal)) > 10
    assert not isinstance(refusal, InvalidInput) or refusal.fields["field"]
    return refusal


def _predict(name: str, found: Fit) -> None:
    """A prediction is numbers with ends in their order, or a refusal."""
    asked: dict[str, Any] = {"config": {"n_params": 1e10, "n_tokens": 1e12}}
    if name in CURVE_LAWS:
        asked = {"schedule": WARMED | {"kind": "linear", "total_steps": 20_000}, "n_params": 1e7}
    try:
        predicted = found.predict(**asked, interval="new_run")
    except IsolossError:
        return
    json.dumps(predicted.as_dict(), allow_nan=False)
    assert np.all((predicted.lower <= predicted.value) & (predicted.value <= predicted.upper))


def verdict(found: Fit | IsolossError) -> str:
    assert isinstance(found, Fit), found
    return found.verdict


def refusal(found: Fit | IsolossError, kind: type[IsolossError] = InvalidInput) -> IsolossError:
    assert isinstance(found, kind), found
    return found


def with_losses(observations: list[Curve] | RunTable, loss: float) -> list[Curve] | RunTable:
    if isinstance(observations, RunTable):
        return dataclasses.replace(observations, outcome=np.full(observations.n_runs, loss))
    return [dataclasses.replace(one, loss_nats=np.full(one.n_points, loss)) for one in observations]


def first(observations: list[Curve] | RunTable, count: int) -> list[Curve] | RunTable:
    return observations.only(range(count)) if isinstance(observations, RunTable) else observations[:count]


@cache
def unspoiled(name: str) -> Fit | IsolossError:
    """The outcome of the observations as they are."""
    return outcome(name, good(name))


@every_law
def test_what_is_spoiled_below_is_fitted_when_it_is_whole(name: str) -> None:
    """The observations of these tests are identified: what they show is what was done to them."""
    assert verdict(unspoiled(name)) != "unidentified"


@every_law
def test_identical_points_are_unidentified(name: str) -> None:
    """Losses that are all the same determine no exponent: no answer, and the reason says so."""
    found = outcome(name, with_losses(good(name), 3.0))
    assert verdict(found) == "unidentified"
    assert isinstance(found, Fit)
    with pytest.raises(Unidentified, match="the losses do not vary"):
        found.predict()


@every_table_law
def test_identical_runs_are_unidentified(name: str) -> None:
    """Twenty runs of one configuration show no scaling, whatever their losses."""
    whole = table()
    same = {column: np.full(whole.n_runs, values[0]) for column, values in whole.columns.items()}
    assert verdict(outcome(name, dataclasses.replace(whole, columns=same))) == "unidentified"


@every_table_law
def test_fewer_configurations_than_parameters_are_unidentified(name: str) -> None:
    """Two configurations of twelve runs each are two observations."""
    whole = table()
    two = {column: values[np.arange(whole.n_runs) % 2] for column, values in whole.columns.items()}
    found = outcome(name, dataclasses.replace(whole, columns=two))
    assert isinstance(found, Fit)
    assert found.verdict == "unidentified"
    assert any("2 different configurations" in reason for reason in found.reasons)


@every_law
@pytest.mark.parametrize("count", [1, 2])
def test_one_run_or_two_are_not_sound(name: str, count: int) -> None:
    """One run or two show nothing of another one."""
    assert verdict(outcome(name, first(good(name), count))) in ("weak", "unidentified")


@every_curve_law
@pytest.mark.parametrize("n_points", [1, 2])
def test_fewer_points_than_parameters_are_unidentified(name: str, n_points: int) -> None:
    """A point or two of a run are fewer than any law has parameters."""
    few = [run("few", SPECS[1], n_points)]
    found = outcome(name, few)
    assert isinstance(found, Fit)
    assert found.verdict == "unidentified"
    assert all(one.value is None for one in found.parameters.values())


@every_table_law
@pytest.mark.parametrize("column", ["n_params", "n_tokens", "outcome"])
def test_columns_from_1e_300_to_1e300_are_left_out_by_name(name: str, column: str) -> None:
    """A number that is none of tokens, parameters or nats keeps its run out, and the reason says which."""
    if column not in (*LAWS[name].columns, "outcome"):  # type: ignore[attr-defined]
        pytest.skip("the law does not read it")
    whole, wild = table(), 10 ** np.linspace(-300, 300, 24)
    if column == "outcome":
        wide, field = dataclasses.replace(whole, outcome=wild), "final_loss"
    else:
        wide, field = dataclasses.replace(whole, columns={**whole.columns, column: wild}), column
    found = outcome(name, wide)
    if isinstance(found, UnusableData):
        assert field in str(found)
        return
    assert isinstance(found, Fit)
    assert len(found.left_out) > 10
    assert all(field in said["reason"] for said in found.left_out)
    assert found.verdict != "sound"


@every_curve_law
def test_curves_of_numbers_that_cannot_be_meant_are_left_out(name: str) -> None:
    """Losses from 1e-300 to 1e300 and a size of 1e300 each keep their run out, with the reason."""
    wild = [
        run("losses", SPECS[0], loss_nats=10 ** np.linspace(-300, 300, 40)),
        run("size", SPECS[0] | {"total_steps": 9_000}, n_params=1e300),
    ]
    found = outcome(name, [*runs(), *wild])
    assert isinstance(found, Fit)
    said = {one["run_id"]: one["reason"] for one in found.left_out}
    assert "no nats per token" in said["losses"]
    assert "n_params" in said["size"]


@cache
def without_the_twelfth(name: str) -> Fit | IsolossError:
    """The outcome of all rows but one."""
    return outcome(name, table().only([row for row in range(24) if row != 12]))


@every_table_law
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_a_row_that_is_no_number_in_the_middle_is_left_out(name: str, value: float) -> None:
    """The other rows are fitted as if it were not there."""
    whole = table()
    spoiled = whole.outcome.copy()
    spoiled[12] = value
    found = outcome(name, dataclasses.replace(whole, outcome=spoiled))
    without = without_the_twelfth(name)
    assert isinstance(found, Fit)
    assert isinstance(without, Fit)
    assert [said["run_id"] for said in found.left_out] == ["run-12"]
    assert found.objective == without.objective


@every_curve_law
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_point_that_is_no_number_in_the_middle_is_left_out(name: str, value: float) -> None:
    """It is a gap, with a note."""
    whole = runs()
    loss = whole[0].loss_nats.copy()
    loss[20] = value
    columns = {"step": whole[0].step, "loss": loss}
    config = {"weight_decay": 0.1, "n_params_total": 1e7, "n_params_kind": "total"}
    spoiled = Curve.from_columns("constant", columns, schedule=whole[0].schedule, config=config)
    found = outcome(name, [spoiled, *whole[1:]])
    assert isinstance(found, Fit)
    before = unspoiled(name)
    assert isinstance(before, Fit)
    assert found.diagnostics["n_points"] == before.diagnostics["n_points"] - 1
    assert any("not finite" in reason for reason in found.reasons)


@every_law
def test_a_bound_that_excludes_the_data_is_said(name: str) -> None:
    """A floor above every loss ends in a failure or a parameter at its bound, never in a sound fit."""
    floor, lowest = ("N_c", 1e80) if name == "kaplan" else ("E" if name in TABLE_LAWS else "L0", 50.0)
    found = outcome(name, good(name), bounds={floor: [lowest, None]})
    assert isinstance(found, FitFailed) or verdict(found) != "sound"
    if isinstance(found, Fit):
        assert found.verdict == "unidentified" or found.parameters[floor].at_bound


EXPONENTS = {
    "chinchilla": ("alpha", [2.5, 3.0]),
    "power_law": ("exponent", [-3.0, -2.5]),
    "kaplan": ("alpha_D", [2.5, 3.0]),
    "power_law_compute": ("exponent", [-3.0, -2.5]),
    "broken_power_law": ("a", [2.5, 3.0]),
    "three_term": ("alpha", [2.5, 3.0]),
    "lr_annealing": ("alpha", [2.5, 3.0]),
    "multi_power": ("alpha", [2.5, 3.0]),
    "concave_memory": ("a", [1.1, None]),
    "effective_lr": ("a", [1.1, None]),
}


@every_law
def test_an_exponent_bounded_away_from_the_data_is_said(name: str) -> None:
    """The parameter is reported at its bound, or the runs far from the law are."""
    parameter, pair = EXPONENTS[name]
    found = outcome(name, good(name), bounds={parameter: pair})
    assert verdict(found) != "sound"


OPTIONS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"starts": 0}, "starts"),
    ({"starts": 10**9}, "starts"),
    ({"bootstrap": -1}, "bootstrap"),
    ({"level": 1.0}, "level"),
    ({"level": float("nan")}, "level"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"huber_delta": 0.0}, "huber_delta"),
    ({"huber_delta": 1e-300}, "huber_delta"),
    ({"huber_delta": float("inf")}, "huber_delta"),
    ({"prior_strength": float("inf")}, "prior_strength"),
    ({"prior_strength": 1e300}, "prior_strength"),
    ({"priors": {"nothing": [1.0, 1.0]}}, "priors.nothing"),
    ({"resample": "points"}, "resample"),
    ({"backend": "abacus"}, "backend"),
    ({"convention": "unknown"}, "convention"),
    ({"holdout": {"fraction": 0.99}}, "holdout.fraction"),
    ({"holdout": {"fraction": 1.0}}, "holdout.fraction"),
    ({"holdout": {"run_ids": []}}, "holdout.run_ids"),
    ({"n_params_kind": "imaginary"}, "n_params_kind"),
    ({"target": "accuracy"}, "target"),
    ({"skip_steps": -1}, "skip_steps"),
    ({"nonsense": 1}, "options.nonsense"),
)


@pytest.mark.parametrize(("options", "field"), OPTIONS)
@pytest.mark.parametrize("name", ["chinchilla", "concave_memory"])
def test_options_that_cannot_be_met_name_their_field(name: str, options: dict[str, Any], field: str) -> None:
    """Each is refused before any work, by the name of the option."""
    assert refusal(outcome(name, good(name), **options)).fields["field"] == field


NO_OBSERVATIONS: tuple[Any, ...] = ("x", b"x", [1, 2], None, 5, {"a": 1}, [None], object)


ODD: tuple[Any, ...] = (
    5,
    -1,
    1.5,
    np.nan,
    np.inf,
    10**400,
    "x",
    "",
    b"x",
    [1],
    {1: 2},
    True,
    object(),
    np.ones(2),
)
ODD_PAIRS: tuple[Any, ...] = (
    "x",
    [1],
    [1, 2, 3],
    ["a", "b"],
    [np.nan, 1],
    [10**400, None],
    10**400,
    np.ones(3),
)


@pytest.mark.parametrize("name", ["chinchilla", "lr_annealing", "auto"])
def test_an_option_of_a_wrong_kind_is_refused_by_its_name(name: str) -> None:
    """Whatever stands where a name, a mapping or a number belongs: no error but a refusal that names the option."""
    mappings = ("fix", "bounds", "expr", "priors")
    texts = ("target", "n_params_kind", "resample", "convention", "backend")
    cases = [(option, wrong) for option in (*mappings, *texts) for wrong in ODD]
    cases += [(option, {"alpha": wrong}) for option in ("bounds", "priors", "expr") for wrong in ODD_PAIRS]
    cases += [
        (option, wrong) for option in ("level", "huber_delta") for wrong in (10**400, "x", [1], np.ones(2))
    ]
    cases += [("fix", {"alpha": 10**400}), ("fix", {"alpha": "x"}), ("holdout", {"fraction": 10**400})]
    for option, wrong in cases:
        with pytest.raises(InvalidInput) as refused:
            fit(name, table() if name == "chinchilla" else runs(), **{"bootstrap": 0, option: wrong})
        field = str(refused.value.fields["field"])
        assert field.split(".")[0] == option, (option, wrong)


def test_a_question_of_a_wrong_kind_is_refused_by_its_name() -> None:
    """A level, an interval, a configuration or a size that is none; numbers that no float can hold."""
    tables, curves = (
        fit(name, good(name), bootstrap=2, profile=False) for name in ("chinchilla", "lr_annealing")
    )
    size: dict[str, Any] = {"n_params": 1e9, "n_tokens": 1e10}
    planned: dict[str, Any] = {"schedule": WARMED | SPECS[0], "config": {"n_params": 1e7}}
    cases = [(name, wrong) for name in ("level", "config", "interval") for wrong in ODD]
    for found, asked in ((tables, size), (curves, planned)):
        for name, wrong in [*cases, ("config.n_params_kind", np.ones(2)), ("config.n_params", 10**400)]:
            part = name.partition(".")[2]
            question = {**asked, **({"config": {part: wrong}} if part else {name: wrong})}
            with pytest.raises(InvalidInput) as refused:
                found.predict(**question)
            assert refused.value.fields["field"] == name, (name, wrong)
    for wrong in (10**400, [10**400], "x", object()):
        with pytest.raises(InvalidInput, match="n_tokens: "):
            tables.predict(n_params=1e9, n_tokens=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [None, 5, "x", {}, {"private": None}, {"private": {"theta": [1.0]}}], ids=repr
)
def test_a_document_of_something_else_is_no_fit(wrong: Any) -> None:
    """It is refused, whatever is missing of it."""
    with pytest.raises(InvalidInput, match=r"Fit\.as_document made") as refused:
        Fit.from_document(wrong)
    assert refused.value.fields["field"] == "document"


@pytest.mark.parametrize("wrong", [5, "chinchilla", object()], ids=type)
def test_what_names_no_laws_is_not_compared(wrong: Any) -> None:
    """One name is not a list of letters."""
    with pytest.raises(InvalidInput, match="must be a list of names") as refused:
        compare(table(), wrong)
    assert refused.value.fields["field"] == "laws"


def test_what_stands_beside_the_options_is_checked() -> None:
    """Progress that cannot be told, left-out runs that are none, and an earlier fit that is none."""
    for beside, wrong in (("progress", 5), ("left_out", 5), ("left_out", [1]), ("previous", {"law": "x"})):
        with pytest.raises(InvalidInput) as refused:
            fit("chinchilla", table(), **{beside: wrong})
        assert refused.value.fields["field"] == beside


def test_options_of_numpy_are_those_of_python() -> None:
    """Numbers and pairs that NumPy made give the same fit, down to its document."""
    own = {"bootstrap": 3, "level": 0.8, "fix": {"beta": 1}, "bounds": {"alpha": [0.25, 0.5]}}
    its = {
        "bootstrap": np.int64(3),
        "level": np.float64(0.8),
        "fix": {"beta": np.int32(1)},
        "bounds": {"alpha": np.array([0.25, 0.5])},
    }
    one, other = (fit("chinchilla", table(), **options).as_document() for options in (own, its))  # type: ignore[arg-type]
    assert json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("name", ["chinchilla", "concave_memory", "auto"])
@pytest.mark.parametrize("wrong", NO_OBSERVATIONS, ids=repr)
def test_what_is_neither_curves_nor_a_table_is_refused(name: str, wrong: Any) -> None:
    """The refusal says what is expected and what was given."""
    for act in (lambda: fit(name, wrong), lambda: compare(wrong, [name])):
        with pytest.raises(InvalidInput, match="list of curves") as refused:
            act()
        assert refused.value.fields["field"] == "observations"


@pytest.mark.parametrize("wrong", [None, 5, [], "x", object], ids=repr)
def test_what_is_no_law_is_refused(wrong: Any) -> None:
    """Whatever it is; the laws that there are are named."""
    with pytest.raises(InvalidInput, match="is not one of lr_annealing"):
        fit(wrong, table())


def test_curves_may_come_one_by_one() -> None:
    """An iterator of curves is fitted as the list of them."""
    assert fit("lr_annealing", iter(runs()), bootstrap=0).public() == (  # type: ignore[arg-type]
        fit("lr_annealing", runs(), bootstrap=0).public()
    )


@every_law
def test_all_runs_held_out_leave_nothing_to_fit(name: str) -> None:
    """The refusal is about the holdout."""
    held = {"run_ids": names_of(good(name))}
    assert refusal(outcome(name, good(name), holdout=held)).fields["field"] == "holdout"


@every_law
def test_a_prior_outside_the_bounds_is_refused_or_at_the_bound(name: str) -> None:
    """A strong prior on one side of a bound and the data on the other end at the bound, which is said."""
    parameter, pair = EXPONENTS[name]
    low = pair[0]
    centre = -0.3 if low < 0 else 0.3
    found = outcome(
        name,
        good(name),
        bounds={parameter: pair},
        priors={parameter: [centre, 1e-3]},
        prior_strength=1.0,
    )
    assert isinstance(found, REFUSALS) or found.verdict != "sound"


@every_law
def test_cuda_without_a_device_is_refused(name: str) -> None:
    """The backend is named; nothing falls back in silence."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    assert refusal(outcome(name, good(name), backend="cuda")).fields["field"] == "backend"


@every_law
@pytest.mark.parametrize(
    "options",
    [
        {"starts": 1},
        {"starts": 5_000, "bootstrap": 0},
        {"bootstrap": 1},
        {"level": 0.999999},
        {"level": 1e-6},
        {"seed": 2**63 - 1},
        {"prior_strength": 0.0},
        {"huber_delta": 1e-8},
        {"huber_delta": 1e8},
        {"resample": "configurations"},
        {"resample": "blocks"},
        {"holdout": {"fraction": 1e-9}},
    ],
    ids=str,
)
def test_extreme_options_have_an_outcome(name: str, options: dict[str, Any]) -> None:
    """The ends of every allowed range work: what they cannot show is said."""
    if options.get("starts") == 5_000 and name in CURVE_LAWS:  # as many take these half a minute
        options = options | {"starts": 500}
    found = outcome(name, good(name), **options)
    if options.get("resample") == "blocks" and name not in CURVE_LAWS:
        assert isinstance(found, InvalidInput)  # a run of a table is one point
        return
    assert isinstance(found, Fit)
    if options.get("bootstrap") == 1 or options.get("level") == 0.999999:
        assert any("too few for an interval" in reason for reason in found.reasons)


@every_law
def test_an_expression_beside_every_other_option_has_an_outcome(name: str) -> None:
    """Bounds, fixed values, priors, a holdout and an expression: a fit or a refusal, in seconds."""
    law = LAWS[name]
    tied, one, other = law.parameters[0].name, law.parameters[1].name, law.parameters[2].name
    found = outcome(
        name,
        good(name),
        expr={tied: f"1.5 + 0 * {one if one != 'lambda' else 'lambda_'}"},
        bounds={one: [None, 1e4]},
        priors={other: None},
        holdout={"fraction": 0.2},
        bootstrap=1,
        starts=2,
        level=0.5,
        huber_delta=0.01,
    )
    if isinstance(found, Fit):
        assert found.parameters[tied].value == pytest.approx(1.5)


@every_curve_law
@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "constant", "total_steps": 10**10},
        {"kind": "wsd", "total_steps": 10**10, "decay_start": 8 * 10**9},
        {"kind": "linear", "total_steps": 6_000, "end_lr": 0.0},
        {"kind": "cosine", "total_steps": 6_000, "end_lr": 0.0},
        {"kind": "two_stage", "total_steps": 6_000, "switch_step": 3_000, "second_lr": 0.0},
        {"kind": "constant", "total_steps": 6_000, "peak_lr": 1e-12},
        {"kind": "wsd", "total_steps": 6_000, "decay_start": 5_000, "peak_lr": 1e3},
        {"kind": "wsd", "total_steps": 1, "decay_start": 0, "warmup_steps": 0},
    ],
    ids=str,
)
def test_extreme_schedules_have_an_outcome(name: str, spec: dict[str, Any]) -> None:
    """Ten billion steps, rates of 0 for half the run, peaks of 1e-12 and 1e3: alone and beside usual runs."""
    odd = run("odd", spec)
    for several in ([odd], [*runs(), odd]):
        outcome(name, several)


@every_curve_law
def test_points_before_the_first_learning_rate_do_not_enter(name: str) -> None:
    """A log that begins with rates of 0: those points have seen no training, the others are fitted."""
    values = np.append(np.zeros(500), np.full(5_500, 1e-3))
    idle = schedule_from_spec({"kind": "values", "lr": values.tolist()})
    odd = dataclasses.replace(run("idle", SPECS[0]), schedule=idle)
    found = outcome(name, [*runs(), odd], skip_steps=100)
    assert isinstance(found, Fit)
    assert found.diagnostics["first_fitted_step"]["idle"] > 500


@every_curve_law
def test_a_run_of_one_point_enters_with_the_others(name: str) -> None:
    """It is a point like another."""
    one = run("one", SPECS[0] | {"total_steps": 5_500}, 1)
    assert isinstance(outcome(name, [*runs(), one]), Fit)


@every_law
def test_a_run_that_stands_twice_is_refused(name: str) -> None:
    """The same name twice is a mistake of the caller."""
    whole = good(name)
    twice = whole.only([0, 0, 1, 2]) if isinstance(whole, RunTable) else [*whole, whole[0]]
    assert refusal(outcome(name, twice)).fields["field"] == "select"


@every_curve_law
def test_a_held_out_run_that_cannot_be_predicted_is_said(name: str) -> None:
    """A run of another size, held out from a fit of one size: the fit stands, the run is not scored, and why."""
    other = run("other-size", SPECS[1] | {"total_steps": 3_000}, n_params=1e9)
    found = outcome(name, [*runs(), other], holdout={"run_ids": ["other-size"]})
    assert isinstance(found, Fit)
    assert found.holdout is not None
    assert found.holdout["runs"] == {}
    assert found.holdout["training"]["runs"]
    assert any(one["run_id"] == "other-size" and "not scored" in one["reason"] for one in found.left_out)


@pytest.mark.parametrize("name", ["auto"])
def test_the_choice_of_a_law_refuses_what_no_law_can_use(name: str) -> None:
    """Nothing to predict from others: the reason of every law is told."""
    for few in (runs()[:1], table(2)):
        with pytest.raises(UnusableData, match="no law could be scored"):
            fit(name, few, bootstrap=0)
    with pytest.raises(UnusableData):
        fit(name, [], bootstrap=0)


# A loop of random small problems: what nobody thought of.


def random_schedule(random: np.random.Generator, total: int) -> Schedule:
    peak = float(random.choice([1e-3, 1e-3, 3e-4, 1e-12, 1e3]))
    warmup = int(random.choice([0, min(100, total - 1)]))
    common = {"total_steps": total, "warmup_steps": warmup, "peak_lr": peak}
    later = max(warmup, int(0.7 * total))
    return schedule_from_spec(
        common
        | [
            {"kind": "constant"},
            {"kind": "linear", "end_lr": float(random.choice([0.0, peak / 10]))},
            {"kind": "cosine", "end_lr": float(random.choice([0.0, peak / 10]))},
            {"kind": "wsd", "decay_start": min(later, total - 1)},
            {"kind": "two_stage", "switch_step": later, "second_lr": float(random.choice([0.0, peak / 3]))},
        ][random.integers(5)]
    )


def random_losses(random: np.random.Generator, n: int, falling: np.ndarray) -> np.ndarray:
    kinds = (falling, falling, np.full(n, 3.0), 1 + 3 * random.random(n), 10 ** random.uniform(-7, 5, n))
    return kinds[random.integers(len(kinds))]


def random_curves(random: np.random.Generator) -> list[Curve]:
    several = []
    for number in range(random.choice([1, 2, 3, 4, 9])):
        schedule = random_schedule(random, int(random.choice([1, 2, 5, 30, 1_000, 8_000, 10**7, 10**10])))
        step = np.unique(np.linspace(1, schedule.total_steps, random.choice([1, 3, 10, 60])).astype(np.int64))
        with np.errstate(divide="ignore"):
            falling = (
                2.4 + np.minimum(0.5 * schedule.area(step) ** -0.4, 9.0) + random.normal(0, 1e-3, step.size)
            )
        loss = random_losses(random, step.size, falling)
        size = float(random.choice([1e7, 1e7, 1e8, 1e9, 1e-300, 1e300]))
        decay = [None, 0.0, 0.1, 10.0][random.integers(4)]
        several.append(Curve(f"r{number}", step, loss, schedule, size, "total", weight_decay=decay))
    return several


def random_table(random: np.random.Generator) -> RunTable:
    n = int(random.choice([1, 2, 3, 5, 6, 8, 12, 20]))
    low, high = [(6, 10), (6, 10), (8, 8), (8, 8 + 1e-10), (-20, 29), (-300, 300)][random.integers(6)]
    size, data = 10 ** random.uniform(low, high, (2, n))
    if random.random() < 0.3:
        size, data = (10.0 ** random.integers(7, 9, n) for _ in range(2))
    with np.errstate(over="ignore"):
        falling = 1.7 + np.minimum(400 * size**-0.34 + 900 * data**-0.31, 1e3)
    loss = random_losses(random, n, falling)
    if random.random() < 0.3:
        loss = np.where(random.random(n) < 0.3, random.choice([np.nan, np.inf, 0.0, -1.0], n), loss)
    columns = {"n_params": size, "n_tokens": data, "batch_tokens": random.choice([2.0**16, 2.0**20, 0.5], n)}
    return RunTable(tuple(f"r{row}" for row in range(n)), columns, loss)


def random_options(random: np.random.Generator, name: str, run_ids: list[str]) -> dict[str, Any]:
    """Some options, most of them within what is allowed."""
    parameters = LAWS[name].parameters
    one, other = (parameters[index] for index in random.integers(len(parameters), size=2))
    low = one.lower if np.isfinite(one.lower) else 0.0
    high = one.upper if np.isfinite(one.upper) else 1e6
    pair = sorted(map(float, random.uniform(low, high, 2)))
    some = [run_ids[index] for index in np.unique(random.integers(len(run_ids), size=2))]
    possible: list[dict[str, Any]] = [
        {"starts": int(random.choice([1, 2, 50]))},
        {"level": float(random.choice([0.999999, 1e-6, 0.5]))},
        {"holdout": {"fraction": float(random.choice([0.99, 0.5, 1e-9]))}},
        {"holdout": {"run_ids": some}},
        {"resample": str(random.choice(["runs", "configurations", "blocks"]))},
        {"bounds": {one.name: pair}},
        {"bounds": {one.name: [float(random.choice([5.0, 1e300])), None]}},
        {"fix": {one.name: float(random.choice([low, high, 0.5, 1e300]))}},
        {"priors": {one.name: [float(random.choice([0.5, 1e-5, 1e5])), float(random.choice([1e-6, 1.0]))]}},
        {"prior_strength": float(random.choice([0.0, 1e-300, 1.0, 1e6]))},
        {"huber_delta": float(random.choice([1e-9, 1e9]))},
        {"skip_steps": int(random.choice([0, 5, 10**9]))},
    ]
    if random.random() < 0.05:
        possible = [{"expr": {one.name: f"{other.name} * {float(random.choice([1.0, -1.0, 1e300]))!r}"}}]
    chosen: dict[str, Any] = {
        "bootstrap": int(random.choice([0, 1, 3])),
        "seed": int(random.choice([0, 2**63 - 1])),
    }
    for index in random.integers(len(possible), size=random.integers(0, 3)):
        chosen |= possible[index]
    return chosen


def check_random_problems(name: str, seeds: range) -> None:
    for seed in seeds:
        random = np.random.default_rng([seed, len(name)])
        try:
            observations = random_table(random) if name in TABLE_LAWS else random_curves(random)
        except InvalidSchedule:  # a schedule that cannot be is refused before there is anything to fit
            continue
        options = random_options(random, name, names_of(observations))
        try:
            outcome(name, observations, **options)
        except Exception as error:
            error.add_note(f"seed {seed}, options {options}")
            raise


@every_law
def test_random_problems_end_in_a_verdict_or_a_refusal(name: str) -> None:
    """Thirty small problems a law, wild in data and options: JSON without NaN, no warning, no other error."""
    check_random_problems(name, range(30))


@pytest.mark.soak
@every_law
def test_many_random_problems_end_in_a_verdict_or_a_refusal(name: str) -> None:
    """The same a thousand times."""
    check_random_problems(name, range(30, 1_030))
