"""A crowd of requests leaves room for everything else between two turns of the loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shared.process.limits import Limits
from shared.process.turns import Turns
from tests.test_edge import echo, serving
from tests.waiting import await_until

pytestmark = pytest.mark.anyio

LIMITS = Limits(heads_a_turn=2, tick_seconds=0.05)
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(("long_seconds", "most"), [(60.0, 3), (0.0, 1)])
async def test_no_turn_begins_more_requests_than_it_may_and_each_is_answered_in_its_order(
    long_seconds: float, most: int
) -> None:
    """After a long turn the next begins one; the first turn can't know."""
    limits = Limits(heads_a_turn=3, long_turn_seconds=long_seconds, tick_seconds=0.05)
    turn, begun, paths = 0, Counter[int](), list[str]()

    def count() -> None:
        nonlocal turn
        turn += 1
        counting[0] = asyncio.get_running_loop().call_soon(count)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun[turn] += 1
        paths.append(scope["path"])
        await echo(scope, receive, send)

    async with serving(limits, app=app) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(running.raw()) for _ in range(20)]
        counting = [asyncio.get_running_loop().call_soon(count)]
        for n, client in enumerate(clients):
            client.send(GET % n)
        for n, client in enumerate(clients):
            assert (await client.asked())["path"] == f"/{n}"
        counting[0].cancel()
    first, *others = begun.values()
    assert first <= 3
    assert max(others) == most
    assert paths == [f"/{n}" for n in range(20)]


async def test_requests_in_one_packet_take_their_turns_and_are_answered_in_their_order() -> None:
    async with serving(LIMITS) as running, running.raw() as client:
        client.send(b"".join(GET % n for n in range(9)))
        assert [(await client.asked())["path"] for _ in range(9)] == [f"/{n}" for n in range(9)]


async def test_body_behind_a_request_that_waits_its_turn_arrives_whole_and_is_held_nowhere() -> None:
    limits = Limits(heads_a_turn=1, head_bytes=4096, tick_seconds=0.05)
    async with serving(limits) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(running.raw()) for _ in range(12)]
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
        for n, client in enumerate(clients):
            client.send(head + bytes([65 + n]) * 200_000)
        for n, client in enumerate(clients):
            assert (await client.asked())["body"] == chr(65 + n) * 200_000
            client.send(GET % n)
        for client in clients:
            assert (await client.asked())["method"] == "GET"


async def test_client_that_leaves_while_it_waits_takes_nobodys_turn() -> None:
    limits = Limits(heads_a_turn=1, tick_seconds=0.05)
    async with serving(limits) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(running.raw()) for _ in range(10)]
        for n, client in enumerate(clients):
            client.send(GET % n)
            if n % 2:
                client.writer.transport.abort()
        for n, client in enumerate(clients):
            if not n % 2:
                assert (await client.asked())["path"] == f"/{n}"


async def test_client_that_has_left_when_its_turn_comes_is_taken_over_by_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """uvloop says so before it says that the connection is lost."""
    async with serving(Limits(heads_a_turn=1, tick_seconds=0.05)) as running, running.raw() as client:
        door = running.server._door
        await await_until(lambda: bool(door.edges))
        (edge,) = door.edges
        edge._pending, edge._queued = GET % 1, True
        edge._transport.close()
        edge.go_on()
        assert edge._pending == GET % 1
        assert await asyncio.wait_for(client.reader.read(), 20) == b""
    assert "could not be begun" not in capsys.readouterr().out


class Waiting:
    """A connection whose request waits."""

    def __init__(self, name: str, begun: list[str], *, ended: bool = False) -> None:
        self._name = name
        self._begun = begun
        self.ended = ended

    def go_on(self) -> None:
        self._begun.append(self._name)

    def abort(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(("first_left", "order"), [(False, "abcde"), (True, "edcb")])
async def test_newest_request_comes_first_once_a_client_has_left_before_its_turn(
    first_left: bool, order: str
) -> None:
    begun: list[str] = []
    turns = Turns(1, long_seconds=1)
    assert turns.take(Waiting("now", begun))
    for name in "abcde":
        assert not turns.take(Waiting(name, begun, ended=first_left and name == "a"))
    while len(begun) < len(order):
        turns._next()
    assert begun == list(order)
    assert not turns._newest_first
