"""Settings of the service, from `ISOLOSS_*` or from whoever starts it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from isoloss.errors import InvalidInput
from store.addresses import private_allowed

MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Settings:
    """What the service needs to know; `database_url` is any that `store.engine` reads.

    `max_body_bytes` is the longest request body. `pool_size` is how many requests use the database at once;
    others wait `pool_timeout_s` for their turn. A statement ends after `statement_timeout_s`. `webhooks_private`
    allows webhooks at private addresses.
    """

    database_url: str
    max_body_bytes: int = 32 * MEBIBYTE
    pool_size: int = 16
    pool_timeout_s: float = 10.0
    statement_timeout_s: float = 60.0
    webhooks_private: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """What ISOLOSS_DATABASE_URL, _MAX_BODY_BYTES and _WEBHOOKS_PRIVATE say. Raises InvalidInput."""
        url = environment.get("ISOLOSS_DATABASE_URL")
        if not url:
            raise InvalidInput(field="ISOLOSS_DATABASE_URL", reason="is not set")
        limit = environment.get("ISOLOSS_MAX_BODY_BYTES", str(cls.max_body_bytes))
        if not limit.isdecimal() or int(limit) < 1:
            raise InvalidInput(field="ISOLOSS_MAX_BODY_BYTES", reason="must be a whole number above 0")
        private = private_allowed(environment)
        return cls(database_url=url, max_body_bytes=int(limit), webhooks_private=private)
