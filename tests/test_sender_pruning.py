from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sender import history, outbox, pruning, recording
from sender.database.open import open_database
from sender.pruning import Old
from sender.recording import arrival
from shared.channels import Channel
from shared.events import parse_event
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from sender.database.protocol import Database

pytestmark = pytest.mark.anyio

THEN = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
NOW = THEN + timedelta(days=8)
ALICE, BOB = Channel("customer:alice"), Channel("customer:bob")


@pytest.fixture
async def database(database_url: str, anyio_backend: object) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


def record_published(connection: Connection, *channels: Channel) -> None:
    for number, channel in enumerate(channels):
        event = {"specversion": "1.0", "id": f"{number}", "source": "/test", "type": "t"}
        draft = parse_event(event | {"channel": channel}, now=THEN)
        recording.record_once(connection, [arrival(draft, "")], now=THEN)
    waiting = outbox.unpublished(connection, limit=100)
    outbox.mark_published(connection, [NewestEvent(1, event.position) for event in waiting])


look = partial(pruning.look, after=0, before=NOW - timedelta(days=7), now=NOW, limit=100)


def test_events_of_one_channel_are_taken_in_portions_from_the_first_on() -> None:
    old = [Old("a", 10, 10)]
    assert [pruning.take(old, 4) for _ in range(3)] == [{"a": 4}, {"a": 8}, {"a": 10}]
    assert old == []


def test_portion_takes_channels_until_it_is_full() -> None:
    old = [Old("c", 7, 1), Old("b", 9, 3), Old("a", 5, 2)]
    assert pruning.take(old, 4) == {"a": 5, "b": 8}
    assert pruning.take(old, 4) == {"b": 9, "c": 7}


async def test_what_was_looked_at_is_deleted_a_portion_at_a_time(database: Database) -> None:
    await database.write(lambda connection: record_published(connection, ALICE, ALICE, ALICE, BOB, BOB))
    window = await database.read(look)
    assert sorted(window.old) == [Old(ALICE, 3, 3), Old(BOB, 1, 1)]  # the newest of all stays
    assert (window.looked, window.young) == (4, False)
    deleted = await database.write(partial(pruning.delete_events, old={ALICE: 2}, last=window.last))
    assert deleted == 2
    states = await database.read(partial(history.states, names=[ALICE, BOB]))
    assert (states[ALICE].pruned_seq, states[BOB].pruned_seq) == (2, 0)


async def test_event_that_returned_to_the_outbox_since_it_was_looked_at_is_not_deleted(
    database: Database,
) -> None:
    await database.write(lambda connection: record_published(connection, ALICE, ALICE, BOB))
    window = await database.read(look)

    def lost(connection: Connection) -> int:
        recent = outbox.recent(connection, before=None, window=100)
        return outbox.return_tails(connection, [tail._replace(after=1) for tail in recent.tails[:1]])

    assert await database.write(lost) == 1
    delete = partial(pruning.delete_events, old=pruning.take(window.old, 100), last=window.last)
    assert await database.write(delete) == 0
    assert (await database.read(partial(history.states, names=[ALICE])))[ALICE].pruned_seq == 0
    assert len(await database.read(partial(outbox.unpublished, limit=10))) == 1
