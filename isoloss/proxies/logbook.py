"""What a training has logged and not handed out yet, and when that is a divergence."""

from __future__ import annotations

import math
from typing import Any

import torch

from isoloss.proxies.configuration import ProxyConfig

Columns = dict[str, list[Any]]

HIGH_FACTOR = 1.5
"""How many times the first loss is too high: well above guessing, which is where a model starts."""

HIGH_STEPS = 50
"""How many losses in a row must be too high; a peak that a run comes back from is shorter."""

KEPT_STEPS = 64
"""Steps whose losses may wait on a CUDA device before they are looked at."""

ALWAYS = ("loss", "val_loss", "lr", "tokens", "grad_norm")


class Logbook:
    """Rows of a training by step. Losses stay on their device until they are asked for or have become many."""

    def __init__(self, config: ProxyConfig) -> None:
        self._batch_tokens = config.batch_tokens
        self._rows: list[dict[str, Any]] = []
        self._n_read = 0
        self._first_loss: float | None = None
        self._n_high = 0
        self.last_step = 0
        self.is_diverged = False

    def note(self, step: int, **values: Any) -> None:
        """Keep numbers of a step, floats or tensors of one; once a loss has diverged, later steps are nothing."""
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        row = self._rows[-1]
        row.update(values)
        loss = row.get("loss")
        if isinstance(loss, torch.Tensor) and (
            loss.device.type == "cpu" or len(self._rows) - self._n_read >= KEPT_STEPS
        ):
            self._read()

    def taken(self) -> Columns:
        """Return the columns of all rows, and forget them."""
        self._read()
        rows, self._rows, self._n_read = self._rows, [], 0
        names = dict.fromkeys((*ALWAYS, *(name for row in rows for name in row if name != "step")))
        for row in rows:
            row["tokens"] = row["step"] * self._batch_tokens
        return {"step": [row["step"] for row in rows]} | {
            name: [_number(row.get(name)) for row in rows] for name in names
        }

    def _read(self) -> None:
        """Look at losses that were not looked at: is this a divergence? Rows behind one are dropped."""
        waiting = self._rows[self._n_read :]
        tensors = [row["loss"] for row in waiting if isinstance(row.get("loss"), torch.Tensor)]
        losses = torch.stack(tensors).tolist() if tensors else []
        with_loss = [row for row in waiting if isinstance(row.get("loss"), torch.Tensor)]
        for row, loss in zip(with_loss, losses, strict=True):
            row["loss"] = loss
            self._judge(row["step"], loss)
            if self.is_diverged:
                self._rows = [kept for kept in self._rows if kept["step"] <= row["step"]]
                break
        self._n_read = len(self._rows)

    def _judge(self, step: int, loss: float) -> None:
        self.last_step = step
        if self._first_loss is None:
            self._first_loss = loss
        self._n_high = self._n_high + 1 if loss > HIGH_FACTOR * self._first_loss else 0
        self.is_diverged = not math.isfinite(loss) or self._n_high >= HIGH_STEPS

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "first_loss": self._first_loss,
            "n_high": self._n_high,
            "last_step": self.last_step,
            "is_diverged": self.is_diverged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self._first_loss, self._n_high = state["first_loss"], state["n_high"]
        self.last_step, self.is_diverged = state["last_step"], state["is_diverged"]


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
