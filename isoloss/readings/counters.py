"""What a run had counted at a step: tokens that it had seen, compute that it had spent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoloss.arrays import FloatArray, IntArray
from isoloss.errors import InvalidInput


@dataclass(frozen=True)
class Counter:
    """A quantity that only grows, as a run's own points have it.

    `logged` (n,) are its values at `step` (n,), NaN where there is none; `begin` is the step that the run sets out
    from with the value there, NaN where that is not known. `per_step` is what a step adds after the last value, NaN
    where that is not known.
    """

    name: str
    step: IntArray
    logged: FloatArray
    begin: tuple[int, float]
    per_step: float = float("nan")

    def at(self, step: IntArray) -> FloatArray:
        """Return the values at steps (m,): between two that are known on the line that joins them, else NaN.

        Raises InvalidInput for a counter that falls.
        """
        known = np.isfinite(self.logged)
        at, count = self.step[known], self.logged[known]
        if np.isfinite(self.begin[1]) and (not at.size or at[0] > self.begin[0]):
            at, count = np.append(self.begin[0], at), np.append(self.begin[1], count)
        if not at.size:
            return np.full(step.size, np.nan)
        self._refuse_to_fall(at, count)
        found = np.interp(step, at, count, left=np.nan, right=np.nan)
        beyond = step > at[-1]
        found[beyond] = count[-1] + self.per_step * (step[beyond] - at[-1])
        return np.asarray(found)

    def _refuse_to_fall(self, at: IntArray, count: FloatArray) -> None:
        falls = np.flatnonzero(np.diff(count) < 0)
        if falls.size:
            last, this = falls[0], falls[0] + 1
            reason = (
                f"falls from {count[last]:g} at step {at[last]} to {count[this]:g} at step {at[this]}: it counts "
                "from the beginning of the training, and a branch goes on from its parent"
            )
            raise InvalidInput(field=self.name, reason=reason)
