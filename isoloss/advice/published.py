"""Published laws of settings, to enter as priors where a caller names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isoloss.arrays import FloatArray
from isoloss.distributions import normal_quantile
from isoloss.errors import InvalidInput


@dataclass(frozen=True)
class Published:
    """A power law of others, and how far the runs of one team may lie from it.

    log y = log `at_centre` + sum of `exponents` times log(x / x of the `centre`), over columns of a run.
    `level_error` is the standard deviation of its level in logarithms and `exponent_errors` those of its exponents:
    not what its authors state of their own runs, but how far others' runs are off (docs/decisions/0012).
    """

    law: str
    at_centre: float
    centre: Mapping[str, float]
    exponents: Mapping[str, float]
    level_error: float
    exponent_errors: Mapping[str, float]
    source: str
    n_params_kind: str | None = None

    def log_value(self, config: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Return the law's logarithm for runs of `n_params` and `n_tokens`, (runs,)."""
        away = self._away(config)
        moves = [away[name] * slope for name, slope in self.exponents.items()]
        return np.asarray(np.log(self.at_centre) + np.sum(moves, axis=0))

    def loadings(self, config: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Return by how much each error in units of its deviation moves the logarithm, (runs, errors).

        The covariance of two runs is the product of their rows.
        """
        away = self._away(config)
        moves = [away[name] * error for name, error in self.exponent_errors.items()]
        return np.stack([np.full_like(moves[0], self.level_error), *moves], axis=1)

    def _away(self, config: Mapping[str, npt.ArrayLike]) -> dict[str, FloatArray]:
        size, data = (np.atleast_1d(np.asarray(config[name], float)) for name in ("n_params", "n_tokens"))
        known = {"n_params": size, "n_tokens": data, "tokens_per_param": data / size}
        return {name: np.log(known[name] / at) for name, at in self.centre.items()}


@dataclass(frozen=True)
class Prior:
    """A published law that entered by its `name`: what it says alone, and the `share` of the answer that is its.

    The share is that of the published law's own variance which the runs leave: 1 where they say nothing, near 0
    where they say it all. `p_value` is the chance of runs that lie as far from it; None where they say nothing.
    """

    name: str
    log_value: float
    log_error: float
    share: float
    p_value: float | None

    def as_dict(self, level: float) -> dict[str, Any]:
        away = float(normal_quantile((1 + level) / 2)) * self.log_error
        ends = np.exp([self.log_value - away, self.log_value + away])
        return {
            "name": self.name,
            "source": PUBLISHED[self.name].source,
            "value": float(np.exp(self.log_value)),
            "interval": [float(ends[0]), float(ends[1])],
            "share": self.share,
        }


SEQUENCE = 2048
"""Tokens of a sequence in Power Lines."""

STEP_LAW = "Li et al. 2025, 'Predictable Scale: Part I, Step Law', arXiv:2503.04715"
POWER_LINES = "Bergsma et al. 2025, 'Power Lines', arXiv:2505.13738"


def _of_one(
    law: str, coefficient: float, exponent: float, source: str, centre: float, name: str = "n_tokens"
) -> Published:
    """Return a law of one variable: others' runs lie off by half in logarithms, their exponents by .15.

    It has none of the model size, which others' runs show all the same: by as much as their error.
    """
    of_size = 0.1 if name == "tokens_per_param" else 0.2
    return Published(
        law,
        coefficient * centre**exponent,
        {name: centre, "n_params": SIZE},
        {name: exponent},
        0.5,
        {name: 0.15, "n_params": of_size},
        source,
    )


SIZE = 4e8
"""Parameters about which the published runs lie."""

PUBLISHED: Mapping[str, Published] = {
    "step_law.optimal_lr": Published(
        law="optimal_lr",
        at_centre=1.79 * SIZE**-0.713 * 2e10**0.307,
        centre={"n_params": SIZE, "n_tokens": 2e10},
        exponents={"n_params": -0.713, "n_tokens": 0.307},
        level_error=1.0,
        exponent_errors={"n_params": 0.2, "n_tokens": 0.3},
        source=STEP_LAW,
        n_params_kind="non_embedding",
    ),
    "step_law.optimal_batch": _of_one("optimal_batch", 0.58, 0.571, STEP_LAW, 2e10),
    "power_lines.optimal_batch": _of_one("optimal_batch", 0.0306 * SEQUENCE, 0.383, POWER_LINES, 2e10),
    "power_lines.critical_batch": _of_one("critical_batch", 0.0471 * SEQUENCE, 0.462, POWER_LINES, 2e10),
    "power_lines.timescale": _of_one("timescale", 1.084, -0.527, POWER_LINES, 20.0, name="tokens_per_param"),
}
"""By name; coefficients and exponents as in laws.md 3 and 5, batches in tokens."""


def chosen_priors(names: object) -> dict[str, str]:
    """Return the names of published laws by the law that each is a prior of; raises InvalidInput."""
    if names is None:
        return {}
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidInput(field="priors", reason=f"must be a list of names, not {type(names).__name__}")
    chosen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or name not in PUBLISHED:
            raise InvalidInput(field="priors", reason=f"{name!r} is not one of {', '.join(PUBLISHED)}")
        law = PUBLISHED[name].law
        if chosen.get(law, name) != name:
            raise InvalidInput(
                field="priors", reason=f"{chosen[law]} and {name} are both of {law}: name one of them"
            )
        chosen[law] = name
    return chosen
