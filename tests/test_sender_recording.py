"""Recording events: one place for each, in order and without holes."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sender import history, outbox, recording
from sender.database.open import open_database
from sender.recording import Arrival, Status
from shared.channels import Channel
from shared.cursors import Cursor, Place
from shared.events import parse_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sender.database.protocol import Database

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
ALICE = Channel("customer:alice")
BOB = Channel("customer:bob")


@pytest.fixture
async def database(database_url: str, anyio_backend: object) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


def arrival(event_id: str, channel: Channel = ALICE, *, data: object = None) -> Arrival:
    event = {"specversion": "1.0", "id": event_id, "source": "/test", "type": "t", "channel": channel}
    return recording.arrival(parse_event(event | {"data": data}, now=NOW), content=json.dumps(data))


async def record(database: Database, *arrivals: Arrival) -> list[recording.Receipt]:
    return await database.write(partial(recording.record_once, arrivals=arrivals, now=NOW))


async def test_seqs_count_from_one_in_each_channel(database: Database) -> None:
    receipts = await record(database, arrival("1"), arrival("2", BOB), arrival("3"))
    assert [receipt.cursor for receipt in receipts] == [
        Cursor(ALICE, Place(1, 1)),
        Cursor(BOB, Place(1, 1)),
        Cursor(ALICE, Place(1, 2)),
    ]


async def test_seqs_have_no_holes_under_concurrency(database: Database) -> None:
    """Batches that share channels, in all orders, some of which fail."""
    channels = [Channel(f"customer:{n}") for n in range(5)]
    chance = random.Random(7)

    async def caller(number: int) -> None:
        for turn in range(6):
            batch = [
                arrival(f"{number}-{turn}-{n}", channel)
                for n, channel in enumerate(chance.sample(channels, k=3) * 2)
            ]

            def work(connection: object, batch: list[Arrival] = batch, *, fail: bool = turn == 3) -> None:
                recording.record_once(connection, batch, now=NOW)  # type: ignore[arg-type]
                if fail:
                    raise RuntimeError("after the seqs were taken")

            try:
                await database.write(work)
            except RuntimeError:
                assert turn == 3

    await asyncio.gather(*map(caller, range(8)))
    waiting = await database.read(partial(outbox.unpublished, limit=10_000))
    assert len(waiting) == 8 * 5 * 6
    states = await database.read(partial(history.states, names=channels))
    for channel in channels:
        seqs = sorted(event.entry.place.seq for event in waiting if event.channel == channel)
        assert seqs == list(range(1, states[channel].head.seq + 1))


async def test_same_event_again_is_a_duplicate_at_the_same_place(database: Database) -> None:
    (first,) = await record(database, arrival("1", data={"a": 1}))
    (again,) = await record(database, arrival("1", data={"a": 1}))
    assert again == (Status.DUPLICATE, first.cursor)


async def test_other_content_under_the_same_identity_is_refused(database: Database) -> None:
    await record(database, arrival("1", data=1))
    assert await record(database, arrival("1", data=2)) == [(Status.REFUSED, None)]


async def test_a_batch_knows_its_own_duplicates(database: Database) -> None:
    receipts = await record(database, arrival("1", data=1), arrival("1", data=1), arrival("1", data=2))
    assert [receipt.status for receipt in receipts] == [Status.ACCEPTED, Status.DUPLICATE, Status.REFUSED]


async def test_two_callers_of_one_event_get_one_place(database: Database) -> None:
    receipts = await asyncio.gather(*(record(database, arrival("1"), arrival(f"own-{n}")) for n in range(8)))
    assert len({pair[0].cursor for pair in receipts}) == 1
    assert sorted(pair[0].status.value for pair in receipts) == ["accepted"] + ["duplicate"] * 7
    assert len(await database.read(partial(outbox.unpublished, limit=100))) == 9


async def test_what_is_stored_is_the_final_text(database: Database) -> None:
    await record(database, arrival("1", data={"naïve": "☃"}))
    (waiting,) = await database.read(partial(outbox.unpublished, limit=10))
    event = json.loads(waiting.entry.text)
    assert (event["channel"], event["epoch"], event["seq"]) == (ALICE, 1, 1)
    assert event["data"] == {"naïve": "☃"}
