from __future__ import annotations

import decimal
import logging
import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.client.captures import capture
from isoloss.client.messages import Messages
from isoloss.client.operations import rows_of
from isoloss.client.readings import MAX_FREE_COLUMNS, Readings, spelled
from isoloss.schedules import schedule_from_spec

LINEAR = schedule_from_spec({"kind": "linear", "total_steps": 10, "peak_lr": 1e-3})


@pytest.fixture
def readings():
    return Readings(Messages("run r"))


def read(readings, metrics, step=5):
    return readings.row({name: capture(value) for name, value in metrics.items()}, step)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2.5, 2.5),
        (3, 3),
        (np.float32(0.5), 0.5),
        (np.array(1.5), 1.5),
        (np.array([1.5]), 1.5),
        (np.int64(4), 4),
        (decimal.Decimal("0.25"), 0.25),
        (10**400, math.inf),
        (math.nan, math.nan),
    ],
)
def test_whatever_is_one_number_is_read(readings, value, number):
    assert read(readings, {"loss": value})["loss"] == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("loss", "2.5", "the text '2.5'"),
        ("loss", 1 + 2j, "a complex number"),
        ("loss", True, "true or false"),
        ("loss", np.True_, "true or false"),
        ("loss", np.ones(3), "an array that is not one number"),
        ("loss", [1.0], "of the type list"),
        ("loss", 0.0, "must be above 0"),
        ("loss", -1.0, "below 0"),
        ("lr", math.nan, "only a loss may be"),
        ("lr", -1e-3, "below 0"),
        ("lr", 0.0, "no declared schedule is 0"),
        ("tokens", 0, "after the first step"),
        ("wall_time_s", -3.0, "below 0"),
        ("acc", math.inf, "only a loss may be"),
    ],
)
def test_what_the_service_would_refuse_is_left_out_and_said_once(readings, caplog, name, value, reason):
    for _ in range(3):
        assert read(readings, {name: value, "other": 1.0}) == {"other": 1.0}
    assert readings.left_out == 3
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()


ODD = [
    None,
    0,
    0.0,
    -1.0,
    3,
    2**60,
    math.nan,
    math.inf,
    -math.inf,
    True,
    "2.5",
    1j,
    np.float32(2.0),
    np.ones(2),
]
NAMES = ["loss", "lr", "tokens", "acc", "Val Loss", "step", "!", 7]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(NAMES), st.floats(0.1, 9.0) | st.sampled_from(ODD), max_size=4),
        min_size=1,
        max_size=12,
    )
)
def test_metrics_that_are_read_together_are_those_that_are_read_one_by_one(rows):
    apart, together = (Readings(Messages("run r"), LINEAR) for _ in range(2))
    columns = together.columns(list(range(len(rows))), rows)
    found = rows_of(columns) if columns else []
    expected = [(step, apart.row(row, step)) for step, row in enumerate(rows)]
    assert repr([(step, sorted(row.items())) for step, row in found]) == repr(
        [(step, sorted(row.items())) for step, row in expected if row]
    )
    assert together.left_out == apart.left_out


def test_what_was_not_measured_needs_no_word(readings, caplog):
    assert read(readings, {"loss": None, "val_loss": 3.0}) == {"val_loss": 3.0}
    assert not caplog.records


def test_a_learning_rate_of_zero_is_taken_where_the_schedule_ends(caplog):
    readings = Readings(Messages("run r"), LINEAR)
    assert read(readings, {"lr": 0.0}, 10) == {"lr": 0.0}
    assert read(readings, {"lr": 0.0}, 9) == {}
    assert read(readings, {"lr": 0.0, "tokens": 0}, 0) == {"lr": 0.0, "tokens": 0}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("loss", "loss"),
        ("val/perplexity", "val/perplexity"),
        ("Train Loss", "train_loss"),
        ("grad-norm", "grad_norm"),
        ("ü", None),
        ("1st", None),
        ("", None),
        ("x" * 300, "x" * 100),
    ],
)
def test_names_become_names_of_columns(name, column):
    assert spelled(name) == column


def test_a_name_that_cannot_be_kept_is_said_once(readings, caplog):
    for _ in range(2):
        assert read(readings, {"Loss A": 1.0, "step": 3.0, "1st": 1.0, 7: 1.0}) == {"loss_a": 1.0}
    assert len(caplog.records) == 4
    assert "recorded as loss_a" in caplog.text
    assert "step is log's own argument" in caplog.text


def test_two_names_never_share_a_column(readings, caplog):
    assert read(readings, {"loss_a": 1.0, "Loss A": 2.0}) == {"loss_a": 1.0}
    assert "loss_a is there already" in caplog.text


def test_a_run_has_so_many_columns_of_its_own(readings, caplog):
    row = read(readings, {f"layer_{index}": 1.0 for index in range(MAX_FREE_COLUMNS + 5)} | {"loss": 1.0})
    assert len(row) == MAX_FREE_COLUMNS + 1
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("step", "number"),
    [
        *((3, 3), (3.0, 3), (np.int32(3), 3), (0, 0)),
        *((step, None) for step in (3.5, -1, None, "3", True, math.nan, 2**60)),
    ],
)
def test_a_step_is_a_whole_number(readings, caplog, step, number):
    assert readings.step(step) == number
    assert len(caplog.records) == (number is None)


@pytest.mark.parametrize("metrics", [None, 3, "loss", [("loss", 1.0)]])
def test_what_is_no_mapping_is_said(readings, caplog, metrics):
    assert readings.row(metrics, 1) == {}
    assert "a mapping of names to numbers" in caplog.text


def test_an_object_that_fails_when_it_is_read_costs_its_value_alone(readings, caplog):
    class Odd:
        def item(self):
            raise RuntimeError("no")

    assert read(readings, {"loss": Odd(), "lr": 1e-3}) == {"lr": 1e-3}
    assert "not one number (no)" in caplog.text


class TestTensors:
    """Tensors of torch, on the host and on a device that has no numbers."""

    torch = pytest.importorskip("torch")

    def test_a_tensor_on_the_host_is_read_when_it_is_logged(self, readings):
        running = self.torch.tensor(2.0)
        kept = {"loss": capture(running)}
        running.zero_()
        assert readings.row(kept, 1) == {"loss": 2.0}

    def test_a_tensor_elsewhere_is_read_in_the_background_and_without_its_graph(self, readings):
        tensor = _Elsewhere(self.torch.tensor(2.0, requires_grad=True))
        kept = capture(tensor)
        assert tensor.read_by is None
        assert kept.tensor.requires_grad is False
        assert readings.row({"loss": kept}, 1) == {"loss": 2.0}

    def test_a_tensor_that_was_changed_since_is_not_taken_for_what_it_was(self, readings, caplog):
        tensor = _Elsewhere(self.torch.tensor(2.0))
        kept = capture(tensor)
        tensor.tensor.zero_()
        assert readings.row({"loss": kept}, 1) == {}
        assert "changed in place after it was logged" in caplog.text

    @pytest.mark.parametrize("shape", [(3,), (0,), (2, 2)])
    def test_a_tensor_of_several_values_is_said(self, readings, caplog, shape):
        assert read(readings, {"loss": self.torch.ones(shape)}) == {}
        assert "log one number" in caplog.text

    def test_a_tensor_without_numbers_is_said(self, readings, caplog):
        assert read(readings, {"loss": self.torch.ones((), device="meta")}) == {}
        assert "cannot be read" in caplog.text

    def test_a_tensor_of_inference_mode_is_read(self, readings):
        with self.torch.inference_mode():
            tensor = self.torch.tensor([2.0])
        assert read(readings, {"loss": tensor}) == {"loss": 2.0}
        assert read(readings, {"loss": _Elsewhere(tensor)}) == {"loss": 2.0}

    def test_a_tensor_of_truth_is_no_number(self, readings, caplog):
        assert read(readings, {"loss": self.torch.tensor(True)}) == {}
        assert "true or false" in caplog.text


class _Elsewhere:
    """A tensor that says it lies on another device, and notes who reads it."""

    def __init__(self, tensor):
        self.tensor = tensor
        self.read_by = None
        self.is_cuda = self.is_cpu = False

    def __getattr__(self, name):
        return getattr(self.tensor, name)

    def detach(self):
        return _Elsewhere(self.tensor.detach())

    def item(self):
        self.read_by = threading.current_thread()
        return self.tensor.item()
