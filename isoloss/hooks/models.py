"""What a torch model says of a run: how many parameters it has, of which kind, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Weight:
    """One weight as the whole model has it, however many ranks it is spread over."""

    size: int
    is_table: bool
    dtype: Any


def read_model(model: Any, n_params_active: int | None = None) -> dict[str, Any]:
    """Return the parameter counts of the three kinds and the precision of the weights, as a configuration.

    Weights that are shared count once, and weights that are spread over ranks as a whole. Without embeddings means
    without the tables of every torch.nn.Embedding, so that an output layer that is tied to one is not counted and
    another one is. All parameters count as active unless `n_params_active` says how many one token uses.
    """
    weights = [*_flattened(model), *_others(model)]
    total = sum(weight.size for weight in weights)
    non_embedding = total - sum(weight.size for weight in weights if weight.is_table)
    counts = {
        "n_params_total": total,
        "n_params_non_embedding": non_embedding,
        "n_params_active": n_params_active or total,
        "n_params": non_embedding or total,
        "n_params_kind": "non_embedding" if non_embedding else "total",
    }
    known = {name: count for name, count in counts.items() if count}
    return {**known, "precision": _precision(weights)} if total else {}


def _flattened(model: Any) -> Iterator[Weight]:
    """The weights that FullyShardedDataParallel made one long one of, of which a rank has a part."""
    for flat in _flat_weights(model):
        for place, shape in zip(flat._param_infos, flat._shapes, strict=True):
            yield Weight(int(shape.numel()), _is_table(place.module), flat.dtype)


def _others(model: Any) -> Iterator[Weight]:
    seen: set[int] = set()
    for flat in _flat_weights(model):
        seen |= {id(flat), *map(id, flat._params or ()), *map(id, flat._shared_params or ())}
    tables = {
        id(weight)
        for module in model.modules()
        if _is_table(module)
        for weight in module.parameters(recurse=False)
    }
    for weight in model.parameters():
        if id(weight) not in seen:
            seen.add(id(weight))
            yield Weight(_size(weight), id(weight) in tables, weight.dtype)


def _flat_weights(model: Any) -> list[Any]:
    handles: list[Any] = [getattr(module, "_handle", None) for module in model.modules()]
    return [handle.flat_param for handle in handles if hasattr(handle, "flat_param")]


def _is_table(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _size(weight: Any) -> int:
    # DeepSpeed leaves a weight that is spread over ranks empty, and says its size here.
    return int(getattr(weight, "ds_numel", weight.numel()))


def _precision(weights: list[Weight]) -> str:
    largest = max(weights, key=lambda weight: weight.size)
    return str(largest.dtype).removeprefix("torch.")
