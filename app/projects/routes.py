"""Projects: create, list, show, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.auth import Reading, Writing, WritingAnywhere
from app.bodies import StrictRoute
from app.idempotency import Idempotent
from app.projects.schemas import NewProject, ProjectDocument
from app.schemas import PageOf, page_query, problems
from store import projects
from store.pages import Asked

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=StrictRoute)


@router.post(
    "", status_code=201, response_model=ProjectDocument, responses=problems(400, 401, 403, 409, 422, 503)
)
def create_project(body: NewProject, access: WritingAnywhere, once: Idempotent) -> Response:
    """Create a project; 409 where the name is taken."""
    return once.answer(
        access, 201, lambda: ProjectDocument.model_validate(projects.create(access.session, body.name))
    )


@router.get("", responses=problems(401, 403, 422, 503))
def list_projects(access: Reading, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[ProjectDocument]:
    """List the projects that the key opens; `where` and `sort` know `name` and `created_at`."""
    page = projects.page(access.session, asked, access.only_project_id)
    items = [ProjectDocument.model_validate(project) for project in page.items]
    return PageOf(items=items, next_cursor=page.next_cursor)


@router.get("/{project}", responses=problems(401, 403, 404, 503))
def get_project(project: str, access: Reading) -> ProjectDocument:
    """Show a project."""
    return ProjectDocument.model_validate(projects.get(access.session, project))


@router.delete("/{project}", status_code=204, responses=problems(401, 403, 404, 503))
def delete_project(project: str, access: Writing) -> None:
    """Delete a project with its runs, points, fits, jobs and keys. This cannot be undone."""
    projects.delete(access.session, project)
