"""A training with Accelerate as a process of its own, which tests kill.

`python accelerate_trainer.py FOLDER [resume] [what=value ...]`. It writes what every step was computed with to
`FOLDER/truth-RANK`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from isoloss.hooks.accelerate import IsolossTracker
from tests.hooks.trainings import hold

STEPS = 60


def main(folder: Path, options: dict[str, str]) -> None:
    torch.manual_seed(0)
    tracker = IsolossTracker(config={"dataset": "noise"})
    accelerator = Accelerator(log_with=tracker, gradient_accumulation_steps=2, cpu=True)
    model = nn.Sequential(nn.Embedding(64, 16), nn.Linear(16, 64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    total = STEPS * accelerator.num_processes  # the Accelerator steps it once for each process
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 0.9 * step / total)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    accelerator.register_for_checkpointing(tracker)
    accelerator.init_trackers("named-by-the-tracker", config={"seed": 0})
    if "resume" in options:
        accelerator.load_state(str(folder / "out"))
    tracker.watch(optimizer, scheduler, model=model, total_steps=STEPS)
    truth = (folder / f"truth-{os.environ.get('RANK', '0')}").open("a", buffering=1)
    while tracker.step < STEPS:
        for _ in range(2):
            with accelerator.accumulate(model):
                tokens = torch.randint(64, (4, 17))
                loss = nn.functional.cross_entropy(
                    model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
                )
                accelerator.backward(loss)
                lr = optimizer.param_groups[0]["lr"]
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        truth.write(json.dumps({"step": tracker.step, "loss": loss.item(), "lr": lr}) + "\n")
        accelerator.log({"loss": loss.item()}, step=tracker.step)
        hold(folder, options, tracker.step)
        if tracker.step % 20 == 0:
            accelerator.save_state(str(folder / "out"))
    accelerator.end_training()


if __name__ == "__main__":
    given = (each.partition("=") for each in sys.argv[2:])
    main(Path(sys.argv[1]), {name: value for name, _, value in given})
