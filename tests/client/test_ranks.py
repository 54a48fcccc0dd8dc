from __future__ import annotations

import subprocess
import sys

import pytest

from isoloss.client.ranks import rank_of


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "3"}, 3),
        ({"RANK": "0", "SLURM_PROCID": "2"}, 0),
        ({"SLURM_PROCID": "2"}, 2),
        ({"OMPI_COMM_WORLD_RANK": "5"}, 5),
        ({"PMI_RANK": "1"}, 1),
        ({"RANK": ""}, 0),
        ({"RANK": "first", "PMIX_RANK": "4"}, 4),
        ({"RANK": "-1"}, 0),
    ],
)
def test_the_launchers_variables_say_the_rank(environment, rank):
    assert rank_of(environment, {}) == rank


def test_the_process_group_knows_better_than_the_environment(tmp_path):
    code = (
        "import torch.distributed as dist\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=0, world_size=1)\n"
        "from isoloss.client.ranks import find_rank\n"
        "print(find_rank())\n"
        "dist.destroy_process_group()\n"
    )
    environment = {"RANK": "7", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "0", done.stderr


def test_torch_is_not_imported_to_ask_it():
    code = (
        "import sys; from isoloss.client.ranks import find_rank; find_rank(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
