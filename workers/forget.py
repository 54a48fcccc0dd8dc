"""Answers that were kept for retries are forgotten when no retry can come any more."""

from __future__ import annotations

from procrastinate import JobContext

from store.idempotency import forget_old
from workers.work import Tools, in_transaction


async def run(context: JobContext, timestamp: int = 0) -> None:  # noqa: ARG001
    """The periodic task `forget`: deletes stored answers whose time is over."""
    await in_transaction(Tools.of(context), forget_old)
