"""The package as a training environment sees it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import isoloss


def test_importing_isoloss_imports_no_heavy_library() -> None:
    """Training code that imports the name waits for no SciPy, httpx, typer or torch."""
    heavy = {"numpy", "scipy", "lmfit", "httpx", "typer", "torch"}
    code = f"import isoloss, sys; print(' '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", isoloss.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What `isoloss` lists can be used."""
    assert getattr(isoloss, name) is not None


def test_laws_are_compared_by_a_public_name() -> None:
    """What docs/how-to/fit-a-law.md calls is the fitting room's own."""
    from isoloss.fitting import Comparison, compare

    assert (isoloss.compare, isoloss.Comparison) == (compare, Comparison)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Nothing is made up."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        isoloss.nothing  # noqa: B018


def test_fitting_needs_neither_a_database_nor_a_web_framework_nor_torch() -> None:
    """The mathematics imports none of them."""
    code = (
        "import isoloss, sys; isoloss.fit; isoloss.read_curves; "
        "print(' '.join({'sqlalchemy', 'fastapi', 'psycopg', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
