"""Laws whose parameters come out of several fits, one on what the other found."""

from isoloss.fitting.staged.staged_fit import check_options, fit_staged

__all__ = ["check_options", "fit_staged"]
