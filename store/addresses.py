"""Which addresses a webhook may have: what a service fetches for others must not reach what only it can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from isoloss.errors import InvalidInput

SETTING = "ISOLOSS_WEBHOOKS_PRIVATE"
NAT64 = ipaddress.ip_network("64:ff9b::/96")
MAX_URL = 2000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def private_allowed(environment: Mapping[str, str]) -> bool:
    """Whether webhooks may go to private addresses and this machine itself. Raises InvalidInput."""
    written = environment.get(SETTING) or "0"
    if written not in ("0", "1"):
        raise InvalidInput(field=SETTING, reason="must be 1 (allowed) or 0")
    return written == "1"


def check_url(url: str, private: bool) -> None:
    """Refuse what is no address to send to, as far as it tells without asking who has the name.

    Raises InvalidInput.
    """
    host = split(url).hostname or ""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host.rpartition(".")[2] == "localhost" else host)
    except ValueError:
        return
    if not is_allowed(address, private):
        raise InvalidInput(field="url", reason=refusal(address))


def split(url: str) -> SplitResult:
    """The parts of an address. Raises InvalidInput where it is none of http."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(field="url", reason=f"is no address ({error})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(field="url", reason="must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(field="url", reason="must not hold a name or a password: what is sent is signed")
    if port == 0 or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_URL:
        raise InvalidInput(field="url", reason=f"must be plain ASCII without blanks, at most {MAX_URL} long")
    return parts


def is_allowed(address: Address, private: bool) -> bool:
    """Whether something may be sent there; addresses of a link (a cloud's metadata) are never allowed."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_allowed(address.ipv4_mapped, private)
        if address.sixtofour is not None or address.teredo is not None or address in NAT64:
            return False  # an address of another kind in disguise
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return address.is_global or (private and (address.is_private or address.is_loopback))


def refusal(address: Address) -> str:
    """Why nothing is sent to an address."""
    if address.is_private and not address.is_link_local and not address.is_unspecified:
        return f"{address} is a private address; {SETTING}=1 allows those"
    return f"{address} is no address to send to"
