"""Deliveries to webhooks: one signed POST each, tried again a few times, whatever the other side does."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import time
import uuid
from dataclasses import dataclass

import httpx
from procrastinate import JobContext

from isoloss.errors import InvalidInput
from isoloss.signatures import sign
from isoloss.version import __version__
from store import webhooks
from store.addresses import is_allowed, private_allowed, refusal, split
from store.webhooks import Answered, Outgoing
from workers.work import Tools, in_transaction

TIMEOUT_S = 10.0
"""For all of an attempt: the name, the connection and the answer."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused(Exception):
    """Nothing is sent, for this reason."""

    reason: str


async def run(context: JobContext, *, delivery_id: str) -> None:
    """The task `deliver`."""
    tools, key = Tools.of(context), uuid.UUID(delivery_id)
    outgoing = await in_transaction(tools, webhooks.begin, key)
    if outgoing is None:
        return
    answered = await attempt(outgoing, private_allowed(os.environ))
    status = await in_transaction(tools, webhooks.record, key, answered)
    if answered.error is not None:
        log.warning("delivery %s: %s, %s", key, status, answered.error)


async def attempt(outgoing: Outgoing, private: bool) -> Answered:
    """Send it once; whatever goes wrong is in what is returned."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status = await _post(outgoing, private)
    except TimeoutError:
        return Answered(None, f"no answer within {TIMEOUT_S:g} s")
    except (Refused, InvalidInput) as error:
        return Answered(None, getattr(error, "reason", str(error)))
    except (httpx.HTTPError, OSError, ValueError) as error:
        return Answered(None, f"{type(error).__name__}: {error}"[:300])
    return Answered(status, None if 200 <= status < 300 else f"it answered {status}")


async def _post(outgoing: Outgoing, private: bool) -> int:
    """The status of the answer, of which nothing else is read and no redirect followed."""
    parts = split(outgoing.url)
    host = parts.hostname or ""
    address = await _resolved(host, parts.port or {"http": 80, "https": 443}[parts.scheme], private)
    # To the very address that was looked at: the name may mean another one when it is asked for again.
    url = httpx.URL(outgoing.url).copy_with(host=address)
    headers = {**_headers(outgoing), "Host": parts.netloc}
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT_S) as client:
        request = client.build_request("POST", url, content=outgoing.body.encode(), headers=headers)
        request.extensions = {**request.extensions, "sni_hostname": host}
        response = await client.send(request, stream=True)
        try:
            return response.status_code
        finally:
            await response.aclose()


def _headers(outgoing: Outgoing) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "User-Agent": f"isoloss/{__version__}",
        "Isoloss-Event": outgoing.event,
        "Isoloss-Delivery": str(outgoing.id),
        "Isoloss-Signature": sign(outgoing.secret, outgoing.body.encode(), int(time.time())),
    }


async def _resolved(host: str, port: int, private: bool) -> str:
    """One of the addresses that a name has, which must all be allowed."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]
    for address in addresses:
        if not is_allowed(address, private):
            raise Refused(refusal(address))
    return str(addresses[0])
