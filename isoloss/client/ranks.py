"""Which process of a distributed training this is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import ModuleType

RANK_VARIABLES = (
    "RANK",  # torchrun, Accelerate, DeepSpeed
    "OMPI_COMM_WORLD_RANK",  # Open MPI
    "PMIX_RANK",
    "PMI_RANK",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_RANK",  # MVAPICH
    "SLURM_PROCID",  # last: under srun of torchrun it counts nodes
)


def find_rank() -> int:
    """The rank of this process, 0 where it is alone: torch.distributed knows it, else the environment does.

    torch is asked only where the training has imported it already.
    """
    return rank_of(os.environ, sys.modules)


def rank_of(environment: Mapping[str, str], modules: Mapping[str, ModuleType]) -> int:
    known = _torch_rank(modules.get("torch.distributed"))
    if known is not None:
        return known
    for name in RANK_VARIABLES:
        text = environment.get(name, "").strip()
        if text.isascii() and text.isdigit():
            return int(text)
    return 0


def _torch_rank(distributed: ModuleType | None) -> int | None:
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())
