"""`python -m benchmarks [name ...]`: run all benchmarks, or the named ones, and write RESULTS.md and the plots."""

from __future__ import annotations

import importlib
import sys

from benchmarks.results import printed_by, write

NAMES = (
    "accuracy", "coverage", "fit_speed", "forecasts", "growth", "ingest", "lr_transfer", "noise_and_batch",
    "optima", "peak_lr", "proxies", "recorder", "rl", "settings", "stages", "sweeps",
)  # fmt: skip


def main(asked: list[str]) -> None:
    """Run the benchmarks by name, all where none is named."""
    unknown = sorted(set(asked) - set(NAMES))
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}.")
    for name in asked or NAMES:
        write(name, printed_by(importlib.import_module(f"benchmarks.{name}").main))


if __name__ == "__main__":
    main(sys.argv[1:])
