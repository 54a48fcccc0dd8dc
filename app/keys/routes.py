"""API keys: create, list, revoke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.auth import Administering
from app.bodies import StrictRoute
from app.idempotency import Idempotent
from app.keys.schemas import CreatedKeyDocument, KeyDocument, NewKey
from app.schemas import PageOf, identifier, page_query, problems
from store import keys, projects
from store.pages import Asked

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)


@router.post(
    "", status_code=201, response_model=CreatedKeyDocument, responses=problems(400, 401, 403, 404, 422, 503)
)
def create_key(body: NewKey, access: Administering, once: Idempotent) -> Response:
    """Create a key; its secret is in this answer alone."""

    def create() -> CreatedKeyDocument:
        only = None if body.project is None else projects.get(access.session, body.project).id
        key, secret = keys.create(access.session, body.name, body.scopes, only)
        return CreatedKeyDocument(
            id=key.id, key=secret, name=key.name, scopes=body.scopes, project=body.project
        )

    return once.answer(access, 201, create)


@router.get("", responses=problems(401, 403, 422, 503))
def list_keys(access: Administering, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[KeyDocument]:
    """List the keys, without their secrets."""
    page = keys.page(access.session, asked)
    items = [KeyDocument.model_validate(key) for key in page.items]
    return PageOf(items=items, next_cursor=page.next_cursor)


@router.delete("/{key_id}", status_code=204, responses=problems(401, 403, 404, 503))
def delete_key(key_id: str, access: Administering) -> None:
    """Revoke a key; requests with it are refused from now on."""
    keys.delete(access.session, identifier("key", key_id))
