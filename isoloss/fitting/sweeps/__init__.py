"""Best settings read off sweeps: one smooth surface under all of them, its minimum a law of what the runs are."""

from isoloss.fitting.sweeps.sweep_fit import check_options, fit_sweeps

__all__ = ["check_options", "fit_sweeps"]
