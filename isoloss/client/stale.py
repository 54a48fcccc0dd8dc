"""What an earlier process left in a spool when the run has gone on from another machine since.

Such lines are older than what the service has: they fill what is missing there and replace nothing. A run that is
further because the service took some of these very lines, and its answer was lost, has gone on nowhere.
"""

from __future__ import annotations

from isoloss.client.backlog import Backlog
from isoloss.client.operations import Operation, merged, points, rows_of
from isoloss.client.sender import Sender


def send_stale(sender: Sender, backlog: Backlog) -> bool:
    """Send what was in the spool when it was opened, if it is stale; whether it was. Raises as `send` does."""
    stale = [operation for operation, _ in backlog.leftover()]
    if stale and _has_gone_on(sender, stale, backlog.last_step_sent):
        for operation in remains_of(stale):
            sender.fill(operation.content)
        sender.messages.warn(
            "stale", "it went on elsewhere: of what was left here, only what was missing was sent"
        )
        backlog.keep_leftover(is_sent=True, last_step=sender.last_step)
        return True
    backlog.keep_leftover()
    return False


def _has_gone_on(sender: Sender, stale: list[Operation], last_step_sent: int | None) -> bool:
    """Whether the run's last step at the service is neither the one known nor one that these operations made."""
    there = sender.last_step_there()
    if there is None or there == last_step_sent:
        return False
    first = stale[0]
    if first.kind == "rewind" and last_step_sent is not None and there <= first.content < last_step_sent:
        return False
    ends = (each.content for each in stale if each.n_points and max(each.content["step"]) == there)
    return not any(sender.has(columns) for columns in ends)


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
