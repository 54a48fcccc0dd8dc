from __future__ import annotations

import json

import pytest

from isoloss.client import Client
from isoloss.client.errors import NoCredentials
from isoloss.client.settings import find_settings
from isoloss.client.transport import is_loopback
from isoloss.errors import InvalidInput


@pytest.fixture(autouse=True)
def stored(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOLOSS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("ISOLOSS_URL", raising=False)
    monkeypatch.delenv("ISOLOSS_API_KEY", raising=False)
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"url": "http://127.0.0.1:8000", "api_key": "stored"}))
    return path


def test_the_local_service_is_found_by_its_credentials_file():
    settings = find_settings()
    assert (settings.url, settings.api_key) == ("http://127.0.0.1:8000", "stored")


def test_the_environment_wins_over_the_file_and_arguments_over_both(monkeypatch):
    monkeypatch.setenv("ISOLOSS_URL", "http://there.test/")
    monkeypatch.setenv("ISOLOSS_API_KEY", "environment")
    assert find_settings().url == "http://there.test"
    assert find_settings("http://here.test", "given").api_key == "given"


def test_the_stored_key_goes_to_its_own_service_alone():
    assert find_settings("http://127.0.0.1:8000/").api_key == "stored"
    assert find_settings("http://elsewhere.test").api_key is None


def test_no_known_service_says_how_to_get_one(stored):
    stored.unlink()
    with pytest.raises(NoCredentials, match="isoloss up"):
        find_settings()


@pytest.mark.parametrize("text", ["", "[]", '{"api_key": "x"}', "{"])
def test_a_damaged_credentials_file_is_named(stored, text):
    stored.write_text(text)
    with pytest.raises(NoCredentials, match=r"credentials\.json is not a credentials file"):
        find_settings()


def test_the_key_is_in_no_printed_form():
    assert "stored" not in repr(find_settings())
    with Client() as client:
        assert "stored" not in repr(client)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x.test", "http://[::bad"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidInput, match="url"), Client(url, "k", retries=0) as client:
        client.projects.get("p")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_being_shown(key):
    with pytest.raises(InvalidInput, match="no key") as caught:
        Client("http://there.test", key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://a.test", False),
    ],
)
def test_this_machine_is_known(url, local):
    assert is_loopback(url) is local


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("url", wrong) for wrong in (5, b"x", ["x"])),
        *(("api_key", wrong) for wrong in (5, b"secret")),
        *(("timeout", wrong) for wrong in (0, -1.0, "x", None, float("nan"))),
        *(("retries", wrong) for wrong in (-1, 1.5, "x", None, True)),
    ],
)
def test_an_argument_of_a_wrong_kind_is_refused_by_its_name(field, wrong):
    with pytest.raises(InvalidInput) as refused:
        Client(**{"url": "http://x.test", "api_key": "k", field: wrong})
    assert refused.value.fields["field"] == field
    assert "secret" not in str(refused.value)
