"""NumPy arrays to and from PostgreSQL's binary arrays, without a Python object for each number."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy.orm import Session

from store.columns import BoolArray, Column, FloatArray, IntArray

INT8, INT8_ARRAY = 20, 1016
FLOAT8, FLOAT8_ARRAY = 701, 1022
_HEAD = struct.Struct(">iiiii")  # dimensions, whether nulls, element type, length, lower bound
_INT8_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i8")])
_FLOAT8_ELEMENT = np.dtype([("length", ">i4"), ("value", ">f8")])
_EMPTY = struct.Struct(">iii")


@dataclass(frozen=True)
class Int8Array:
    """A parameter of type int8[]."""

    values: IntArray


@dataclass(frozen=True)
class Float8Array:
    """A parameter of type float8[], null where the column has no value."""

    column: Column


class _Int8Dumper(Dumper):
    format = Format.BINARY
    oid = INT8_ARRAY

    def dump(self, obj: Int8Array) -> bytes:
        return _packed(_elements(obj.values, _INT8_ELEMENT).tobytes(), len(obj.values), INT8, False)


class _Float8Dumper(Dumper):
    format = Format.BINARY
    oid = FLOAT8_ARRAY

    def dump(self, obj: Float8Array) -> bytes:
        elements = _elements(obj.column.values, _FLOAT8_ELEMENT)
        present = obj.column.present
        if present.all():
            return _packed(elements.tobytes(), len(elements), FLOAT8, False)
        elements["length"][~present] = -1
        wanted = np.ones((len(elements), _FLOAT8_ELEMENT.itemsize), dtype=bool)
        wanted[~present, 4:] = False  # a null is its length alone
        body = elements.view(np.uint8).reshape(wanted.shape)[wanted].tobytes()
        return _packed(body, len(elements), FLOAT8, True)


def cursor(session: Session) -> psycopg.Cursor[tuple[Any, ...]]:
    """A binary cursor in the session's own transaction, for statements that carry arrays."""
    # `session.connection()` begins the transaction that the statement must be part of.
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    found: psycopg.Cursor[tuple[Any, ...]] = connection.cursor(binary=True)
    found.adapters.register_dumper(Int8Array, _Int8Dumper)
    found.adapters.register_dumper(Float8Array, _Float8Dumper)
    return found


def int8s(data: bytes | None) -> IntArray:
    """The int8[] without nulls that PostgreSQL sent in binary."""
    return _read(data, _INT8_ELEMENT).astype(np.int64)


def float8s(data: bytes | None) -> FloatArray:
    """The float8[] without nulls that PostgreSQL sent in binary."""
    return _read(data, _FLOAT8_ELEMENT).astype(np.float64)


def bits(masks: IntArray, position: int) -> BoolArray:
    """Bit `position` of every number."""
    found: BoolArray = (masks >> position) & 1 == 1
    return found


def _elements(values: npt.NDArray[np.generic], dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    elements = np.empty(len(values), dtype)
    elements["length"] = 8
    elements["value"] = values
    return elements


def _packed(body: bytes, length: int, oid: int, has_nulls: bool) -> bytes:
    if not length:
        return _EMPTY.pack(0, 0, oid)
    return _HEAD.pack(1, has_nulls, oid, length, 1) + body


def _read(data: bytes | None, dtype: np.dtype[np.void]) -> npt.NDArray[np.generic]:
    if not data or len(data) <= _HEAD.size:
        return np.zeros(0, dtype)["value"]
    return np.frombuffer(data, dtype, offset=_HEAD.size)["value"]
