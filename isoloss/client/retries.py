"""When to ask again, and after how long: a pure policy that returns decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter: `retries` further attempts after the first.

    The pause before retry k (from 0) is drawn from the upper half of `first_pause_s * 2**k`, at most
    `longest_pause_s`. A server that names its own pause (Retry-After) gets it, unless it asks for more than
    `longest_wait_s`: then the answer is handed to the caller at once instead of blocking a program.
    """

    retries: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0
    longest_wait_s: float = 60.0

    def pause(self, attempt: int, jitter: float, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait before the next attempt, None to give up; `jitter` is uniform in [0, 1)."""
        if attempt >= self.retries:
            return None
        backoff = min(self.first_pause_s * 2.0**attempt, self.longest_pause_s) * (0.5 + 0.5 * jitter)
        if retry_after_s is None:
            return backoff
        return None if retry_after_s > self.longest_wait_s else max(retry_after_s, 0.0) + 0.1 * backoff


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """The pause that a Retry-After header asks for, as seconds or as a date; None where it is unreadable."""
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)
