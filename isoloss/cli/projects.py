"""`isoloss project`"""

from __future__ import annotations

from typing import Annotated

import typer

from isoloss.cli.output import print_fields
from isoloss.cli.session import Session, command

app = typer.Typer(
    name="project", help="Projects: the rooms that runs and fits live in.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The project's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)]


@command(app, "create")
def create(
    session: Session,
    name: Name,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="A project of that name is fine.")] = False,
) -> None:
    """Make a project."""
    project = session.client.projects.create(name, exist_ok=exist_ok)
    session.output.show(project, lambda: session.output.line(f"Project {project['name']} is there."))


@command(app, "list")
def list_all(session: Session) -> None:
    """List all projects."""
    projects = list(session.client.projects.list())
    rows = [[project["name"], project.get("created_at", "")] for project in projects]
    session.output.show(projects, lambda: session.output.table(["project", "created"], rows))


@command(app, "show")
def show(session: Session, name: Name) -> None:
    """Show one project."""
    project = session.client.projects.get(name)
    session.output.show(project, lambda: print_fields(session.output, dict(project)))


@command(app, "delete")
def delete(session: Session, name: Name, yes: Yes = False) -> None:
    """Delete a project with all that lies in it."""
    confirm(f"Delete project {name} with its runs, points and fits?", yes)
    session.client.projects.delete(name)
    session.output.show({"deleted": name}, lambda: session.output.line(f"Project {name} is deleted."))


def confirm(question: str, yes: bool) -> None:
    """Ask on stderr before something is lost, unless `yes`."""
    if not yes:
        typer.confirm(question, abort=True, err=True)
