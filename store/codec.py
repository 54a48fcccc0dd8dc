"""The bytes of a compressed column: exact, small, and quick to read.

A column whose differences are constant (steps, tokens) is its start and stride. Any other is written as
the eight byte planes of its float64 values: planes of sign, exponent and high mantissa shrink under zlib, and
those that do not (the noise of the low mantissa) are kept as they are, so that reading them costs a copy.

    byte 0        form: 1 progression of integers, 2 planes, 3 planes of the present values after a bit mask
    bytes 1..4    number of points, little endian, as everything here
    form 1        start and stride (int64)
    form 3        the mask, one bit a point, then as form 2
    form 2        the lengths of eight planes (uint32), then the planes; one of n bytes is not packed
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from store.columns import BoolArray, Column, FloatArray, IntArray

PROGRESSION, PLANES, MASKED_PLANES = 1, 2, 3
WORTH_PACKING = 0.9
EXACT_INTEGER = 2.0**53
_HEAD = struct.Struct("<BI")
_PROGRESSION = struct.Struct("<qq")
_LENGTHS = struct.Struct("<8I")


def encode(column: Column) -> bytes:
    """The column as bytes; `decode` gives it back to the bit."""
    n = len(column.values)
    if not column.present.all():
        mask = np.packbits(column.present).tobytes()
        return _HEAD.pack(MASKED_PLANES, n) + mask + _planes(column.values[column.present])
    progression = _progression(column.values)
    if progression is not None:
        return _HEAD.pack(PROGRESSION, n) + _PROGRESSION.pack(*progression)
    return _HEAD.pack(PLANES, n) + _planes(column.values)


def decode(data: bytes) -> Column:
    """The column that `encode` was given."""
    form, n = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if form == PROGRESSION:
        start, stride = _PROGRESSION.unpack(body)
        return Column.of((start + stride * np.arange(n, dtype=np.int64)).astype(np.float64))
    if form == PLANES:
        return Column.of(_values(body, n))
    present: BoolArray = np.unpackbits(np.frombuffer(body[: (n + 7) // 8], np.uint8), count=n).astype(bool)
    values = np.zeros(n)
    values[present] = _values(body[(n + 7) // 8 :], int(present.sum()))
    return Column(values, present)


def encode_steps(step: IntArray) -> bytes:
    """Steps as bytes; those above 2^53, which no float64 holds, are told apart by their bits."""
    differences = np.diff(step)
    if len(differences) and (differences == differences[0]).all():
        return _HEAD.pack(PROGRESSION, len(step)) + _PROGRESSION.pack(int(step[0]), int(differences[0]))
    return _HEAD.pack(PLANES, len(step)) + _planes(np.diff(step, prepend=0).view(np.float64))


def decode_steps(data: bytes) -> IntArray:
    """The steps that `encode_steps` was given."""
    form, n = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if form != PROGRESSION:
        return np.cumsum(_values(body, n).view(np.int64), dtype=np.int64)
    start, stride = _PROGRESSION.unpack(body)
    step: IntArray = np.arange(n, dtype=np.int64) * stride + start
    return step


def _progression(values: FloatArray) -> tuple[int, int] | None:
    """Start and stride where the values are whole numbers at equal distances, exactly."""
    if (
        len(values) < 2
        or not np.isfinite(values[[0, 1, -1]]).all()
        or abs(values[[0, 1, -1]]).max() > EXACT_INTEGER
    ):
        return None
    start, stride = float(values[0]), float(values[1] - values[0])
    if not (start.is_integer() and stride.is_integer()):
        return None
    built = (int(start) + int(stride) * np.arange(len(values), dtype=np.int64)).astype(np.float64)
    # By bits: minus zero is no integer.
    return (int(start), int(stride)) if built.tobytes() == values.tobytes() else None


def _planes(values: FloatArray) -> bytes:
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    packed = [_pack(plane.tobytes()) for plane in raw.T]
    return _LENGTHS.pack(*map(len, packed)) + b"".join(packed)


def _pack(plane: bytes) -> bytes:
    packed = zlib.compress(plane, 6)
    return packed if len(packed) < WORTH_PACKING * len(plane) else plane


def _values(body: memoryview, n: int) -> FloatArray:
    raw = np.empty((8, n), dtype=np.uint8)
    at = _LENGTHS.size
    for plane, length in zip(raw, _LENGTHS.unpack_from(body), strict=True):
        part = body[at : at + length]
        plane[:] = np.frombuffer(part if length == n else zlib.decompress(part), np.uint8)
        at += length
    return np.ascontiguousarray(raw.T).view(np.float64).reshape(n)
