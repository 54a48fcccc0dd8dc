"""`isoloss webhook`"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli.output import moment
from isoloss.cli.session import Project, Session, command

if TYPE_CHECKING:
    from isoloss.client.documents import Webhook

app = typer.Typer(name="webhook", help="Addresses that are told of a project's runs.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(help="The webhook's id.")]


class Event(StrEnum):
    LEFT_BAND = "left_band"
    DIVERGED = "diverged"
    SILENT = "silent"
    RESUMED = "resumed"
    FINISHED = "finished"
    FAILED = "failed"
    PREEMPTED = "preempted"


ALARMS = [Event.LEFT_BAND, Event.DIVERGED, Event.SILENT, Event.RESUMED]


@command(app, "add")
def add(
    session: Session,
    address: Annotated[str, typer.Argument(help="Where to POST, as a URL.")],
    project: Project,
    event: Annotated[
        list[Event] | None, typer.Option(help="What to tell; repeat it.", show_default="every alarm")
    ] = None,
) -> None:
    """Have events sent to an address; shows the secret that signs them, this once."""
    hook = session.client.webhooks.create(project, address, [each.value for each in event or ALARMS])
    session.output.show(hook, lambda: session.output.line(f"{hook['id']}   {hook['secret']}"))
    session.output.hint("Keep the secret: it is not shown again.")


@command(app, "list")
def list_all(session: Session, project: Project) -> None:
    """List the webhooks, each with its last delivery."""
    hooks = list(session.client.webhooks.list(project))
    rows = [[hook["id"], hook["url"], ", ".join(hook["events"]), _last(hook)] for hook in hooks]
    columns = ["webhook", "url", "events", "last delivery"]
    session.output.show(hooks, lambda: session.output.table(columns, rows, whole=["webhook"]))


@command(app, "remove")
def remove(session: Session, webhook_id: WebhookId, project: Project) -> None:
    """Send nothing to a webhook any more."""
    session.client.webhooks.delete(project, webhook_id)
    session.output.show(
        {"deleted": webhook_id}, lambda: session.output.line(f"Webhook {webhook_id} is removed.")
    )


@command(app, "test")
def test(session: Session, webhook_id: WebhookId, project: Project) -> None:
    """Send a webhook an event `test`."""
    sent = session.client.webhooks.test(project, webhook_id)
    text = f"Delivery {sent['id']} is on its way; `isoloss webhook list` tells what came of it."
    session.output.show(sent, lambda: session.output.line(text))


def _last(hook: Webhook) -> str:
    if not hook.get("deliveries"):
        return "-"
    last = hook["deliveries"][0]
    why = "" if last["error"] is None else f": {last['error']}"
    return f"{moment(last['created_at'])} {last['event']}, {last['status']}{why}"
