"""A training loop as a process of its own, for tests that kill it: logs its steps, and says where it is.

`python trainer.py FOLDER FIRST LAST [what=value ...]`: it checkpoints every 100 steps in `FOLDER/checkpoint-RANK`,
and goes on from there if FIRST is `resume`. It writes every step that it has logged to `FOLDER/logged-RANK`, and
stops where it finds `FOLDER/stop`.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

import isoloss


def loss(step: int) -> float:
    """What a step's loss is, whenever it is computed."""
    return 2 + step**-0.5


def main(folder: Path, first: str, last: int, options: dict[str, str]) -> None:
    rank = os.environ.get("RANK", "0")
    checkpoint = folder / f"checkpoint-{rank}"
    start = int(checkpoint.read_text()) + 1 if first == "resume" else int(first)
    if options.get("own_handler"):
        signal.signal(signal.SIGTERM, lambda *_: (folder / "handled").touch())
    if options.get("small_disk"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(options["small_disk"]),) * 2)
    run = isoloss.init(run_id="r", dir=folder / "runs", config={"seed": 3})
    logged = (folder / f"logged-{rank}").open("a", buffering=1)
    for step in range(start, last + 1):
        run.log({"loss": loss(step)}, step=step)
        if not options.get("small_disk"):
            logged.write(f"{step} {time.time()}\n")
        if step % 100 == 0:
            run.flush(on_disk=True)
            checkpoint.write_text(str(step))
        time.sleep(float(options.get("pause", "0.001")))
        if options.get("raise_at") == str(step):
            raise RuntimeError("the training fails")
        if options.get("fork_at") == str(step):
            fork(run, folder)
        if (folder / "handled").exists() or (folder / "stop").exists():
            break
    if not options.get("no_finish"):
        run.finish()
    print("trained", run.is_recording)


def fork(run: isoloss.Recorder, folder: Path) -> None:
    """Children as loaders of data are: one that ends by itself, one that is terminated, one that outlives us."""
    children = [
        multiprocessing.get_context("fork").Process(target=work, args=(run, pause)) for pause in (0.0, 60.0)
    ]
    for child in children:
        child.start()
    children[0].join()
    children[1].terminate()
    children[1].join()
    (folder / "exits").write_text(f"{[child.exitcode for child in children]}")
    if os.fork() == 0:
        os.close(1), os.close(2)  # whoever reads them would wait for it
        time.sleep(15)
        os._exit(0)


def work(run: isoloss.Recorder, pause_s: float) -> None:
    run.log({"loss": 99.0}, step=1)
    run.flush()
    time.sleep(pause_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), dict(each.split("=") for each in sys.argv[4:]))
