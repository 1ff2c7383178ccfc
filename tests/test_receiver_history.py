"""How a gateway reads the sender's answers, including those that a sender never gives."""

from __future__ import annotations

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from receiver.feeds.history import History, HistoryRefused, HistoryUnavailable
from shared.channels import customer_channel
from shared.cursors import Cursor, Place
from tests.asking import OverHttpx

pytestmark = pytest.mark.anyio

ALICE = Cursor(customer_channel("alice"), Place(1, 1))


def history(answer: bytes, status: int = 200) -> History:
    async def endpoint(request: object) -> Response:
        return Response(answer, status)

    app = Starlette(routes=[Route("/history", endpoint, methods=["POST"])])
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1")
    return History(OverHttpx(client))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"channels":[]}',
        b'{"channels":[{"channel":"\xff","after":"","as_of":"","events":[]}]}',
        b'{"channels":[{"channel":"","after":"customer:alice=1.1","as_of":"","events":[]}]}',
        b'{"channels":[{"channel":"","after":"","as_of":"","events":[],"more":' + b"[" * 100_000,
    ],
)
async def test_answer_that_is_none_is_no_answer(answer: bytes) -> None:
    with pytest.raises(HistoryUnavailable):
        await history(answer).read([ALICE])


@pytest.mark.parametrize("newest", ["", "1", "1.2.3", "x.1", "1.x", "1." + "1" * 5_000])
async def test_newest_that_is_none_is_no_answer(newest: str) -> None:
    with pytest.raises(HistoryUnavailable):
        await history(b'{"channels":[],"newest":"%b"}' % newest.encode()).newest()


@pytest.mark.parametrize(("status", "refused"), [(400, True), (401, False), (503, False)])
async def test_refused_questions_are_distinguished_from_failures(status: int, *, refused: bool) -> None:
    with pytest.raises(HistoryUnavailable) as unavailable:
        await history(b"{}", status).read([ALICE])
    assert isinstance(unavailable.value, HistoryRefused) is refused
