"""What a recording has to say, each thing once: training logs must stay readable."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("isoloss")
SENDING_THREAD = "isoloss-send"
OUTLOOK_THREAD = "isoloss-outlook"


class Messages:
    """Says each thing once through the logger `isoloss`, which prints warnings unless it is set up otherwise."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._said: set[str] = set()

    def warn(self, about: str, text: str) -> None:
        """Say it, unless something was said `about` this already."""
        if about not in self._said:
            self._said.add(about)
            LOGGER.warning("%s: %s", self._subject, text)

    def tell(self, text: str) -> None:
        """Say what is no trouble; shown where the logger's level is INFO."""
        LOGGER.info("%s: %s", self._subject, text)

    def forget(self, about: str) -> None:
        """Let this be said again, because it was over in between."""
        self._said.discard(about)


def quieten_requests() -> None:
    """Keep the HTTP library's line for each request of a recording out of a training's log."""
    logger = logging.getLogger("httpx")
    if _is_worth_saying not in logger.filters:
        logger.addFilter(_is_worth_saying)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return record.threadName not in (SENDING_THREAD, OUTLOOK_THREAD) or record.levelno >= logging.WARNING
