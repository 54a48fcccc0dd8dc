"""Published laws, one file each; `LAWS` holds them by name."""

from typing import Any

from isoloss.laws.law import Features, Law, Parameter
from isoloss.laws.lr_annealing import LRAnnealing

LAWS: dict[str, Law[Any]] = {law.name: law for law in (LRAnnealing(),)}

__all__ = ["LAWS", "Features", "Law", "Parameter"]
