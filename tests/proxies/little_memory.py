"""Trains one step in a process whose memory is limited; prints its note, its loss, and the loss without a limit."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np

from isoloss.proxies import TokenData, Training
from tests.proxies.small import WORDS, small_config

MEBIBYTE = 2**20


def main() -> None:
    data = TokenData("words", np.tile(WORDS, 8), 256)
    Training.start(small_config(), data).advance()  # what torch takes once is taken
    config = small_config(batch_tokens=2**15, n_tokens=2**15)
    limited, free = Training.start(config, data), Training.start(config, data)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 100 * MEBIBYTE, resource.RLIM_INFINITY))
    loss = limited.advance()["loss"][0]
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(limited.notes[-1])
    print(loss)
    print(free.advance()["loss"][0])


if __name__ == "__main__":
    main()
