"""Errors as callers get them: RFC 9457."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared.problems import HANDLERS, MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

pytestmark = pytest.mark.anyio


async def end(request: Request) -> Response:
    match request.query_params["how"]:
        case "problem":
            raise Problem(409, "order-differs", "Order 1 is another.", {"Retry-After": "3"}, order_id="1")
        case "failure":
            raise RuntimeError("the password is hush")
        case _:
            return PlainTextResponse("fine")


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = Starlette(routes=[Route("/", end)], exception_handlers=HANDLERS)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def problem(response: httpx2.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == MEDIA_TYPE
    members: dict[str, Any] = json.loads(response.content)
    assert members["status"] == response.status_code
    return members


async def test_problem_has_its_members_and_headers(client: httpx2.AsyncClient) -> None:
    response = await client.get("/?how=problem")
    assert response.headers["retry-after"] == "3"
    assert problem(response) == {
        "type": "urn:orderbell:problem:order-differs",
        "title": "Order differs",
        "status": 409,
        "detail": "Order 1 is another.",
        "order_id": "1",
    }


async def test_router_refuses_with_problems_too(client: httpx2.AsyncClient) -> None:
    assert problem(await client.get("/nowhere"))["type"] == "urn:orderbell:problem:not-found"
    response = await client.post("/?how=")
    assert problem(response)["type"] == "urn:orderbell:problem:method-not-allowed"
    assert "GET" in response.headers["allow"]


async def test_failure_shows_its_caller_no_details(client: httpx2.AsyncClient) -> None:
    response = await client.get("/?how=failure")
    assert problem(response)["status"] == 500
    assert "hush" not in response.text


def test_problem_is_an_exception_that_says_what_happened() -> None:
    assert str(Problem(404, "unknown-order", "No order 1.")) == "No order 1."
