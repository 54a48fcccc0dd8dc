"""Attempts at a delivery, over real connections: signed, in time, and never to where they must not go."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Iterator

import pytest

from isoloss.errors import InvalidInput
from isoloss.signatures import is_signed, sign
from store.addresses import check_url, is_allowed, private_allowed
from store.webhooks import Answered, Outgoing
from tests.forecasting.receivers import Receiver, receiving
from workers import deliveries

SECRET = "whsec_0123456789abcdef"
BODY = '{"event": "test", "name": "Lauf-Ü"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def attempt(url: str, private: bool = True) -> Answered:
    outgoing = Outgoing(uuid.uuid4(), url, SECRET, "test", BODY, 1)
    return asyncio.run(deliveries.attempt(outgoing, private))


def test_what_arrives_is_what_was_signed(receiver: Receiver) -> None:
    """Body, event and id arrive as they are; another secret, another body and an old time are found out."""
    assert attempt(receiver.url) == Answered(204, None)
    (came,) = receiver.received
    signature = came.headers["Isoloss-Signature"]
    assert came.body == BODY.encode()
    assert came.headers["Isoloss-Event"] == "test"
    assert came.headers["Host"] == receiver.url.split("/")[2]
    assert is_signed(SECRET, came.body, signature)
    assert not is_signed(SECRET + "x", came.body, signature)
    assert not is_signed(SECRET, came.body + b" ", signature)
    old = sign(SECRET, came.body, 1_700_000_000)
    assert not is_signed(SECRET, came.body, old)
    assert is_signed(SECRET, came.body, old, now=1_700_000_100)


@pytest.mark.parametrize(
    "header", ["", "t=", "t=1", "v1=00", "t=x,v1=ü", "t=" + "9" * 400 + ",v1=", ",,=,t=\u0663"]
)
def test_a_header_that_is_no_signature_is_none(header: str) -> None:
    assert not is_signed(SECRET, b"{}", header)


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500])
def test_any_other_answer_is_a_failure_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.answers.append(status)
    assert attempt(receiver.url) == Answered(status, f"it answered {status}")
    assert len(receiver.received) == 1


def test_a_name_is_looked_up_and_kept_in_the_request(receiver: Receiver) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    assert attempt(f"http://localhost:{port}/hook").status == 204
    assert receiver.received[0].headers["Host"] == f"localhost:{port}"


def test_who_is_slow_or_gone_is_told_so(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "TIMEOUT_S", 0.3)
    receiver.slow_s = 1.0
    assert attempt(receiver.url) == Answered(None, "no answer within 0.3 s")
    gone = attempt("http://127.0.0.1:9/hook")
    assert gone.status is None
    assert "ConnectError" in str(gone.error)
    assert "gaierror" in str(attempt("http://no-such-host.invalid/").error)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_nothing_is_sent_to_private_addresses_where_they_are_not_allowed(
    receiver: Receiver, host: str
) -> None:
    """By number, by name, or in disguise."""
    port = receiver.url.split(":")[2].split("/")[0]
    answered = attempt(f"http://{host}:{port}/hook", private=False)
    assert answered.status is None
    assert "address" in str(answered.error)
    assert receiver.received == []


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
        ("64:ff9b::7f00:1", False, False),
        ("2002:7f00:1::", False, False),
    ],
)
def test_addresses_are_public_private_or_never_allowed(address: str, public: bool, private: bool) -> None:
    found = ipaddress.ip_address(address)
    assert (is_allowed(found, private=False), is_allowed(found, private=True)) == (public, private)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a.test/",
        "file:///etc/passwd",
        "//a.test",
        "http://",
        "http://me:secret@a.test/",
        "http://a.test:99999/",
        "http://a.test:0/",
        "http://[::1/",
        "http://a.test/ b",
        "http://a.test/\n",
        "https://bücher.test/",
        "http://a.test/" + "x" * 2000,
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        check_url(url, private=True)


def test_a_private_address_is_refused_with_what_would_allow_it() -> None:
    for host in ("127.0.0.1", "localhost", "a.localhost", "[::1]"):
        with pytest.raises(InvalidInput, match="ISOLOSS_WEBHOOKS_PRIVATE=1"):
            check_url(f"http://{host}:8000/hook", private=False)
    check_url("http://127.0.0.1:8000/hook", private=True)
    check_url("https://example.org/hook?token=x", private=False)
    assert [private_allowed({"ISOLOSS_WEBHOOKS_PRIVATE": said}) for said in ("1", "0", "")] == [
        True,
        False,
        False,
    ]
    with pytest.raises(InvalidInput):
        private_allowed({"ISOLOSS_WEBHOOKS_PRIVATE": "yes"})
