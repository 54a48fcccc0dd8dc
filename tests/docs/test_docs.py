"""Every block of code in the README and the documents runs, in order, against a real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    language: str
    code: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


WITH_CODE = [page for page in PAGES if blocks_of(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, live: object, tmp_path: Path) -> None:
    """Each block ends without an error; shell blocks share one folder, Python blocks one process each."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    service = {"ISOLOSS_URL": live.url, "ISOLOSS_API_KEY": live.api_key}  # type: ignore[attr-defined]
    service["ISOLOSS_DATA_DIR"] = str(tmp_path / "data")  # for the journals of imports
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | service | {"PATH": path}
    script = "set -euo pipefail\n" + "\n".join(map(as_shell, blocks_of(page)))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def as_shell(block: Block) -> str:
    if block.language == "bash":
        return block.code
    return f"python - <<'END_OF_PYTHON'\n{block.code}END_OF_PYTHON"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Every relative link names a file or a folder that is there."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
