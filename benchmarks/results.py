"""Where what was measured is written: RESULTS.md, between the marks of each benchmark."""

from __future__ import annotations

import io
import os
import platform
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).with_name("RESULTS.md")
PLOTS = Path(__file__).with_name("plots")


class _Both(io.StringIO):
    """Keeps what is printed, and prints it."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)  # type: ignore[union-attr]
        return super().write(text)


def printed_by(work: Callable[[], None]) -> str:
    """Run the work, and return what it printed, which is printed as well."""
    with redirect_stdout(_Both()) as kept:
        work()
    return kept.getvalue().strip()


def machine() -> str:
    """Return in words what the numbers were measured on."""
    processors = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores of {', '.join(sorted(processors))}, "
        f"{memory:.0f} GiB, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}."
    )


def write(name: str, text: str) -> None:
    """Put what a benchmark printed between its marks in RESULTS.md, at the end where it has none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n{machine()}\n\n{text}\n{end}"
    page = RESULTS.read_text()
    marked = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    page = marked.sub(lambda _: block, page) if marked.search(page) else f"{page.rstrip()}\n\n{block}\n"
    RESULTS.write_text(page)
