"""Where a fit came from: the hash of its data, the code, the options."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from isoloss.fitting.options import FitOptions
from isoloss.observations import Curve
from isoloss.version import __version__


def provenance(curves: Sequence[Curve], options: FitOptions) -> dict[str, Any]:
    """Return what a reader needs to make the same fit again."""
    return {
        "data_sha256": data_sha256(curves),
        "code_version": __version__,
        "options": options.as_dict(),
        "seed": options.seed,
    }


def data_sha256(curves: Sequence[Curve]) -> str:
    """Return the hash of all that enters a fit; the order of the runs does not matter."""
    digest = hashlib.sha256()
    for curve in sorted(curves, key=lambda one: one.run_id):
        digest.update(f"{curve.run_id}\0{curve.n_params}\0{curve.n_params_kind}\0".encode())
        rates = (curve.schedule.lr(curve.step), curve.schedule.area(curve.step))
        for column in (curve.step, curve.loss_nats, *rates):
            digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
