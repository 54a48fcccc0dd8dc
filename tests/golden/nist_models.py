"""The formulas of the NIST StRD nonlinear regression sets, as their files state them.

Each takes the parameters, a list, and the predictor (points,), and returns the response (points,). They are
analytic, so that a complex step differentiates them to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Formula = Callable[[Sequence[Array], Array], Array]


def bennett5(b: Sequence[Array], x: Array) -> Array:
    return b[0] * (b[1] + x) ** (-1 / b[2])


def box_bod(b: Sequence[Array], x: Array) -> Array:
    return b[0] * (1 - np.exp(-b[1] * x))


def chwirut(b: Sequence[Array], x: Array) -> Array:
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


def dan_wood(b: Sequence[Array], x: Array) -> Array:
    return b[0] * x ** b[1]


def eckerle4(b: Sequence[Array], x: Array) -> Array:
    return b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def enso(b: Sequence[Array], x: Array) -> Array:
    def cycle(cosine: Array, sine: Array, period: Array | float) -> Array:
        return cosine * np.cos(2 * np.pi * x / period) + sine * np.sin(2 * np.pi * x / period)

    return b[0] + cycle(b[1], b[2], 12.0) + cycle(b[4], b[5], b[3]) + cycle(b[7], b[8], b[6])


def gauss(b: Sequence[Array], x: Array) -> Array:
    peaks = b[2] * np.exp(-((x - b[3]) ** 2) / b[4] ** 2) + b[5] * np.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    return b[0] * np.exp(-b[1] * x) + peaks


def cubic_over_cubic(b: Sequence[Array], x: Array) -> Array:
    above = b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3
    return above / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def kirby2(b: Sequence[Array], x: Array) -> Array:
    return (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2)


def lanczos(b: Sequence[Array], x: Array) -> Array:
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def mgh09(b: Sequence[Array], x: Array) -> Array:
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def mgh10(b: Sequence[Array], x: Array) -> Array:
    return b[0] * np.exp(b[1] / (x + b[2]))


def mgh17(b: Sequence[Array], x: Array) -> Array:
    return b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4])


def misra1b(b: Sequence[Array], x: Array) -> Array:
    return b[0] * (1 - (1 + b[1] * x / 2) ** -2)


def misra1c(b: Sequence[Array], x: Array) -> Array:
    return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


def misra1d(b: Sequence[Array], x: Array) -> Array:
    return b[0] * b[1] * x / (1 + b[1] * x)


def nelson(b: Sequence[Array], x: Array) -> Array:
    """Return log y, which is what this set fits; x is (2, points)."""
    return b[0] - b[1] * x[0] * np.exp(-b[2] * x[1])


def rat42(b: Sequence[Array], x: Array) -> Array:
    return b[0] / (1 + np.exp(b[1] - b[2] * x))


def rat43(b: Sequence[Array], x: Array) -> Array:
    return b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3])


def roszman1(b: Sequence[Array], x: Array) -> Array:
    return b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi


FORMULAS: dict[str, Formula] = {
    "Bennett5": bennett5,
    "BoxBOD": box_bod,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": dan_wood,
    "ENSO": enso,
    "Eckerle4": eckerle4,
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "Hahn1": cubic_over_cubic,
    "Kirby2": kirby2,
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": mgh09,
    "MGH10": mgh10,
    "MGH17": mgh17,
    "Misra1a": box_bod,
    "Misra1b": misra1b,
    "Misra1c": misra1c,
    "Misra1d": misra1d,
    "Nelson": nelson,
    "Rat42": rat42,
    "Rat43": rat43,
    "Roszman1": roszman1,
    "Thurber": cubic_over_cubic,
}
