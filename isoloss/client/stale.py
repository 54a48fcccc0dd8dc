"""What an earlier process left in a spool when the run has gone on from another machine since.

Such lines are older than what the service has: they fill what is missing there and replace nothing.
"""

from __future__ import annotations

from isoloss.client.backlog import Backlog
from isoloss.client.operations import Operation, merged, points, rows_of
from isoloss.client.sender import Sender


def send_stale(sender: Sender, backlog: Backlog) -> bool:
    """Send what was in the spool when it was opened, if it is stale; whether it was. Raises as `send` does."""
    stale = backlog.leftover()
    if stale and sender.has_gone_on(backlog.last_step_sent):
        for operation in remains_of([operation for operation, _ in stale]):
            sender.fill(operation.content)
        sender.messages.warn(
            "stale", "it went on elsewhere: of what was left here, only what was missing was sent"
        )
        backlog.keep_leftover(is_sent=True, last_step=sender.last_step)
        return True
    backlog.keep_leftover()
    return False


def remains_of(operations: list[Operation]) -> list[Operation]:
    """The points that operations leave in the end, the latest first: what a later rewind removed is left out."""
    limit: float = float("inf")
    remains = []
    for operation in reversed(operations):
        if operation.kind == "rewind":
            limit = min(limit, operation.content)
        elif operation.kind == "points":
            rows = [(step, row) for step, row in rows_of(merged([operation.content])) if step <= limit]
            if rows:
                remains.append(points(rows))
    return remains
