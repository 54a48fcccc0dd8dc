"""Forecasts of runs that still train, on runs whose end is known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isoloss.advice.forecasts import Forecast, Forecaster, companions, families
from isoloss.errors import InvalidInput, UnusableData
from isoloss.laws import LAWS
from isoloss.observations import Curve
from tests.fitting.synthetic import CONSTANT, COSINE, LINEAR, WSD, curve

NOISE = 1e-3


def specs() -> list[dict[str, Any]]:
    """Eight schedules of one peak learning rate."""
    shapes = (COSINE, LINEAR, WSD)
    found = [{**shape, "total_steps": steps} for steps in (6_000, 8_000, 10_000) for shape in shapes]
    return [{**spec, **_decay(spec)} for spec in found][:8]


def _decay(spec: dict[str, Any]) -> dict[str, Any]:
    return {"decay_start": int(0.8 * spec["total_steps"])} if spec["kind"] == "wsd" else {}


def finished(noise: float = NOISE) -> list[Curve]:
    return [curve(f"run-{at}", spec, noise=noise, seed=at) for at, spec in enumerate(specs())]


def seen(run: Curve, share: float) -> Curve:
    kept = run.step <= share * run.schedule.total_steps
    return replace(run, step=run.step[kept], loss_nats=run.loss_nats[kept])


def raised(run: Curve, by: float, since: float = 0.0) -> Curve:
    late = run.step > since * run.schedule.total_steps
    return replace(run, loss_nats=run.loss_nats * np.where(late, 1 + by, 1.0))


@pytest.fixture(scope="module")
def learned() -> Forecaster:
    return Forecaster.learn(finished())


@pytest.fixture
def running() -> Curve:
    return curve("running", {**COSINE, "total_steps": 9_000}, noise=NOISE, seed=77)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.25, 0.5, 0.75, 0.99])
def test_a_run_like_the_finished_ones_ends_within_its_band(
    learned: Forecaster, running: Curve, share: float
) -> None:
    said = learned.forecast(seen(running, share))
    final = float(running.loss_nats[-1])

    assert said.value is not None
    assert said.lower is not None
    assert said.upper is not None
    assert said.lower <= final <= said.upper
    assert said.value == pytest.approx(final, rel=4e-3)
    assert (said.upper - said.lower) / final < 0.02
    assert (said.law, said.n_runs, said.n_families, said.reasons) == ("concave_memory", 8, 8, ())


def test_the_losses_to_come_are_drawn_to_the_end(learned: Forecaster, running: Curve) -> None:
    said = learned.forecast(seen(running, 0.5))
    assert said.expected is not None
    expected = {name: np.array(column) for name, column in said.expected.items()}

    assert expected["steps"][0] > 0.5 * 9_000
    assert expected["steps"][-1] == 9_000
    assert expected["value"][-1] == pytest.approx(said.value, rel=1e-8)
    actual = np.interp(expected["steps"], running.step, running.loss_nats)
    assert np.abs(np.log(expected["value"] / actual)).max() < 6e-3


def test_bands_hold_nine_of_ten_new_runs(learned: Forecaster) -> None:
    held = []
    for seed in range(100, 160):
        spec = {**(COSINE, LINEAR, WSD)[seed % 3], "total_steps": 7_000 + 50 * (seed - 100)}
        run = curve("new", {**spec, **_decay(spec)}, noise=NOISE, seed=seed)
        said = learned.forecast(seen(run, 0.5))
        assert said.lower is not None
        assert said.upper is not None
        held.append(said.lower <= run.loss_nats[-1] <= said.upper)
    assert np.mean(held) >= 0.85


def test_a_run_that_goes_on_as_it_began_does_not_leave_its_band(learned: Forecaster) -> None:
    shares = np.linspace(0.1, 0.99, 12)
    told = 0
    for seed in range(20):
        run = curve("new", {**LINEAR, "total_steps": 8_500}, noise=NOISE, seed=1000 + seed)
        told += any(learned.forecast(seen(run, share)).left_band for share in shares)
    assert told <= 1


@pytest.mark.parametrize(("by", "where"), [(0.02, "above"), (-0.02, "below")])
def test_a_run_whose_loss_jumps_leaves_its_band(
    learned: Forecaster, running: Curve, by: float, where: str
) -> None:
    jumped = raised(running, by, since=0.5)
    assert learned.forecast(seen(jumped, 0.5)).left_band is None

    told = learned.forecast(seen(jumped, 0.6)).left_band

    assert told is not None
    assert f"2.0% {where}" in told or f"1.9% {where}" in told or f"2.1% {where}" in told


def test_a_run_far_off_the_law_is_taken_at_its_word_and_the_band_reaches_to_the_law(
    learned: Forecaster, running: Curve
) -> None:
    said = learned.forecast(seen(raised(running, 0.05), 0.5))
    final = float(running.loss_nats[-1])

    assert said.value == pytest.approx(1.05 * final, rel=6e-3)
    assert said.lower is not None
    assert said.lower < 1.005 * final
    assert "the forecast follows the run" in " ".join(said.reasons)
    assert said.left_band is not None


def test_a_longer_run_and_another_peak_are_called_beyond(learned: Forecaster) -> None:
    longer = curve("longer", {**COSINE, "total_steps": 30_000}, seed=5)
    [reason] = learned.forecast(seen(longer, 0.3)).reasons
    assert "3 times as long" in reason

    hotter = curve("hotter", {**COSINE, "peak_lr": 2e-3}, seed=5)
    assert "0.002, lies outside" in learned.forecast(seen(hotter, 0.3)).reasons[0]


def test_a_schedule_unlike_all_finished_ones_has_a_wider_band(learned: Forecaster, running: Curve) -> None:
    usual = learned.forecast(seen(running, 0.5))
    unlike = curve("constant", {**CONSTANT, "total_steps": 9_000}, seed=6)
    said = learned.forecast(seen(unlike, 0.5))

    assert said.upper is not None
    assert said.lower is not None
    assert usual.upper is not None
    assert usual.lower is not None
    assert np.log(said.upper / said.lower) > 3 * np.log(usual.upper / usual.lower)
    [reason] = said.reasons
    assert "times as far from those of the finished runs as any of them did from the others" in reason


def test_a_forecaster_and_a_forecast_survive_as_json(learned: Forecaster, running: Curve) -> None:
    again = Forecaster.from_document(json.loads(json.dumps(learned.as_document(), allow_nan=False)))
    said = learned.forecast(seen(running, 0.4))

    assert again.forecast(seen(running, 0.4)) == said
    assert Forecast.from_document(json.loads(json.dumps(said.as_document(), allow_nan=False))) == said


def test_fewer_than_four_independent_runs_say_nothing() -> None:
    with pytest.raises(UnusableData, match="4 finished runs like it that share no trunk, not 3"):
        Forecaster.learn(finished()[:3])

    trunk = finished()[0]
    branches = [replace(trunk, run_id=f"branch-{at}") for at in range(5)]
    with pytest.raises(UnusableData, match="not 1"):
        Forecaster.learn(branches)


def test_no_finished_runs_at_all_say_nothing() -> None:
    with pytest.raises(UnusableData, match="not 0"):
        Forecaster.learn([])


def test_runs_of_several_kinds_are_refused(learned: Forecaster, running: Curve) -> None:
    others = finished()
    with pytest.raises(InvalidInput, match="differ in size, batch or target"):
        Forecaster.learn([*others, replace(running, n_params=1e8, n_params_kind="total")])
    with pytest.raises(InvalidInput, match="has not come to the end"):
        Forecaster.learn([*others, seen(running, 0.5)])
    with pytest.raises(InvalidInput, match="not like those"):
        learned.forecast(replace(running, batch_tokens=1e5))
    with pytest.raises(InvalidInput, match="level"):
        Forecaster.learn(others, level=1.0)


def test_companions_are_of_the_runs_own_size_batch_and_target_and_have_ended(running: Curve) -> None:
    alike = finished()[:5]
    others = [
        replace(running, run_id="larger", n_params=1e9, n_params_kind="total"),
        replace(running, run_id="other-batch", batch_tokens=1e6),
        replace(running, run_id="other-target", target="val_loss"),
        seen(replace(running, run_id="unfinished"), 0.9),
        running,
    ]
    assert companions([*alike, *others], running) == alike


def test_companions_of_its_own_peak_are_enough_where_there_are_six(running: Curve) -> None:
    hotter = [curve(f"hot-{at}", {**COSINE, "peak_lr": 2e-3}, seed=50 + at) for at in range(6)]
    alike, hotter, [run] = (
        [replace(one, weight_decay=0.1) for one in some] for some in (finished(), hotter, [running])
    )
    assert companions([*alike, *hotter], run) == alike
    assert companions([*alike[:5], *hotter], run) == [*alike[:5], *hotter]


def test_runs_that_share_a_trunk_are_one_family() -> None:
    one, other, *_ = finished()
    branch = replace(one, run_id="branch")
    assert families([one, other, branch]).tolist() == [0, 1, 0]


ACROSS_PEAKS = {
    "L0": 2.4, "A": 1.2, "a": 0.486, "B": 0.06, "C": 13.9, "b": 1.02, "g": 0.24, "p": 0.736, "c": 0.85, "l": 0.553,
    "z": -0.042, "D": 0.003,
}  # fmt: skip


def of_several_peaks(run_id: str, peak_lr: float, steps: int, seed: int) -> Curve:
    """A run of the effective-LR law."""
    law = LAWS["effective_lr"]
    shape = curve(run_id, {**COSINE, "peak_lr": peak_lr, "total_steps": steps}, noise=0.0)
    asked = replace(shape, weight_decay=0.1)
    theta = np.array([[ACROSS_PEAKS[parameter.name] for parameter in law.parameters]])
    exact = law.predict(theta, law.prepare([asked]))[0]
    noise = NOISE * np.random.default_rng(seed).standard_normal(exact.size)
    return replace(asked, loss_nats=exact * np.exp(noise))


def test_runs_of_several_peaks_are_forecast_by_the_law_across_peaks() -> None:
    known = [
        of_several_peaks(f"run-{at}", (5e-4, 1e-3, 2e-3)[at % 3], 8_000 + 500 * at, at) for at in range(9)
    ]
    run = of_several_peaks("running", 1.4e-3, 9_200, seed=99)
    said = Forecaster.learn(known).forecast(seen(run, 0.5))

    assert said.law == "effective_lr"
    assert said.lower is not None
    assert said.upper is not None
    assert said.lower <= run.loss_nats[-1] <= said.upper
    assert said.upper / said.lower < 1.02


def test_runs_that_state_no_weight_decay_are_not_compared_across_peaks(running: Curve) -> None:
    hotter = [curve(f"hot-{at}", {**COSINE, "peak_lr": 2e-3}, seed=50 + at) for at in range(3)]
    alike = finished()[:4]
    assert companions([*alike, *hotter], running) == alike
