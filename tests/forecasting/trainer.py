"""A training of the study as a process of its own: `trainer.py FOLDER RUN_ID STEPS [STEP_OF_NAN]`."""

from __future__ import annotations

import math
import sys
import time

import isoloss
from tests.forecasting.studies import CONFIG, NEXT, losses


def main() -> None:
    folder, run_id, last, *nan = sys.argv[1:]
    step, loss = losses(NEXT, 99, last=int(last))
    with isoloss.init("study", run_id=run_id, config=CONFIG, schedule=NEXT, dir=folder) as run:
        for at, value in zip(step.tolist(), loss.tolist(), strict=True):
            run.log({"loss": math.nan if nan and at >= int(nan[0]) else value}, step=at)
            time.sleep(0.06)


if __name__ == "__main__":
    main()
