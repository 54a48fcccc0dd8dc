"""Scaling laws fitted to your own training curves: what the big run should be, with honest intervals."""

__version__ = "0.1.0"
