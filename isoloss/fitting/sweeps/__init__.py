"""Best settings read off sweeps: one smooth surface under all of them, its minimum a law of what the runs are."""

from isoloss.fitting.sweeps.sweep_fit import fit_sweeps

__all__ = ["fit_sweeps"]
