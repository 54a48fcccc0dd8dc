"""Signatures of what the service sends to webhooks: HMAC-SHA256 of the time, a dot and the body."""

from __future__ import annotations

import hashlib
import hmac
import time

TOLERANCE_S = 300.0


def sign(secret: str, body: bytes, at: int) -> str:
    """Return the header `Isoloss-Signature` of a body that is sent `at` this second of Unix time."""
    return f"t={at},v1={_digest(secret, body, str(at))}"


def is_signed(
    secret: str, body: bytes, signature: str, *, now: float | None = None, tolerance_s: float = TOLERANCE_S
) -> bool:
    """Return whether a body, exactly as it came, was signed with the secret within the last `tolerance_s`.

    What lies outside is an old delivery that somebody sends again.
    """
    said = dict(part.partition("=")[::2] for part in signature.split(","))
    at, digest = said.get("t", ""), said.get("v1", "")
    if not (at.isascii() and at.isdecimal() and len(at) < 20):
        return False
    late = abs((time.time() if now is None else now) - int(at)) > tolerance_s
    return hmac.compare_digest(_digest(secret, body, at).encode(), digest.encode()) and not late


def _digest(secret: str, body: bytes, at: str) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
