"""How many questions about alerts may be under way at one gateway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from receiver.access.doorkeeper import Doorkeeper
from receiver.access.identity import Identity
from receiver.feeds.history import History, HistoryUnavailable
from receiver.serving.alerts import AlertsOverHttp, Limits
from shared.problems import HANDLERS
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.requests import Request

    from shared.channels import Channel
    from shared.cursors import Cursor

pytestmark = pytest.mark.anyio

LIMITS = Limits(lists_at_once=2, lists_waiting=3, lists_of_customer=3)


class Patient(History):
    """A sender that answers when it is allowed to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.away = False

    async def list_alerts(self, channel: Channel, before: Cursor | None, limit: int) -> bytes:
        self.asked.append(channel)
        await self.may_answer.wait()
        if self.away:
            raise HistoryUnavailable("away")
        return b"{}"


class Trusting(Doorkeeper):
    """Believes each client's name."""

    def __init__(self) -> None: ...

    async def identify(self, request: Request) -> Identity:
        return Identity(request.headers["authorization"], (), expires_at=4e9)


class Lists:
    def __init__(self) -> None:
        self.sender = Patient()
        alerts = AlertsOverHttp(self.sender, Trusting(), LIMITS)
        app = Starlette(routes=[Route("/alerts", alerts.list_some)], exception_handlers=HANDLERS)
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway")

    def ask(self, customer: str) -> asyncio.Task[httpx2.Response]:
        asking: Awaitable[httpx2.Response] = self._http.get("/alerts", headers={"authorization": customer})
        return asyncio.ensure_future(asking)


async def test_few_questions_are_asked_at_a_time_and_the_others_wait_for_their_turn() -> None:
    lists = Lists()
    asked = [lists.ask(f"customer-{n}") for n in range(5)]
    await await_until(lambda: len(lists.sender.asked) == 2)
    full = await lists.ask("customer-9")
    assert (full.status_code, full.headers["retry-after"]) == (503, "2")
    assert len(lists.sender.asked) == 2
    lists.sender.may_answer.set()
    assert [(await one).status_code for one in asked] == [200] * 5
    assert lists.sender.asked == [f"customer:customer-{n}" for n in range(5)]


async def test_one_customer_takes_no_more_than_its_part_of_the_turns() -> None:
    lists = Lists()
    asked = [lists.ask("mallory") for _ in range(3)]
    await await_until(lambda: len(lists.sender.asked) == 2)
    beyond = await lists.ask("mallory")
    assert (beyond.status_code, beyond.headers["retry-after"]) == (429, "1")
    other = lists.ask("alice")
    lists.sender.may_answer.set()
    assert [(await one).status_code for one in (*asked, other)] == [200] * 4
    assert (await lists.ask("mallory")).status_code == 200


async def test_turn_of_a_question_that_failed_or_was_given_up_is_free_again() -> None:
    lists = Lists()
    asked = [lists.ask("mallory") for _ in range(3)]
    await await_until(lambda: len(lists.sender.asked) == 2)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    lists.sender.away = True
    lists.sender.may_answer.set()
    statuses = [(await lists.ask("mallory")).status_code for _ in range(5)]
    assert statuses == [503] * 5  # each was asked, and not refused here
    assert len(lists.sender.asked) == 7
