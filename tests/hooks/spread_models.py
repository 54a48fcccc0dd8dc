"""On each of two ranks: a model that is spread over them, by every way of torch, and how large it seems to be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from isoloss.hooks.models import read_model


def made() -> nn.Module:
    """One whose sizes no two ranks can share equally; its output layer is tied to its table."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(65, 17), nn.Linear(17, 63), nn.Linear(63, 17), nn.Linear(17, 65))
    model[3].weight = model[0].weight
    return model


def sharded() -> nn.Module:
    model, mesh = made(), init_device_mesh("cpu", (2,))
    for layer in (model[1], model[2]):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def flattened(*units: int, use_orig_params: bool = True) -> nn.Module:
    model, options = made(), {"device_id": torch.device("cpu"), "use_orig_params": use_orig_params}
    for unit in units:
        model[unit] = FullyShardedDataParallel(model[unit], **options)
    return FullyShardedDataParallel(model, **options)


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    models = {
        "whole": made(),
        "fsdp2": sharded(),
        "fsdp": flattened(),
        "fsdp, flat": flattened(use_orig_params=False),
        "fsdp, in units": flattened(1, 2),
    }
    found = {name: read_model(model) for name, model in models.items()}
    (folder / f"found-{distributed.get_rank()}").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
