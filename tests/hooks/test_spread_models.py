"""Models that are spread over ranks count as the whole that they are."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hooks.trainings import TWO_RANKS, ended

TRAINER = Path(__file__).with_name("spread_models.py")


def test_a_model_that_is_spread_over_ranks_has_the_parameters_of_the_whole_one(train, tmp_path):
    ended(train(launcher=TWO_RANKS))
    for rank in (0, 1):
        found = json.loads((tmp_path / f"found-{rank}").read_text())
        whole = found.pop("whole")
        assert whole["n_params_total"] == 65 * 17 + 17 * 63 + 63 + 63 * 17 + 17 + 65
        assert found == dict.fromkeys(found, whole)
