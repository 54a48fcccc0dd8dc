"""What is simulated to measure the coverage of intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import OTHER_TRUTHS, TRUTHS, designs, independent
from isoloss.laws import LAWS, CurveLaw, TableLaw

STUDIED = [
    name
    for name, law in LAWS.items()
    if isinstance(law, CurveLaw) or (isinstance(law, TableLaw) and law.predicts_outcomes)
]


def test_every_law_of_losses_has_truths() -> None:
    """One of its own and one outside of its family."""
    assert sorted(TRUTHS) == sorted(OTHER_TRUTHS) == sorted(STUDIED)


@pytest.mark.parametrize("name", [name for name in STUDIED if isinstance(LAWS[name], TableLaw)])
def test_a_table_of_every_law_is_fitted_and_asked(name: str) -> None:
    """Simulated losses are those of language models, and a study answers with a share, or says that it cannot."""
    for truth in (None, OTHER_TRUTHS[name][1]()):
        _, design, _ = designs(name, truth)
        held = design(0).study(independent, seed=0)
        assert held is None or 0 <= held <= 1
        assert np.all((design(0).exact > 1) & (design(0).exact < 8))
