from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from isoloss import __version__
from isoloss.cli import build, service


@pytest.fixture
def entries(monkeypatch):
    """Sets the entry points that the command line finds."""

    def use(*values: str) -> None:
        found = [EntryPoint(name="x", value=value, group=service.GROUP) for value in values]
        monkeypatch.setattr(service, "entry_points", lambda group: found)

    return use


def add_up(app: typer.Typer) -> None:
    @app.command()
    def up() -> None:
        typer.echo("the real one")


def test_without_the_service_its_commands_say_how_to_get_it(entries):
    entries("nowhere_at_all.cli:register")
    result = CliRunner().invoke(build(), ["up", "--port", "0"])
    assert result.exit_code == 1
    assert "needs the service" in result.stderr
    assert "make demo" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_command_that_joins_stands_and_the_others_are_stood_in_for(entries):
    entries(f"{__name__}:add_up", "nowhere_at_all.cli:register")
    app = build()
    assert CliRunner().invoke(app, ["up"]).stdout == "the real one\n"
    assert CliRunner().invoke(app, ["demo"]).exit_code == 1


def test_where_all_entry_points_load_nothing_is_stood_in_for(entries):
    entries(f"{__name__}:add_up")
    app = build()
    assert CliRunner().invoke(app, ["up"]).stdout == "the real one\n"
    assert CliRunner().invoke(app, ["backup"]).exit_code == 2


def test_without_any_entry_point_the_commands_exist_too(entries):
    entries()
    assert CliRunner().invoke(build(), ["demo"]).exit_code == 1


def test_the_version_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "isoloss", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"isoloss {__version__}\n"


def test_help_loads_neither_numbers_nor_network():
    code = (
        "import sys; from isoloss.cli import build; build();"
        "slow = 'numpy', 'scipy', 'lmfit', 'httpx', 'rich';"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
