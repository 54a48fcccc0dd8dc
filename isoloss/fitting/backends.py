"""Where the solver's arithmetic is done: NumPy, or torch on the CPU or on a CUDA device."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from isoloss.errors import InvalidInput

BACKENDS = ("numpy", "torch", "cuda")
"""`torch` computes on the CPU, `cuda` on the first CUDA device; both need the extra `proxy`."""

T = TypeVar("T")


def check_backend(backend: str) -> None:
    """Raise InvalidInput where the backend cannot be used here."""
    if backend not in BACKENDS:
        raise InvalidInput(field="backend", reason=f"must be one of {', '.join(BACKENDS)}")
    if backend != "numpy":
        _device(backend)


def moved(value: T, backend: str) -> T:
    """Return an array, or a dataclass with every array in it, as float64 or int64 arrays of the backend."""
    if backend == "numpy":
        return value
    if isinstance(value, np.ndarray):
        return _tensor(value, backend)
    if not dataclasses.is_dataclass(value):
        return value
    arrays = {
        field.name: _tensor(getattr(value, field.name), backend)
        for field in dataclasses.fields(value)
        if isinstance(getattr(value, field.name), np.ndarray)
    }
    return dataclasses.replace(value, **arrays)  # type: ignore[type-var]


def _tensor(array: np.ndarray[Any, Any], backend: str) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(array), device=_device(backend))


def _device(backend: str) -> str:
    try:
        import torch
    except ImportError as error:
        reason = f"{backend!r} needs torch: install isoloss[proxy]"
        raise InvalidInput(field="backend", reason=reason) from error
    if backend == "torch":
        return "cpu"
    if not torch.cuda.is_available():
        raise InvalidInput(field="backend", reason="there is no CUDA device here")
    return "cuda"
