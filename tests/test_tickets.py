from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.access.identity import Identity, InvalidToken
from receiver.access.tickets import LIFETIME_SECONDS, Tickets, TooManyTickets
from shared.redis.keys import Names
from shared.redis.wire import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

pytestmark = pytest.mark.anyio

ALICE = Identity("alice", ("menu",), 4_000_000_000.0)


@pytest.fixture
async def tickets(redis: Redis, key_prefix: str) -> AsyncIterator[Tickets]:
    async with Pipelines(redis) as pipelines:
        yield Tickets(pipelines, Names(key_prefix), per_minute=100)


async def test_ticket_proves_its_customer_once(tickets: Tickets) -> None:
    ticket = await tickets.issue(ALICE)
    assert await tickets.redeem(ticket) == ALICE
    with pytest.raises(InvalidToken, match="already used"):
        await tickets.redeem(ticket)


async def test_no_two_tickets_are_alike(tickets: Tickets) -> None:
    assert len({await tickets.issue(ALICE) for _ in range(100)}) == 100


async def test_ticket_dies_by_itself_and_redis_does_not_know_it(
    tickets: Tickets, redis: Redis, key_prefix: str
) -> None:
    ticket = await tickets.issue(ALICE)
    [key] = [key async for key in redis.scan_iter(f"{key_prefix}:ticket:*")]
    assert ticket.encode() not in key
    assert 0 < await redis.ttl(key) <= LIFETIME_SECONDS
    await redis.expire(key, 0)
    with pytest.raises(InvalidToken):
        await tickets.redeem(ticket)


@pytest.mark.parametrize("ticket", ["", "x", "a" * 44, "*" * 43, "a b" * 14 + "c", "ü" * 43])
async def test_what_never_was_a_ticket_is_refused(tickets: Tickets, ticket: str) -> None:
    with pytest.raises(InvalidToken):
        await tickets.redeem(ticket)


@pytest.mark.parametrize("value", [b"", b"text", b"{}", b"[]", b"\xff", b'{"customer":"\xff"}', b"[" * 9_000])
async def test_ticket_that_redis_has_garbled_is_refused(
    tickets: Tickets, redis: Redis, key_prefix: str, value: bytes
) -> None:
    ticket = await tickets.issue(ALICE)
    [key] = [key async for key in redis.scan_iter(f"{key_prefix}:ticket:*")]
    await redis.set(key, value)
    with pytest.raises(InvalidToken):
        await tickets.redeem(ticket)


async def test_customer_gets_so_many_tickets_and_others_theirs(tickets: Tickets) -> None:
    for _ in range(100):
        await tickets.issue(ALICE)
    with pytest.raises(TooManyTickets) as caught:
        await tickets.issue(ALICE)
    assert 0 < caught.value.seconds <= 0.6
    assert await tickets.issue(Identity("bob", (), 4_000_000_000.0))
