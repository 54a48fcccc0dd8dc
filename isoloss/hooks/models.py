"""What a torch model says of a run: how many parameters it has, of which kind, and in which precision."""

from __future__ import annotations

from typing import Any


def read_model(model: Any, n_params_active: int | None = None) -> dict[str, Any]:
    """Return the parameter counts of the three kinds and the precision of the weights, as a configuration.

    Weights that are shared count once. Without embeddings means without the tables of every torch.nn.Embedding,
    so that an output layer that is tied to one is not counted and another one is. All parameters count as
    active unless `n_params_active` says how many one token uses.
    """
    from torch import nn

    weights = {id(weight): weight for weight in model.parameters()}
    tables = {
        id(weight): weight
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for weight in module.parameters(recurse=False)
    }
    total = sum(map(_size, weights.values()))
    non_embedding = total - sum(map(_size, tables.values()))
    counts = {
        "n_params_total": total,
        "n_params_non_embedding": non_embedding,
        "n_params_active": n_params_active or total,
        "n_params": non_embedding or total,
        "n_params_kind": "non_embedding" if non_embedding else "total",
    }
    known = {name: count for name, count in counts.items() if count}
    return {**known, "precision": _precision(weights.values())} if total else {}


def _size(weight: Any) -> int:
    # DeepSpeed leaves a weight that is spread over ranks empty, and says its size here.
    return int(getattr(weight, "ds_numel", weight.numel()))


def _precision(weights: Any) -> str:
    largest = max(weights, key=_size)
    return str(largest.dtype).removeprefix("torch.")
