"""Tables of finished runs that follow a law, with noise that is independent from run to run."""

from __future__ import annotations

import numpy as np

from isoloss.laws import LAWS, TableLaw
from isoloss.observations import RunTable

TRUTHS = {
    "chinchilla": {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.31},
    "power_law": {"E": 1.8, "coefficient": 900.0, "exponent": -0.31},
}
SIZES, TOKENS = np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)


def exact_losses(name: str, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """The losses (runs,) of the true law."""
    law = LAWS[name]
    assert isinstance(law, TableLaw)
    theta = np.array([[TRUTHS[name][parameter.name] for parameter in law.parameters]])
    return np.asarray(law.predict(theta, law.prepare({"n_params": n_params, "n_tokens": n_tokens}))[0])


def table(name: str = "chinchilla", *, noise: float = 2e-3, seed: int = 0, seeds: int = 1) -> RunTable:
    """Runs over six sizes times six numbers of tokens, each configuration `seeds` times."""
    size, tokens = (np.tile(axis.ravel(), seeds) for axis in np.meshgrid(SIZES, TOKENS))
    random = np.random.default_rng(seed)
    loss = exact_losses(name, size, tokens) * (1 + noise * random.standard_normal(size.size))
    names = tuple(f"run-{row:03}" for row in range(size.size))
    return RunTable(names, {"n_params": size, "n_tokens": tokens}, loss, n_params_kind="total")
