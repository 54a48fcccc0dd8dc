"""The arrays that the mathematics works on: their types, and the library that a given array belongs to."""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat
import array_api_compat.numpy
import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


def namespace(array: Any) -> Any:
    """Return the functions of the array's own library, under the names of the array API standard.

    NumPy's for a NumPy array, torch's for a tensor; torch is never imported unless a tensor is given.
    Raises TypeError for what is no array.
    """
    if type(array) is np.ndarray:  # the usual case, asked for many times a fit
        return array_api_compat.numpy
    return array_api_compat.array_namespace(array)


def float64_like(values: Any, array: Any) -> Any:
    """Return `values` as a float64 array of the same library, and on the same device, as `array`."""
    xp = namespace(array)
    return xp.asarray(values, dtype=xp.float64, device=device(array))


def device(array: Any) -> Any:
    """Return where the array's memory is, as its library names it."""
    return array_api_compat.device(array)


def as_numpy(array: Any) -> npt.NDArray[Any]:
    """Return an array of any library, on any device, as NumPy's."""
    return array if isinstance(array, np.ndarray) else np.asarray(array_api_compat.to_device(array, "cpu"))
