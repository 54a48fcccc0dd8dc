"""Projects."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from isoloss.errors import Conflict, NotFound
from store import points
from store.pages import Asked, Page
from store.pages import page as page_of
from store.tables import Project, Run
from store.where import Field

FIELDS = {
    "name": Field(Project.name.expression),
    "created_at": Field(sa.extract("epoch", Project.created_at)),
}


def create(session: Session, name: str) -> Project:
    """A new project. Raises Conflict where the name is taken."""
    made = session.execute(
        insert(Project).values(name=name).on_conflict_do_nothing().returning(Project)
    ).scalar_one_or_none()
    if made is None:
        raise Conflict(reason=f"there is a project {name!r} already")
    return made


def get(session: Session, name: str) -> Project:
    """The project of this name. Raises NotFound."""
    found = session.execute(sa.select(Project).where(Project.name == name)).scalar_one_or_none()
    if found is None:
        raise NotFound(kind="project", name=name)
    return found


def page(session: Session, asked: Asked, only: int | None = None) -> Page[Project]:
    """Part of the projects, of the one `only` where given."""
    chosen = sa.select(Project) if only is None else sa.select(Project).where(Project.id == only)
    return page_of(session, chosen, Project.id, FIELDS, asked)


def delete(session: Session, name: str) -> None:
    """Delete the project with all that is in it. Raises NotFound."""
    project = get(session, name)
    # Writers of points hold their run's lock: wait for them, so that none leaves points behind.
    session.execute(sa.select(Run.id).where(Run.project_id == project.id).with_for_update()).all()
    points.remove_all(session, Run.project_id == project.id)
    session.execute(sa.delete(Project).where(Project.id == project.id))
