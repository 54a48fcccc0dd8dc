"""Points as the API describes them; batches themselves are read by `columns.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.schemas import Document, Step
from isoloss.observations.point_columns import COLUMN_NAME, MAX_FREE_COLUMNS, MAX_STEP

MEANINGS = {
    "loss": 'Training loss, nats per token, above 0; `"NaN"` and the infinities mark the run diverged.',
    "val_loss": "Loss on held-out text, like `loss`.",
    "lr": "Learning rate that the step applied; 0 only where the declared schedule is 0.",
    "tokens": "Tokens seen after the step, above 0.",
    "grad_norm": "Euclidean norm of the gradient.",
    "grad_norm_l1": "Sum of the gradient's absolute values.",
    "grad_noise_scale": "Gradient noise scale B_simple = tr(Sigma)/|G|^2, in tokens; may be below 0.",
    "reward": "Mean reward; `rl_compute` is fitted to those from 0 to 1.",
    "compute_flops": "Floating-point operations spent since the beginning, after the step.",
    "wall_time_s": "Seconds since the run began.",
}
EXAMPLE = {
    "step": [1, 2, 3],
    "loss": [10.91, 10.42, None],
    "lr": [1e-6, 2e-6, 3e-6],
    "tokens": [524288, 1048576, 1572864],
}


class AcceptedDocument(Document):
    """What became of a batch."""

    accepted: int = Field(description="Points that brought something new.", examples=[3])
    duplicates: int = Field(description="Points that were there with the same values already.", examples=[0])
    last_step: int = Field(description="The last step of the run's own points.", examples=[3])


class Rewind(Document):
    """Where to go back to."""

    step: Step = Field(description="The last step to keep.", examples=[1200])


class RewoundDocument(Document):
    """What is left after going back."""

    last_step: int | None = Field(
        description="The last step of the run's own points; null: none is left.", examples=[1200]
    )


class PointsDocument(Document):
    """Points of a run, a list for each column."""

    columns: dict[str, list[int | float | Literal["NaN", "Infinity", "-Infinity"] | None]] = Field(
        description="`step` and the columns, of equal length; null where nothing was logged.",
        examples=[EXAMPLE],
    )
    gaps: dict[str, list[tuple[int, int]]] = Field(
        description="With `max_points`: for each column the first and last step of every stretch of values that "
        "are not finite and therefore not among the points.",
        examples=[{"loss": [[4100, 4230]]}],
    )


def _list_of(description: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "description": description}


_CELL: dict[str, Any] = {"type": ["number", "null"]}
_LOSS: dict[str, Any] = {"anyOf": [_CELL, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Columns of equal length. Null, or a column left out, is no value, and never conflicts.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["step"],
                    "properties": {
                        "step": _list_of(
                            "Optimiser steps, strictly increasing.",
                            {"type": "integer", "minimum": 0, "maximum": MAX_STEP},
                        ),
                        **{
                            name: _list_of(meaning, _LOSS if name.endswith("loss") else _CELL)
                            for name, meaning in MEANINGS.items()
                        },
                    },
                    "patternProperties": {
                        f"^{COLUMN_NAME.pattern}$": _list_of(
                            f"A column of your own, at most {MAX_FREE_COLUMNS} a run.", _CELL
                        )
                    },
                    "additionalProperties": False,
                    "examples": [EXAMPLE],
                }
            }
        },
    }
}

CSV_TOO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The points.", "content": {"text/csv": {"schema": {"type": "string"}}}}
}
