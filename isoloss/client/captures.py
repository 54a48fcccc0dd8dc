"""Logged values: kept in microseconds where they are logged, turned into numbers in the background.

A number on the host is read at once. A tensor on a device stays there: reading it would make the training wait
for the device. It is kept as a reference without its graph, with an event that says when it is computed and the
version that tells whether somebody changed it in place since.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from isoloss.notes import first_line

LARGEST_EXACT_INTEGER = 2**53

PLAIN = frozenset({float, int})
"""Types of values that are kept as they are."""

MOST_SAID = 120
"""Characters of an error that are told."""


class Kept:
    """A tensor that was not read when it was logged; `event` comes after what computes it."""

    __slots__ = ("event", "tensor", "version")

    def __init__(self, tensor: Any, version: int | None) -> None:
        self.tensor = tensor
        self.version = version
        self.event: Any = None

    def is_ready(self) -> bool:
        """Whether the device has computed it; never waits."""
        return self.event is None or bool(self.event.query())


class Awaited(dict[Any, Any]):
    """Metrics of which some are kept tensors."""

    def is_ready(self) -> bool:
        """Whether all of them are computed; never waits."""
        return all(value.is_ready() for value in self.values() if type(value) is Kept)


class Unreadable(Exception):
    """Why a value is no number."""


def captured(metrics: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy of metrics with what to keep of their values; never waits for a device."""
    kept = metrics.copy() if type(metrics) is dict else dict(metrics.items())
    if PLAIN.issuperset(map(type, kept.values())):
        return kept  # nearly all metrics there are
    kept = {name: value if type(value) in PLAIN else capture(value) for name, value in kept.items()}
    if Kept not in map(type, kept.values()):
        return kept
    note_events(kept.values())
    return Awaited(kept)


def capture(value: Any) -> Any:
    """What to keep of a value that is no plain number; never waits for a device.

    Arrays on the host are read now, because training loops reuse them.
    """
    try:
        if hasattr(value, "is_cuda"):
            return _capture_tensor(value)
        if hasattr(value, "__array_interface__") and value.size == 1:
            return value.item()
    except Exception:  # an odd object: the background says what is wrong with it
        return value
    return value


def _capture_tensor(tensor: Any) -> Any:
    if tensor.is_cpu and tensor.numel() == 1 and type(tensor).__name__ in ("Tensor", "Parameter"):
        return tensor.item()
    return Kept(tensor.detach(), _version(tensor))


def _version(tensor: Any) -> int | None:
    try:
        return int(tensor._version)
    except Exception:  # tensors made in inference mode count no versions
        return None


def note_events(values: Iterable[Any]) -> None:
    """Let kept tensors know when they are computed: one event a device, recorded on the stream that computes."""
    events: dict[Any, Any] = {}
    for kept in values:
        if type(kept) is Kept and kept.tensor.is_cuda:
            device = kept.tensor.device
            if device not in events:
                import torch

                events[device] = torch.cuda.current_stream(device).record_event()
            kept.event = events[device]


def read(value: Any) -> float | int | None:
    """The number that a captured value is, None where nothing was measured; may wait for a device.

    Raises Unreadable.
    """
    if value is None:
        return None
    if isinstance(value, Kept):
        return _plain(_read_tensor(value))
    return _plain(value)


def _read_tensor(kept: Kept) -> Any:
    tensor = kept.tensor
    if hasattr(tensor, "to_local"):
        raise Unreadable("a tensor spread over several devices; log its full_tensor()")
    if tensor.numel() != 1:
        raise Unreadable(f"a tensor of {tensor.numel()} values; log one number, such as its mean")
    number = _item(kept)
    if kept.version is not None and _version(tensor) != kept.version:
        raise Unreadable("a tensor that was changed in place after it was logged; log a clone() of it")
    return number


def _item(kept: Kept) -> Any:
    try:
        if kept.event is None:
            return kept.tensor.item()
        import torch

        # On a stream of its own the copy waits for this value alone, not for the steps queued behind it.
        side = _side_stream(kept.tensor.device)
        side.wait_event(kept.event)
        with torch.cuda.stream(side):
            return kept.tensor.item()
    except Exception as error:
        raise Unreadable(f"a tensor that cannot be read ({first_line(error, MOST_SAID)})") from error


_side_streams: dict[Any, Any] = {}


def _side_stream(device: Any) -> Any:
    import torch

    if device not in _side_streams:
        _side_streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _side_streams[device]


def _plain(value: Any) -> float | int | None:
    if isinstance(value, bool) or (
        type(value).__module__ == "numpy" and type(value).__name__.startswith("bool")
    ):
        raise Unreadable("true or false; log 1 or 0")
    if hasattr(value, "item") and not isinstance(value, str):
        value = _item_of_array(value)
    if isinstance(value, str | bytes):
        raise Unreadable(f"the text {value[:40]!r}")
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        raise Unreadable("a complex number; log its real part or its size")
    if hasattr(value, "__float__"):
        return _float_or_int(value)
    raise Unreadable(f"of the type {type(value).__name__}")


def _item_of_array(value: Any) -> Any:
    try:
        return value.item()
    except Exception as error:
        raise Unreadable(f"an array that is not one number ({first_line(error, MOST_SAID)})") from error


def _float_or_int(value: Any) -> float | int:
    if isinstance(value, int) and abs(value) <= LARGEST_EXACT_INTEGER:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
