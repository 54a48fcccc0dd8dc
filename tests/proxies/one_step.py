"""Each optimiser as its paper has it, in NumPy and double precision: weights after some gradients, no decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isoloss.arrays import FloatArray

Steps = Sequence[FloatArray]
LR = 0.03
RANK = 2
UPDATE_EVERY = 3


def adam(weight: FloatArray, gradients: Steps, b1: float = 0.9, b2: float = 0.999) -> FloatArray:
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        mean = b1 * mean + (1 - b1) * g
        square = b2 * square + (1 - b2) * g**2
        weight = weight - LR * (mean / (1 - b1**t)) / (np.sqrt(square / (1 - b2**t)) + 1e-8)
    return weight


def adamw(weight: FloatArray, gradients: Steps) -> FloatArray:
    return adam(weight, gradients, b2=0.95)


def sgd(weight: FloatArray, gradients: Steps) -> FloatArray:
    buffer = np.zeros_like(weight)
    for g in gradients:
        buffer = 0.9 * buffer + g
        weight = weight - LR * buffer
    return weight


def lion(weight: FloatArray, gradients: Steps) -> FloatArray:
    mean = np.zeros_like(weight)
    for g in gradients:
        weight = weight - LR * np.sign(0.9 * mean + 0.1 * g)
        mean = 0.99 * mean + 0.01 * g
    return weight


def lamb(weight: FloatArray, gradients: Steps) -> FloatArray:
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for g in gradients:
        mean = 0.9 * mean + 0.1 * g
        square = 0.999 * square + 0.001 * g**2
        ratio = mean / (np.sqrt(square) + 1e-6)
        weight = weight - LR * min(10.0, np.linalg.norm(weight)) / np.linalg.norm(ratio) * ratio
    return weight


def lars(weight: FloatArray, gradients: Steps) -> FloatArray:
    buffer = np.zeros_like(weight)
    for g in gradients:
        rate = 1e-3 * np.linalg.norm(weight) / np.linalg.norm(g) if weight.ndim > 1 else 1.0
        buffer = 0.9 * buffer + rate * g
        weight = weight - LR * buffer
    return weight


def novograd(weight: FloatArray, gradients: Steps) -> FloatArray:
    square, buffer = float(np.sum(gradients[0] ** 2)), np.zeros_like(weight)
    for t, g in enumerate(gradients):
        if t:
            square = 0.98 * square + 0.02 * float(np.sum(g**2))
        buffer = 0.95 * buffer + g / (np.sqrt(square) + 1e-8)
        weight = weight - LR * buffer
    return weight


def diffgrad(weight: FloatArray, gradients: Steps) -> FloatArray:
    mean, square, before = np.zeros_like(weight), np.zeros_like(weight), np.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * g
        square = 0.999 * square + 0.001 * g**2
        friction = 1 / (1 + np.exp(-np.abs(before - g)))
        step = LR * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - step * friction * mean / (np.sqrt(square) + 1e-8)
        before = g
    return weight


def adamp(weight: FloatArray, gradients: Steps) -> FloatArray:
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * g
        square = 0.999 * square + 0.001 * g**2
        update = (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        weight = weight - LR * (_across(weight, g, update) if weight.ndim > 1 else update)
    return weight


def _across(weight: FloatArray, gradient: FloatArray, update: FloatArray) -> FloatArray:
    """Return the update without its part along each row, or along the matrix, that the gradient is across."""
    for shape in (weight.shape, (1, weight.size)):
        w, g, u = (one.reshape(shape) for one in (weight, gradient, update))
        norms = np.linalg.norm(w, axis=1) * np.linalg.norm(g, axis=1)
        if np.max(np.abs(np.sum(w * g, axis=1)) / norms) < 0.1 / np.sqrt(shape[1]):
            unit = w / np.linalg.norm(w, axis=1, keepdims=True)
            return (u - unit * np.sum(unit * u, axis=1, keepdims=True)).reshape(weight.shape)
    return update


def sgd_sai(weight: FloatArray, gradients: Steps) -> FloatArray:
    first = gradients[0]
    rate = np.linalg.norm(first) / (np.std(first, ddof=1) if first.ndim > 1 else 1.0)
    mean = np.zeros_like(weight)
    for g in gradients:
        mean = 0.9 * mean + 0.1 * g
        weight = weight - LR * rate * mean
    return weight


def galore(weight: FloatArray, gradients: Steps) -> FloatArray:
    if weight.ndim < 2:
        return adam(weight, gradients)
    mean = square = None
    for t, g in enumerate(gradients, 1):
        if t == 1 or t % UPDATE_EVERY == 0:
            basis = _basis(g)
        low, mean, square = _low(g, basis, mean, square)
        weight = weight - LR * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * 0.25 * _back(low, basis, g)
    return weight


def fira(weight: FloatArray, gradients: Steps) -> FloatArray:
    if weight.ndim < 2:
        return adam(weight, gradients)
    mean = square = limit = None
    for t, g in enumerate(gradients, 1):
        if t == 1 or t % UPDATE_EVERY == 0:
            basis = _basis(g)
        low, mean, square = _low(g, basis, mean, square)
        axis = 1 if g.shape[0] >= g.shape[1] else 0
        scale = np.linalg.norm(low, axis=axis) / np.linalg.norm(_project(g, basis), axis=axis)
        rest = (g - _back(_project(g, basis), basis, g)) * np.expand_dims(scale, axis)
        if limit is not None:
            rest = rest / max(np.linalg.norm(rest) / limit / 1.01, 1.0)
        limit = np.linalg.norm(rest)
        weight = weight - LR * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * (_back(low, basis, g) + rest)
    return weight


def _basis(g: FloatArray) -> FloatArray:
    left, _, right = np.linalg.svd(g, full_matrices=False)
    return right[:RANK].T if g.shape[0] >= g.shape[1] else left[:, :RANK]


def _project(g: FloatArray, basis: FloatArray) -> FloatArray:
    return g @ basis if g.shape[0] >= g.shape[1] else basis.T @ g


def _back(low: FloatArray, basis: FloatArray, g: FloatArray) -> FloatArray:
    return low @ basis.T if g.shape[0] >= g.shape[1] else basis @ low


def _low(
    g: FloatArray, basis: FloatArray, mean: FloatArray | None, square: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    low = _project(g, basis)
    mean = (0 if mean is None else 0.9 * mean) + 0.1 * low
    square = (0 if square is None else 0.999 * square) + 0.001 * low**2
    return mean / (np.sqrt(square) + 1e-8), mean, square


def scale(weight: FloatArray, gradients: Steps, role: str = "hidden") -> FloatArray:
    """Columns of the paper's fan_in by fan_out matrix are rows of a linear layer's weight."""
    if weight.ndim < 2:
        return adam(weight, gradients)
    axis = 0 if role == "embedding" else 1
    mean = np.zeros_like(weight)
    for g in gradients:
        mean = 0.9 * mean + 0.1 * g if role in ("head", "tied") else g
        weight = weight - LR * mean / np.sqrt(np.mean(mean**2, axis=axis, keepdims=True))
    return weight


ONE_STEP: dict[str, Callable[[FloatArray, Steps], FloatArray]] = {
    "adamw": adamw,
    "sgd": sgd,
    "lion": lion,
    "lamb": lamb,
    "lars": lars,
    "novograd": novograd,
    "diffgrad": diffgrad,
    "adamp": adamp,
    "sgd_sai": sgd_sai,
    "galore": galore,
    "fira": fira,
    "scale": scale,
}
"""Of a hidden matrix or a vector, under the default options, with a rank of `RANK`."""
