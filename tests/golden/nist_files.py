"""Reading the files of the NIST Statistical Reference Datasets for nonlinear regression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIRECTORY = Path(__file__).parents[2] / ".venv" / "nist_strd"
"""Where `make nist` unpacks the files that lmfit's source distribution carries."""

PARAMETER = re.compile(r"^\s*b\d+\s*=((?:\s+\S+){4})\s*$", re.MULTILINE)
RESIDUALS = re.compile(r"Residual Sum of Squares:\s*(\S+)")


@dataclass(frozen=True)
class Certified:
    """One set: response (points,), predictor (points,) or (predictors, points), both starts (2, parameters),
    and what NIST certifies: estimate and standard_errors (parameters,), residual_sum_of_squares."""

    response: np.ndarray
    predictor: np.ndarray
    starts: np.ndarray
    estimate: np.ndarray
    standard_errors: np.ndarray
    residual_sum_of_squares: float


def read_certified(name: str) -> Certified:
    """Return the set of this name, e.g. "Misra1a"."""
    text = (DIRECTORY / f"{name}.dat").read_text()
    table = np.array([row.split() for row in PARAMETER.findall(text)], dtype=float).T
    data = text.rsplit("Data:", 1)[1].splitlines()[1:]
    columns = np.array([row.split() for row in data if row.strip()], dtype=float).T
    found = RESIDUALS.search(text)
    assert found is not None
    return Certified(
        response=np.log(columns[0]) if name == "Nelson" else columns[0],
        predictor=columns[1] if len(columns) == 2 else columns[1:],
        starts=table[:2],
        estimate=table[2],
        standard_errors=table[3],
        residual_sum_of_squares=float(found.group(1)),
    )
