"""What can be measured of a proxy while it trains, by name; no torch."""

from __future__ import annotations

from typing import Any

from isoloss.errors import InvalidInput

MEASUREMENTS: dict[str, str] = {
    "grad_norm": "the norm of the gradient before clipping, which is logged at every step in any case",
    "grad_norm_l1": "the sum of the absolute values of the gradient, before clipping",
    "grad_noise_scale": "the noise scale in tokens, and the norms at two batches from which the law reads it",
    "norm_test": "the least eta at which the batch passes the norm test of AdAdaGrad",
    "singular_values": "the largest singular value of each matrix",
    "hessian": "the largest eigenvalue of the Hessian over batches of 1, 2, 4, ... parts of the batch",
}
"""Each measurement, and what it is."""


def checked_measurements(given: Any) -> tuple[str, ...]:
    """Return names of measurements, each once. Raises InvalidInput for another, and lists those that there are."""
    if not isinstance(given, tuple | list) or not all(isinstance(name, str) for name in given):
        raise InvalidInput(field="measure", reason="must be a list of names")
    for name in given:
        if name not in MEASUREMENTS:
            reason = f"{name!r} is not one of {', '.join(sorted(MEASUREMENTS))}"
            raise InvalidInput(field="measure", reason=reason)
    return tuple(dict.fromkeys(given))
