"""The recording script trains as it says, and the recorded curves are what `runs.json` declares."""

from __future__ import annotations

import csv
import json
import math
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoloss.schedules import schedule_from_spec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DATA = EXAMPLES / "data"
RUNS: list[dict[str, Any]] = json.loads((DATA / "runs.json").read_text(encoding="utf-8"))
STEPS = 20

each_run = pytest.mark.parametrize("run", RUNS, ids=[run["run_id"] for run in RUNS])


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    """The script's names; torch computes on one thread, as it does in a recording."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield runpy.run_path(str(EXAMPLES / "record_curves.py"))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def short_run(script: dict[str, Any]) -> Any:
    return next(run for run in script["planned_runs"](STEPS) if run.name == "small_wsd_sqrt")


@pytest.fixture(scope="module")
def corpus(script: dict[str, Any]) -> Any:
    return script["read_corpus"]()


@pytest.fixture(scope="module")
def curve(script: dict[str, Any], short_run: Any, corpus: Any) -> list[Any]:
    return list(script["train"](short_run, corpus, log_every=1, evaluate_every=10))


def test_the_loss_falls(curve: list[Any]) -> None:
    """Twenty updates already lower the training and the validation loss."""
    assert curve[0].loss == pytest.approx(math.log(256), abs=0.5)
    assert curve[-1].loss < curve[0].loss - 0.5
    assert [point.step for point in curve if point.val_loss is not None] == [10, 20]
    assert curve[-1].val_loss < curve[9].val_loss


def test_the_same_seed_gives_the_same_curve(
    script: dict[str, Any], short_run: Any, corpus: Any, curve: list[Any]
) -> None:
    """A run is a function of its seed: a second training repeats every number."""
    again = script["train"](short_run, corpus, log_every=1, evaluate_every=10)
    assert list(again) == curve


def test_the_learning_rate_is_the_schedule(short_run: Any, curve: list[Any]) -> None:
    """The learning rate that an update gets is that of its declared schedule."""
    expected = schedule_from_spec(short_run.spec).lr(np.arange(1, STEPS + 1))
    assert [point.lr for point in curve] == list(expected)


def test_the_held_out_files_are_apart(script: dict[str, Any], corpus: Any) -> None:
    """The validation text is about a twentieth, and the training text does not contain it."""
    train, held_out = (bytes(part.numpy()) for part in (corpus.train, corpus.validation))
    assert 0.03 < len(held_out) / (len(train) + len(held_out)) < 0.08
    assert held_out[:2000] not in train


def test_every_planned_run_is_recorded(script: dict[str, Any]) -> None:
    """`runs.json` holds what the script would write today, for every run that it plans."""
    described = json.loads(json.dumps([script["describe"](run) for run in script["planned_runs"]()]))
    version_of_the_text = RUNS[0]["config"]["dataset"]
    for entry in described:
        entry["config"]["dataset"] = version_of_the_text
    assert described == RUNS


@each_run
def test_a_recorded_curve_is_what_it_declares(run: dict[str, Any]) -> None:
    """Steps increase to the end of the schedule, losses are finite, learning rates are the schedule's."""
    with (DATA / run["file"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = np.array([int(row["step"]) for row in rows])
    losses = [float(row[name]) for row in rows for name in ("loss", "val_loss") if row[name]]
    assert (np.diff(steps) > 0).all()
    assert steps[-1] == run["schedule"]["total_steps"]
    assert np.isfinite(losses).all()
    assert min(losses) > 0
    assert rows[-1]["val_loss"]
    assert [int(row["tokens"]) for row in rows] == list(steps * run["config"]["batch_tokens"])
    lrs = np.array([float(row["lr"]) for row in rows])
    np.testing.assert_allclose(lrs, schedule_from_spec(run["schedule"]).lr(steps), rtol=1e-9)


def test_the_runs_are_independent() -> None:
    """No two runs share a seed, so that a prediction's error on one owes nothing to another's noise."""
    assert len({run["config"]["seed"] for run in RUNS}) == len(RUNS)
