from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sender.retention import Pace, Retention
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

USUAL = Pace()


@pytest.fixture
async def sender(
    database_url: str, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    async with run_sender(database_url, redis_url, key_prefix) as sender:
        yield sender


async def complete_new(sender: RunningSender, *order_ids: str) -> None:
    """Alice's orders, and one of Bob's: the newest event of all is never pruned."""
    for order_id in order_ids:
        await sender.place(order_id)
        await sender.complete(order_id)
    await sender.place(f"bobs-{order_ids[-1]}", "bob")
    await sender.complete(f"bobs-{order_ids[-1]}")
    await await_until(lambda: outbox_is_empty(sender))


async def outbox_is_empty(sender: RunningSender) -> bool:
    return "orderbell_outbox_events 0.0" in (await sender.client.get("/metrics")).text


def retention_of(sender: RunningSender, pace: Pace = USUAL) -> Retention:
    return Retention(sender.database, sender.metrics, sender.clock, history_days=7, pace=pace)


async def test_events_whose_time_is_over_are_gone_and_cursors_before_them_are_told_so(
    sender: RunningSender,
) -> None:
    await complete_new(sender, "1", "2")
    sender.clock.advance(days=6)
    await complete_new(sender, "3")
    await retention_of(sender).sweep()
    assert (await sender.client.get("/channels/customer:alice/events")).json()[
        "cursor"
    ] == "customer:alice=1.3"
    sender.clock.advance(days=1, seconds=1)
    await retention_of(sender).sweep()
    gone = await sender.client.get("/channels/customer:alice/events?after=customer:alice=1.1")
    assert (gone.status_code, gone.json()["as_of"]) == (410, "customer:alice=1.3")
    kept = await sender.client.get("/channels/customer:alice/events?after=customer:alice=1.2")
    assert [event["seq"] for event in kept.json()["events"]] == [3]
    assert sender.metrics.registry.get_sample_value("orderbell_events_pruned_total") == 3


async def test_channel_goes_on_counting_when_all_of_it_is_gone(sender: RunningSender) -> None:
    await complete_new(sender, "1", "2")
    sender.clock.advance(days=8)
    await retention_of(sender).sweep()
    await complete_new(sender, "3")
    answer = (await sender.client.get("/channels/customer:alice/events")).json()
    assert [event["seq"] for event in answer["events"]] == [3]


async def test_completed_order_outlives_its_event(sender: RunningSender) -> None:
    await complete_new(sender, "1")
    sender.clock.advance(days=8)
    await retention_of(sender).sweep()
    again = await sender.complete("1")
    assert again.status_code == 200
    assert again.json()["order"]["status"] == "completed"
    assert again.json()["event"] is None


async def test_what_is_not_published_is_never_pruned(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        await sender.place("1")
        await sender.complete("1")
        sender.clock.advance(days=400)
        await retention_of(sender).sweep()
        answer = (await sender.client.get("/channels/customer:alice/events")).json()
        assert [event["seq"] for event in answer["events"]] == [1]


async def test_large_backlogs_are_pruned_in_small_transactions(sender: RunningSender) -> None:
    await complete_new(sender, *(str(number) for number in range(7)))
    sender.clock.advance(days=8)
    await retention_of(sender, Pace(batch=2)).sweep()
    assert (await sender.client.get("/channels/customer:alice/events")).json()["events"] == []


async def test_sweeps_are_repeated(sender: RunningSender) -> None:
    running = asyncio.create_task(retention_of(sender, Pace(every_seconds=0.01)).run())
    await complete_new(sender, "1")
    sender.clock.advance(days=8)
    await await_until(lambda: sender.metrics.registry.get_sample_value("orderbell_events_pruned_total"))
    running.cancel()
