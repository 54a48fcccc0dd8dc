"""Learning-rate schedules as contiguous pieces, with exact sums and areas.

`schedule_from_spec` reads a declaration, `from_log` what a run logged, `branch` joins a run to its parent.
"""

from isoloss.schedules.annealing import AnnealingAreas
from isoloss.schedules.declarations import KINDS, schedule_from_spec
from isoloss.schedules.logged import from_log
from isoloss.schedules.schedule import Schedule, branch

__all__ = ["KINDS", "AnnealingAreas", "Schedule", "branch", "from_log", "schedule_from_spec"]
