"""What a run may take: checked once for the library, the service and the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from isoloss.errors import InvalidInput
from isoloss.observations.counts import HIGHEST_COUNT, LOWEST_COUNT, fits_float, mapping_of

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Constraints:
    """Limits of a run, None where there is none; all above 0.

    `max_batch_tokens` is the largest batch; `tokens_per_second` and `flops_per_second` what all `devices` together
    were measured to do, the first for a run of this size; `deadline_hours` and `compute_flops` what it may take
    at most; `price_per_device_hour` in any currency; `width` and `depth` those of the model where they are fixed.
    """

    max_batch_tokens: float | None = None
    devices: float | None = None
    tokens_per_second: float | None = None
    flops_per_second: float | None = None
    deadline_hours: float | None = None
    compute_flops: float | None = None
    price_per_device_hour: float | None = None
    width: float | None = None
    depth: float | None = None

    @classmethod
    def of(cls, constraints: object) -> Constraints:
        """Return the constraints that a mapping names; raises InvalidInput for unknown ones and wrong values."""
        known = {one.name for one in fields(cls)}
        given = mapping_of(constraints, "constraints")
        for name, value in given.items():
            if name not in known:
                reason = f"there is no such constraint ({', '.join(sorted(known))})"
                raise InvalidInput(field=f"constraints.{name}", reason=reason)
            if value is not None:
                positive(value, f"constraints.{name}")
        return cls(**{name: None if value is None else float(value) for name, value in given.items()})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def cost(self, n_params: float, n_tokens: float) -> dict[str, float | None]:
        """Return what a run takes: operations (6 N D), hours, device-hours and money, None where not known."""
        hours = self._hours(6 * n_params * n_tokens, n_tokens)
        device_hours = None if hours is None or self.devices is None else hours * self.devices
        price = self.price_per_device_hour
        money = None if device_hours is None or price is None else device_hours * price
        return {
            "compute_flops": 6 * n_params * n_tokens,
            "hours": hours,
            "device_hours": device_hours,
            "money": money,
        }

    def _hours(self, compute_flops: float, n_tokens: float) -> float | None:
        if self.tokens_per_second is not None:
            return n_tokens / self.tokens_per_second / SECONDS_PER_HOUR
        return (
            None
            if self.flops_per_second is None
            else compute_flops / self.flops_per_second / SECONDS_PER_HOUR
        )

    def broken(self, cost: Mapping[str, float | None]) -> list[str]:
        """Return in words which limits a run of this cost passes."""
        limits = (
            ("compute_flops", self.compute_flops, "operations"),
            ("hours", self.deadline_hours, "hours"),
        )
        said = [
            f"the run takes {cost[name]:.3g} {unit}, and {limit:.3g} are allowed"
            for name, limit, unit in limits
            if limit is not None and (cost[name] or 0.0) > limit
        ]
        if self.price_per_device_hour is not None and cost["money"] is None:
            said.append(
                "the price is not known: give devices, and measured tokens_per_second or flops_per_second"
            )
        if self.tokens_per_second is not None and self.flops_per_second is not None:
            said.append("hours are by tokens_per_second; flops_per_second is not used")
        if self.deadline_hours is not None and cost["hours"] is None:
            said.append(
                "whether the deadline holds is not known: give measured tokens_per_second or flops_per_second"
            )
        return said


def positive(value: object, field: str) -> float:
    """Return a number above 0, of a size that anything has; raises InvalidInput for anything else."""
    if not fits_float(value) or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise InvalidInput(field=field, reason="must be a number above 0")
    if not LOWEST_COUNT <= value <= HIGHEST_COUNT:  # type: ignore[operator]
        raise InvalidInput(field=field, reason=f"must lie between {LOWEST_COUNT:g} and {HIGHEST_COUNT:g}")
    return float(value)  # type: ignore[arg-type]
