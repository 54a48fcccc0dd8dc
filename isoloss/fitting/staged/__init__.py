"""Laws whose parameters come out of several fits, one on what the other found."""

from isoloss.fitting.staged.staged_fit import fit_staged

__all__ = ["fit_staged"]
