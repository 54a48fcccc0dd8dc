"""The gradient noise scale of a training, as norms at two batches that its run logs."""

from __future__ import annotations

from typing import Any

from isoloss.client.recorder import Recorder
from isoloss.hooks.batches import world_size
from isoloss.hooks.gradients import GradientNorms, Norms
from isoloss.hooks.optimizers import unwrapped
from isoloss.hooks.statements import Statements

WHAT = "the gradient noise scale"
ONE_BATCH = "an update is one micro-batch on one process; accumulate gradients, or train on several"
SCALED = "a scaler of losses (float16) scales the gradients"
NO_TOKENS = "the tokens of an update are not known; config batch_tokens= says them"


class NoiseScale:
    """Logs `grad_norm_small` and `grad_norm_big` of some updates and declares their batches; says once why not.

    The small batch is one micro-batch of this process, the big one the update. Both norms are those of mean
    gradients before clipping, up to one factor that is the same for both, on which the noise scale does not
    hang: whether a loop divides its losses by the number of micro-batches is not to be seen.
    """

    def __init__(self, run: Recorder, statements: Statements, optimizer: Any) -> None:
        self._run = run
        self._statements = statements
        self._parts: int | None = None
        weights = [weight for group in unwrapped(optimizer).param_groups for weight in group["params"]]
        trained = [weight for weight in weights if weight.requires_grad]
        self._norms = statements.attempt(WHAT, lambda: GradientNorms(trained, is_shared=world_size() > 1))

    def update_ended(self, step: int) -> None:
        """Log what was measured of an update, if it was."""
        meter = self._norms
        if meter is None:
            return
        if self._statements.attempt(WHAT, lambda: self._logged(meter.update_ended(), step)) is None:
            self.close()

    def close(self) -> None:
        """Leave the weights alone."""
        if self._norms is not None:
            self._norms.close()
            self._norms = None

    def _logged(self, norms: Norms | None, step: int) -> bool | None:
        """True unless nothing more is to be measured; what is wrong is said."""
        if norms is None:
            return True
        reason = self._reason_against(norms.passes)
        if reason is not None:
            self._statements.say(WHAT, f"{WHAT} is not measured: {reason}")
            return None
        parts = norms.passes * world_size()
        if self._parts is None:
            self._declare(parts)
        if parts == self._parts:
            # The first of n passes was added with the weight that it has among n.
            row = {"grad_norm_small": norms.first * norms.passes, "grad_norm_big": norms.last}
            self._run.log(row, step=step)
        return True

    def _reason_against(self, passes: int) -> str | None:
        stated = self._run.stated.get("config", {})
        if passes * world_size() < 2:
            return ONE_BATCH
        if stated.get("precision") == "mixed_float16":
            return SCALED
        return None if stated.get("batch_tokens") else NO_TOKENS

    def _declare(self, parts: int) -> None:
        self._parts = parts
        tokens = self._run.stated["config"]["batch_tokens"]
        self._statements.declare({"batch_small_tokens": tokens / parts, "batch_big_tokens": tokens})
