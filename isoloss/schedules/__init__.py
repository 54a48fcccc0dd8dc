"""Learning-rate schedules as contiguous pieces, with exact sums and areas.

`schedule_from_spec` reads a declaration, `from_log` what a run logged, `branch` joins a run to its parent;
`spec_of_table` declares a table of learning rates, `spec_of_log` those that a run logged.
"""

from isoloss.schedules.annealing import AnnealingAreas
from isoloss.schedules.declarations import KINDS, schedule_from_spec
from isoloss.schedules.logged import from_log
from isoloss.schedules.recognised import Recognised, spec_of_log
from isoloss.schedules.schedule import Schedule, branch
from isoloss.schedules.tabled import spec_of_table

__all__ = [
    "KINDS",
    "AnnealingAreas",
    "Recognised",
    "Schedule",
    "branch",
    "from_log",
    "schedule_from_spec",
    "spec_of_log",
    "spec_of_table",
]
