"""Problem documents of requests that are not valid, without a service behind them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from app import problems
from app.schemas import Name


def answer(name: str) -> httpx.Response:
    """The answer of an API that takes a name and gives it back."""
    api = FastAPI()
    problems.install(api)

    @api.get("/checked")
    def checked(name: Name) -> str:
        return name

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api") as client:
            return await client.get("/checked", params={"name": name})

    return asyncio.run(ask())


@pytest.mark.parametrize("name", ["a b", "café", ".."])
def test_a_name_that_is_none_is_told_what_it_may_have(name: str) -> None:
    """The reason is in words, not a pattern; a name that fits is let through."""
    words = "may have letters, digits, '.', '_' and '-' alone, and be neither '.' nor '..'"
    refused = answer(name)
    assert (refused.status_code, refused.json()["errors"]) == (422, [{"field": "name", "reason": words}])
    assert answer("pilot-1.b_2").json() == "pilot-1.b_2"
