"""Alerts that no device has shown in time are found, each once, and no other."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event, text

from sender import outbox
from sender.webhooks import search
from sender.webhooks.message import Kind
from sender.webhooks.search import Due
from shared.times import format_time
from tests.senders import one_database, run_sender
from tests.waiting import await_until
from tests.webhooks.receiver import (
    Answer,
    LivingClock,
    Receiver,
    alert,
    read,
    report,
    run_reporting,
    traced,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

SECONDS = 0.3
NOT_SHOWN = frozenset({Kind.NOT_SHOWN_IN})
EVERYTHING = frozenset(Kind)


async def all_looked_at(sender: RunningSender) -> None:
    """Until every event recorded so far was looked at."""
    newest = await sender.database.read(outbox.extent)

    async def has_come_there() -> bool:
        found = await sender.database.read(position)
        return found is not None and found >= newest.position

    await await_until(has_come_there)


def position(connection: Connection) -> int | None:
    return connection.execute(text("SELECT position FROM webhook_search")).scalar_one_or_none()


async def has_begun(sender: RunningSender) -> None:
    await await_until(lambda: sender.database.read(position))


async def test_alert_that_no_device_has_shown_is_reported_once_and_not_before_its_time(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_reporting(
        receiver, database_url, redis_url, key_prefix, kinds=NOT_SHOWN, not_shown_seconds=SECONDS
    ) as sender:
        await has_begun(sender)
        begun = time.monotonic()
        await alert(sender, "1042")
        (message,) = await receiver.wait(1)
        assert time.monotonic() - begun >= SECONDS
        await report(sender, "customer:alice=1.1")  # too late
        await alert(sender, "2", "bob")
        await receiver.wait(2)
        await all_looked_at(sender)
        await asyncio.sleep(0.05)
        (webhook,), _ = await traced(sender, "1042")
    told = message.verified()
    assert (told["type"], told["data"]["customer_id"]) == ("alert.not_shown_in", "alice")
    assert (told["data"]["event"]["subject"], told["data"]["seconds"]) == ("1042", SECONDS)
    assert [one.event["data"]["customer_id"] for one in receiver.got] == ["alice", "bob"]
    assert (webhook["type"], webhook["outcome"]) == ("alert.not_shown_in", "delivered")


async def test_what_was_seen_read_retracted_replaced_or_expired_in_time_is_not_reported(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    clock = LivingClock()
    reporting = partial(
        run_reporting, receiver, database_url, redis_url, key_prefix, kinds=NOT_SHOWN, clock=clock
    )
    async with reporting(not_shown_seconds=3600) as sender:  # however slow this machine is
        await has_begun(sender)
        for customer in ("seen", "beyond", "read", "back"):
            await alert(sender, customer, customer)
        await report(sender, "customer:seen=1.1")
        await alert(sender, "beyond-2", "beyond")
        await report(sender, "customer:beyond=1.0+2")
        await read(sender, "customer:read=1.1")
        await alert(sender, "alone", "alone")
        (listed,) = (await sender.client.get("/channels/customer:alone/alerts")).json()["alerts"]
        alone = {"customer_id": "alone", "ids": [listed["event"]["id"]]}
        assert (await sender.client.post("/read", json=alone)).status_code == 200
        await sender.client.post("/retractions", json={"order_id": "back"})
        await sender.client.post("/trials", json={"customer_id": "trial"})
        soon = format_time(clock() + timedelta(minutes=30))
        await sender.place("over", "over")
        await sender.complete("over", json={"expirytime": soon})
        common = {"specversion": "1.0", "source": "/shop", "type": "menu", "subject": "soup"}
        for number in (1, 2):
            posted = {**common, "id": f"{number}", "channel": "customer:menu", "replaces": True}
            answer = await sender.client.post(
                "/events", json=posted, headers={"content-type": "application/cloudevents+json"}
            )
            assert answer.status_code == 202, answer.text
        topic = {**common, "id": "3", "channel": "topic:menu"}
        await sender.client.post(
            "/events", json=topic, headers={"content-type": "application/cloudevents+json"}
        )
    assert receiver.got == []
    clock.advance(hours=1)
    async with reporting(not_shown_seconds=3600) as sender:
        await receiver.wait(2)
        await all_looked_at(sender)
        await asyncio.sleep(0.05)
    assert sorted(one.event["data"]["cursor"] for one in receiver.got) == [
        "customer:beyond=1.1",
        "customer:menu=1.2",
    ]


async def test_alert_retracted_before_its_report_was_delivered_is_not_reported(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_reporting(
        receiver, database_url, redis_url, key_prefix, kinds=NOT_SHOWN, not_shown_seconds=0.05
    ) as sender:
        await has_begun(sender)
        receiver.usual = Answer(503)
        await alert(sender, "1")
        await receiver.wait(2)
        await sender.client.post("/retractions", json={"order_id": "1"})
        ((webhook,), (line,)) = await await_until(lambda: _ended(sender))
    assert webhook["outcome"] == "withdrawn"
    assert "alert.not_shown_in was not sent: the alert was retracted before" in line


async def _ended(sender: RunningSender) -> Any:
    found = await traced(sender, "1")
    return found if found[0][0]["outcome"] else None


async def test_what_was_recorded_while_no_sender_ran_is_found_and_reported_once(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    reporting = partial(
        run_reporting, receiver, database_url, redis_url, key_prefix, kinds=NOT_SHOWN, not_shown_seconds=0.1
    )
    async with run_sender(database_url, redis_url, key_prefix, relaying=False, clock=LivingClock()) as off:
        await alert(off, "before")  # no webhook was set up then
    async with reporting() as sender:
        await has_begun(sender)
    async with run_sender(database_url, redis_url, key_prefix, relaying=False, clock=LivingClock()) as off:
        await alert(off, "meanwhile")
    async with reporting() as one, reporting() as other:
        await receiver.wait(1)
        await alert(one, "after")
        await receiver.wait(2)
        await all_looked_at(other)
        await asyncio.sleep(0.05)
    assert [one.event["data"]["event"]["subject"] for one in receiver.got] == ["meanwhile", "after"]


@one_database
async def test_clock_that_is_set_ahead_makes_nobody_late(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    clock = LivingClock()
    async with run_reporting(
        receiver, database_url, redis_url, key_prefix, kinds=NOT_SHOWN, not_shown_seconds=0.6, clock=clock
    ) as sender:
        await has_begun(sender)
        begun = time.monotonic()
        await alert(sender, "1")
        clock.advance(hours=1)
        await receiver.wait(1)
        assert time.monotonic() - begun >= 0.6
        clock.advance(hours=-2)  # what is recorded now lies before what was
        begun = time.monotonic()
        await alert(sender, "2")
        clock.advance(hours=-1)
        await all_looked_at(sender)
        assert time.monotonic() - begun < 10


async def test_row_that_becomes_visible_late_is_not_passed_over(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    """On PostgreSQL a transaction may hold a position for long, while later ones are visible."""
    async with run_sender(database_url, redis_url, key_prefix, relaying=False, clock=LivingClock()) as sender:
        looking = search.Search(
            sender.database,
            sender.clock,
            lambda: None,
            seconds=0.01,
            oldest=timedelta(days=1),
        )
        await looking.sweep()
        held = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(connection: Connection) -> None:
            connection.execute(text("INSERT INTO channels (channel, seq) VALUES ('customer:slow', 1)"))
            connection.execute(
                text(
                    "INSERT INTO events (channel, seq, epoch, identity, content_digest, recorded_at, text)"
                    " VALUES ('customer:slow', 1, 1, 'd', '', :at, '{}')"
                ),
                {"at": format_time(sender.clock())},
            )
            loop.call_soon_threadsafe(held.set) if database_url.startswith("sqlite") else held.set()
            connection.execute(_SLEEP[connection.dialect.name])

        writing = asyncio.create_task(sender.database.write(slow))
        await held.wait()
        await alert(sender, "quick")
        for _ in range(5):
            await looking.sweep()
            await asyncio.sleep(0.02)
        await writing

        async def both_are_found() -> bool:
            await looking.sweep()
            found = await sender.database.read(recorded_channels)
            return {"customer:slow", "customer:alice"} <= set(found)

        await await_until(both_are_found, timeout=10)


_SLEEP = {"sqlite": text("SELECT 1"), "postgresql": text("SELECT pg_sleep(0.4)")}


def recorded_channels(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT channel FROM webhook_deliveries")).scalars())


@one_database
async def test_without_a_webhook_no_statement_is_about_one(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    seen: list[str] = []

    def note(connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    async with run_sender(database_url, redis_url, key_prefix, clock=LivingClock()) as sender:
        event.listen(Engine, "before_cursor_execute", note)
        try:
            await alert(sender, "1")
            await report(sender, "customer:alice=1.1")
            await read(sender, "customer:alice=1.1")
            await sender.client.get("/metrics")
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert len(seen) > 10
    assert not [statement for statement in seen if "webhook" in statement]


@one_database
async def test_completing_costs_no_statement_more_with_webhooks(
    receiver: Receiver, database_url: str, redis_url: str, key_prefix: str
) -> None:
    begun = []
    for kinds in (None, EVERYTHING):
        written: list[str] = []

        def note(
            connection: Connection, cursor: object, statement: str, *rest: object, to: list[str] = written
        ) -> None:
            if not statement.lstrip().upper().startswith("SELECT"):
                to.append(statement)

        running = (
            run_sender(database_url, redis_url, key_prefix, relaying=False, clock=LivingClock())
            if kinds is None
            else run_reporting(
                receiver, database_url, redis_url, key_prefix, kinds=kinds, not_shown_seconds=60
            )
        )
        async with running as sender:
            if kinds:
                await has_begun(sender)
            await sender.place(f"{kinds}")
            event.listen(Engine, "before_cursor_execute", note)
            try:
                await sender.complete(f"{kinds}")
            finally:
                event.remove(Engine, "before_cursor_execute", note)
        begun.append(written)
    assert begun[0] == begun[1]


def test_due_is_what_is_older_by_our_own_clock_or_was_recorded_long_before_our_start() -> None:
    now = LivingClock()()
    due = Due(complete=100, aged=10, since=20, before=now)
    early, late = format_time(now - timedelta(seconds=1)), format_time(now + timedelta(seconds=1))
    cases = [(9, late), (10, early), (10, late), (19, early), (20, early)]
    assert [search._is_due(at, recorded, due) for at, recorded in cases] == [True, True, False, True, False]
