"""Webhooks: create, list, delete, test."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.auth import Writing
from app.bodies import StrictRoute
from app.idempotency import Idempotent
from app.schemas import PageOf, identifier, page_query, problems
from app.webhooks.schemas import CreatedWebhookDocument, DeliveryDocument, NewWebhook, WebhookDocument
from store import webhooks
from store.addresses import check_url
from store.pages import Asked

router = APIRouter(prefix="/v1/projects/{project}/webhooks", tags=["webhooks"], route_class=StrictRoute)


@router.post(
    "",
    status_code=201,
    response_model=CreatedWebhookDocument,
    responses=problems(400, 401, 403, 404, 409, 422, 503),
)
def create_webhook(body: NewWebhook, access: Writing, request: Request, once: Idempotent) -> Response:
    """Have events of the project's runs sent to an address; the secret is in this answer alone.

    Each is a POST of a JSON object `id`, `event`, `project`, `at`, `run_id`, `step`, `message`, `forecast`, with
    the headers `Isoloss-Event`, `Isoloss-Delivery` (the same when it is sent again) and `Isoloss-Signature`,
    `t=<Unix time>,v1=<hex>`: HMAC-SHA256 with the secret over the time, a dot and the body. Any answer of 2xx
    within 10 s is success; redirects are not followed. Private addresses are refused unless the service allows
    them (`ISOLOSS_WEBHOOKS_PRIVATE`). 409 where the project has 20 webhooks.
    """

    def create() -> CreatedWebhookDocument:
        check_url(body.url, request.app.state.settings.webhooks_private)
        hook = webhooks.create(access.session, access.project_id, body.url, body.events, body.secret)
        return CreatedWebhookDocument(id=hook.id, url=hook.url, events=hook.events, secret=hook.secret)

    return once.answer(access, 201, create)


@router.get("", responses=problems(401, 403, 404, 422, 503))
def list_webhooks(access: Writing, asked: Annotated[Asked, Depends(page_query)]) -> PageOf[WebhookDocument]:
    """List the project's webhooks with their last deliveries; it needs a key that may write."""
    page = webhooks.page(access.session, access.project_id, asked)
    items = [WebhookDocument.of(hook, webhooks.deliveries(access.session, hook.id)) for hook in page.items]
    return PageOf(items=items, next_cursor=page.next_cursor)


@router.get("/{webhook_id}", responses=problems(401, 403, 404, 503))
def get_webhook(webhook_id: str, access: Writing) -> WebhookDocument:
    """Show a webhook with its last deliveries; it needs a key that may write."""
    hook = webhooks.get(access.session, identifier("webhook", webhook_id), access.project_id)
    return WebhookDocument.of(hook, webhooks.deliveries(access.session, hook.id))


@router.delete("/{webhook_id}", status_code=204, responses=problems(401, 403, 404, 503))
def delete_webhook(webhook_id: str, access: Writing) -> None:
    """Delete a webhook; what is on its way to it is dropped."""
    webhooks.delete(access.session, identifier("webhook", webhook_id), access.project_id)


@router.post("/{webhook_id}/test", status_code=202, responses=problems(401, 403, 404, 503))
def test_webhook(webhook_id: str, access: Writing) -> DeliveryDocument:
    """Send the webhook an event `test`; `GET` of the webhook tells what came of it."""
    hook = webhooks.get(access.session, identifier("webhook", webhook_id), access.project_id)
    return DeliveryDocument.model_validate(webhooks.send_test(access.session, hook))
