"""How numbers travel: JSON knows no NaN, so the three non-finite floats are strings in both directions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dump(document: object) -> bytes:
    """The document as strict JSON: NumPy values become plain ones, masked and None null, NaN a string."""
    try:
        # The encoder of the standard library is several times faster than a walk, and mostly enough.
        return _encode(document)
    except ValueError:
        return _encode(plain(document))


def _encode(document: object) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":"), default=_known).encode()


def _known(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return plain(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


def plain(value: Any) -> Any:
    """The value as JSON types alone."""
    if isinstance(value, np.ndarray):
        return plain_column(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else _name_of(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def plain_column(column: NDArray[Any]) -> list[Any]:
    """An array as a list; fast where every number is finite and none is masked."""
    entries: list[Any] = column.tolist()
    if column.dtype.kind == "f" and column.ndim == 1:
        data: NDArray[Any] = np.ma.getdata(column)
        odd = np.flatnonzero(~np.isfinite(data) & ~np.ma.getmaskarray(column))
        for index in odd.tolist():
            entries[index] = _name_of(float(data[index]))
        return entries
    return [plain(entry) for entry in entries] if column.dtype.kind in "fO" else entries


def number(value: Any) -> Any:
    """A number as the service sent it; anything else is returned as it is."""
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def numbers(value: Any) -> Any:
    """The document with the names of the non-finite floats turned into floats, at every depth."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [numbers(entry) for entry in value]
    return number(value)


def array(entries: list[Any]) -> NDArray[np.float64]:
    """A list of numbers as float64, null as NaN."""
    # NumPy reads null as NaN, and the names of the non-finite floats as what they mean.
    return np.array(entries, dtype=np.float64)


def masked_array(entries: list[Any]) -> np.ma.MaskedArray[Any, Any]:
    """A column as a masked array: null is masked, and a NaN that was recorded stays a NaN."""
    data = array(entries)
    missing = np.isnan(data)
    for index in np.flatnonzero(missing).tolist():
        missing[index] = entries[index] is None
    return np.ma.MaskedArray(data, mask=missing)


def _name_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
