"""Where a fit came from: the hash of its data, the code, the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoloss.fitting.datasets import Dataset
from isoloss.fitting.options import FitOptions
from isoloss.version import __version__


def provenance(data: Dataset, options: FitOptions, held_sha256: str | None = None) -> dict[str, Any]:
    """Return what a reader needs to make the same fit again; `held_sha256` of the runs that were held out."""
    return {
        "data_sha256": data.sha256(),
        "holdout_sha256": held_sha256,
        "code_version": __version__,
        "options": options.as_dict(),
        "seed": options.seed,
    }


def came_from(said: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether an earlier provenance is that of the same data and options, whatever reading was chosen."""
    return {name: one for name, one in said.items() if name != "convention"} == now
