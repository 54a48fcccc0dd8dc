"""Final loss over training compute: a power law whose exponent changes once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.law import Derived, Parameter, Priors, TableLaw
from isoloss.laws.power_laws import LogColumns, blank_jacobian, exponent_grid, log_columns, n_distinct
from isoloss.laws.power_sum import coefficient, falling, floor

E, A, EXPONENT, BREAK, LATER, WIDTH = range(6)

PLACES = (0.25, 0.5, 0.75)
"""Where starts break, as shares of the way from the smallest to the largest run in logarithms."""

WIDTHS = (0.3, 1.0)


class BrokenPowerLaw(TableLaw[LogColumns]):
    """L(C) = E + A C^-a (1 + (C/C_b)^(1/f))^(-(b - a) f).

    C in floating-point operations of training, 6 N D where runs do not state it; losses in nats per token. The
    exponent is a far below C_b and b far above, and changes over f in ln C. Source: Caballero et al. 2022,
    'Broken Neural Scaling Laws', arXiv 2210.14891, equation 1, with one break.
    """

    name = "broken_power_law"
    title = "Loss over compute, with a floor and a change of exponent"
    formula = "L(C) = E + A * C^-a * (1 + (C / C_b)^(1/f))^(-(b - a) * f)"
    reference = "Caballero et al. 2022, 'Broken Neural Scaling Laws', arXiv:2210.14891"
    quantity = "loss"
    unit = "nats/token"
    columns = ("compute_flops",)
    remedy = "add runs with a wider range of compute on both sides of the break"
    remedies: ClassVar = {
        frozenset(("E", "b")): "add larger runs, which show the floor",
        frozenset(("A", "a")): "add smaller runs",
    }
    requires = ("config.compute_flops or n_params and n_tokens", "summary.final_loss")
    parameters = (
        floor(),
        coefficient("A", "A", "nats/token * FLOP^a", "what compute removes before the break"),
        falling("a", "a", "exponent of the compute before the break"),
        Parameter("C_b", "C_b", "FLOP", 1e-30, 1e60, "compute at the break", "log"),
        falling("b", "b", "exponent of the compute behind the break"),
        Parameter("f", "f", "1", 0.05, 5.0, "over how much ln C the exponent changes", "log"),
    )

    def prepare(self, columns: Mapping[str, FloatArray]) -> LogColumns:
        return log_columns(columns["compute_flops"])

    def scale(self, columns: Mapping[str, FloatArray]) -> FloatArray:
        """Return the training compute in FLOPs."""
        return columns["compute_flops"]

    def basis(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        power = namespace(theta).exp(_log_power(theta, features)[0])
        return namespace(theta).stack([namespace(theta).ones_like(power), power], axis=-1)

    def predict(self, theta: FloatArray, features: LogColumns) -> FloatArray:
        power: FloatArray = namespace(theta).exp(_log_power(theta, features)[0])
        return theta[:, E, None] + theta[:, A, None] * power

    def jacobian(self, theta: FloatArray, features: LogColumns) -> tuple[FloatArray, FloatArray]:
        xp = namespace(theta)
        log_power, beyond, soft = _log_power(theta, features)
        behind = xp.exp(beyond - soft)  # the share of the break that is passed
        bend, width = theta[:, LATER, None] - theta[:, EXPONENT, None], theta[:, WIDTH, None]
        out = blank_jacobian(theta, features.n_points)
        power = xp.exp(log_power)
        out[:, E] = 1.0
        out[:, A] = power
        power = theta[:, A, None] * power
        out[:, EXPONENT] = power * (width * soft - features.logs[0])
        out[:, LATER] = -power * width * soft
        out[:, BREAK] = power * bend * behind / theta[:, BREAK, None]
        out[:, WIDTH] = -power * bend * (soft - behind * beyond)
        return theta[:, E, None] + power, out.mT

    def grid(self, features: LogColumns, count: int) -> FloatArray:
        """Return starts of all pairs of exponents, with the break at some places among the runs."""
        exponents = exponent_grid(count, 2)
        low, high = float(features.logs.min()), float(features.logs.max())
        parts = []
        for place in PLACES:
            for width in WIDTHS:
                theta = np.zeros((len(exponents), 6))
                theta[:, [EXPONENT, LATER]] = exponents
                theta[:, BREAK], theta[:, WIDTH] = np.exp(low + place * (high - low)), width
                parts.append(theta)
        return np.concatenate(parts)

    def held(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, float]:  # noqa: ARG002
        return {}

    def undetermined(self, features: LogColumns, fixed: Collection[str] = ()) -> dict[str, str]:
        if n_distinct(features) != [1]:
            return {}
        return {
            parameter.name: "all runs took the same compute"
            for parameter in self.parameters
            if parameter.name not in fixed
        }

    def priors(self, features: LogColumns) -> Priors:  # noqa: ARG002
        return Priors()

    def derived(self, theta: FloatArray) -> Derived:  # noqa: ARG002 (nothing follows that is not a parameter)
        return {}


def _log_power(theta: FloatArray, features: LogColumns) -> tuple[Any, Any, Any]:
    """Return the logarithm of what A multiplies, ln (C/C_b)^(1/f), and ln of 1 more, (members, points) each."""
    xp = namespace(theta)
    beyond = (features.logs[0] - xp.log(theta[:, BREAK, None])) / theta[:, WIDTH, None]
    soft = xp.logaddexp(beyond, xp.zeros_like(beyond))
    bend = theta[:, LATER, None] - theta[:, EXPONENT, None]
    return -theta[:, EXPONENT, None] * features.logs[0] - bend * theta[:, WIDTH, None] * soft, beyond, soft
