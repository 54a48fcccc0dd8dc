"""Projects: the rooms that runs and fits live in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast
from urllib.parse import quote

from isoloss.client.documents import Project
from isoloss.client.transport import Transport


def project_path(project: str, *rest: str) -> str:
    """The path of a project, or of what lies in it; names are quoted, so none leads elsewhere."""
    return "/".join(["/v1/projects", quote(project, safe=""), *(quote(part, safe="") for part in rest)])


class Projects:
    """Projects: `client.projects.create("pilot")`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, *, exist_ok: bool = False) -> Project:
        """Make a project; one of that name raises Conflict, or is returned with `exist_ok`."""
        from isoloss.client.errors import Conflict

        try:
            return cast(Project, self._transport.post("/v1/projects", {"name": name}, creates=True))
        except Conflict:
            if not exist_ok:
                raise
            return self.get(name)

    def get(self, name: str) -> Project:
        """One project; raises NotFound."""
        return cast(Project, self._transport.get(project_path(name)))

    def list(self, *, sort: str | None = None) -> Iterator[Project]:
        """All projects that the key may see, fetched page by page."""
        return self._transport.items("/v1/projects", {"sort": sort})

    def delete(self, name: str) -> None:
        """Delete a project with its runs, points and fits; this cannot be undone."""
        self._transport.delete(project_path(name))
