"""Small models, trained on purpose: configuration, data, model, training, checkpoints.

`configuration`, `parametrization` and `optimizers` import no torch, so that a service without it can check what a
worker will train; `training` and `model` do, and bring what they need when they are imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "ProxyConfig": "isoloss.proxies.configuration",
    "TokenData": "isoloss.proxies.data",
    "Training": "isoloss.proxies.training",
    "coordinate_check": "isoloss.proxies.checks",
    "load_data": "isoloss.proxies.data",
    "lr_transfer": "isoloss.proxies.lr_optima",
    "train_run": "isoloss.proxies.runs",
}

__all__ = [
    "ProxyConfig",
    "TokenData",
    "Training",
    "coordinate_check",
    "load_data",
    "lr_transfer",
    "train_run",
]

if TYPE_CHECKING:
    from isoloss.proxies.checks import coordinate_check
    from isoloss.proxies.configuration import ProxyConfig
    from isoloss.proxies.data import TokenData, load_data
    from isoloss.proxies.lr_optima import lr_transfer
    from isoloss.proxies.runs import train_run
    from isoloss.proxies.training import Training


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a configuration is read without torch."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'isoloss.proxies' has no attribute {name!r}")
    found = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
