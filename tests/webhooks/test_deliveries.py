"""The rows of deliveries: found by indexes, and gone when their time is over."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sender.webhooks import deliveries
from sender.webhooks.deliveries import Key, Outcome, Result
from sender.webhooks.message import Kind
from shared.channels import Channel
from shared.extents import Range
from shared.times import format_time
from tests.senders import one_database, run_sender
from tests.webhooks.receiver import alert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from sender.webhooks.deliveries import Taken
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = Channel("customer:alice")


@pytest.fixture
async def sender(
    database_url: str, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    """With three alerts of Alice's that are to be reported as shown."""
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        for order_id in ("1", "2", "3"):
            await alert(sender, order_id)
        assert await note(sender) == 3
        yield sender


async def note(sender: RunningSender, kind: Kind = Kind.SHOWN) -> int:
    parts = {ALICE: [Range(1, 10**6)]}
    return await sender.database.write(partial(deliveries.note, kind=kind, parts=parts, now=sender.clock()))


async def take(sender: RunningSender, limit: int = 10, lease: float = 30) -> list[Taken]:
    work = partial(
        deliveries.take,
        now=sender.clock(),
        until=sender.clock() + timedelta(seconds=lease),
        limit=limit,
        not_shown_seconds=60.0,
    )
    return (await sender.database.write(work)).taken


async def end(
    sender: RunningSender, taken: Taken, outcome: Outcome | None = None, *, again: float = 60
) -> None:
    now = sender.clock()
    due_at = None if outcome else format_time(now + timedelta(seconds=again))
    result = Result(taken.key, taken.attempt, format_time(now), outcome, due_at, "why" * 200)
    await sender.database.write_together(deliveries.note_results, result)


async def test_each_kind_is_recorded_once_for_an_alert(sender: RunningSender) -> None:
    assert await note(sender) == 0
    assert await note(sender, Kind.READ) == 3
    assert await sender.database.read(deliveries.count) == 6


async def test_what_is_taken_is_taken_by_nobody_else_until_its_lease_ends(sender: RunningSender) -> None:
    first = await take(sender, limit=2)
    rest = await take(sender)
    assert [one.key.seq for one in (*first, *rest)] == [1, 2, 3]
    assert await take(sender) == []
    sender.clock.advance(seconds=31)
    again = await take(sender)
    assert [(one.key.seq, one.attempt) for one in again] == [(1, 2), (2, 2), (3, 2)]
    assert [one.message_id for one in again] == [one.message_id for one in (*first, *rest)]


async def test_failure_that_is_reported_late_changes_nothing_for_its_successor(sender: RunningSender) -> None:
    (late, *_) = await take(sender)
    sender.clock.advance(seconds=31)
    (again, *_) = await take(sender)
    await end(sender, late, Outcome.GIVEN_UP)
    (found,) = await of_first(sender)
    assert (found.outcome, found.attempts) == (None, 2)
    await end(sender, again, Outcome.DELIVERED)
    await end(sender, again)  # a success counts, whatever comes after it
    (found,) = await of_first(sender)
    assert (found.outcome, found.due_at, found.detail) == ("delivered", None, "")


async def of_first(sender: RunningSender) -> list[deliveries.Delivery]:
    return await sender.database.read(partial(deliveries.of_alert, channel=ALICE, seq=1))


async def test_detail_is_bounded(sender: RunningSender) -> None:
    (taken, *_) = await take(sender)
    await end(sender, taken)
    (found,) = await of_first(sender)
    assert found.detail == ("why" * 200)[: deliveries.MAX_DETAIL]


async def test_what_ended_is_kept_as_long_as_the_history_and_then_deleted(sender: RunningSender) -> None:
    one, other, _ = await take(sender)
    await end(sender, one, Outcome.DELIVERED)
    begun = sender.clock()
    sender.clock.advance(days=1)
    await end(sender, other, Outcome.GIVEN_UP)
    # The first has ended long ago; the third waits, as if webhooks had been switched off.
    for limit in (1, 10):
        before = begun + timedelta(hours=1)
        deleted = await sender.database.write(partial(deliveries.prune, before=before, limit=limit))
        assert deleted == (2 if limit == 1 else 0)
    kept = await sender.database.read(lambda connection: connection.execute(_SEQS).scalars().all())
    assert kept == [2]


async def test_what_a_clock_far_ahead_put_off_is_due_at_once(sender: RunningSender) -> None:
    sender.clock.advance(days=300)
    for taken in await take(sender):
        await end(sender, taken, again=3600)
    sender.clock.advance(days=-300)
    assert await take(sender) == []
    restamp = partial(deliveries.restamp, now=sender.clock(), limit=10)
    assert await sender.database.write(restamp) == 3
    assert len(await take(sender)) == 3


async def test_what_the_history_no_longer_has_is_not_sent(sender: RunningSender) -> None:
    await sender.database.write(
        lambda connection: connection.execute(text("DELETE FROM events WHERE seq < 3"))
    )
    assert [one.key for one in await take(sender)] == [Key(ALICE, 3, Kind.SHOWN)]
    assert await sender.database.read(deliveries.count) == 1


async def test_no_row_names_an_erased_customer(sender: RunningSender) -> None:
    await alert(sender, "4", "bob")
    parts = {Channel("customer:bob"): [Range(1, 1)]}
    await sender.database.write(partial(deliveries.note, kind=Kind.READ, parts=parts, now=sender.clock()))
    (taken, *_) = await take(sender, limit=1)
    await end(sender, taken, Outcome.DELIVERED)
    assert (await sender.client.delete("/customers/alice")).status_code == 200
    left = await sender.database.read(lambda connection: connection.execute(_CHANNELS).scalars().all())
    assert left == ["customer:bob"]


_CHANNELS = text("SELECT channel FROM webhook_deliveries")
_SEQS = text("SELECT seq FROM webhook_deliveries ORDER BY seq")


@one_database
async def test_looking_reads_only_what_is_due_however_much_has_ended(sender: RunningSender) -> None:
    def plans(connection: Connection) -> str:
        found = []
        for statement in (
            deliveries._IS_DUE,
            deliveries._COUNT,
            deliveries._GIVE_UP_OLD,
            deliveries._RESTAMP,
            *deliveries._PRUNE,
        ):
            sql = str(statement.compile(connection.engine))
            names = ("now", "limit", "before", "at", "far", "param_1")
            given = dict.fromkeys(names, 1) if ":" in sql else (1,) * sql.count("?")
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)
            found += [row[3] for row in rows]
        return "\n".join(found)

    found = await sender.database.write(plans)
    assert "webhook_deliveries_due_at_index" in found
    assert "webhook_deliveries_ended_at_index" in found
    assert "SCAN webhook_deliveries\n" not in f"{found}\n"
