from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.util import await_only

from sender import history, outbox, recording
from sender.database.open import open_database
from sender.database.tables import channels, events
from sender.generation import begin_epoch, current_epoch
from shared.channels import Channel
from shared.cursors import Place
from shared.events import parse_event
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from tests.postgres_servers import EmptiedDatabase

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
ALICE, BOB = Channel("customer:alice"), Channel("customer:bob")


@pytest.fixture
async def database(database_url: str, anyio_backend: object) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


def record(connection: Connection, *ids: str, channel: Channel = ALICE, published: bool) -> None:
    for event_id in ids:
        given = {"specversion": "1.0", "id": event_id, "source": '"epoch":1,"seq":3', "type": "t"}
        data = {"x": ',"epoch":1,"seq":3'}
        draft = parse_event(given | {"channel": channel, "data": data}, now=NOW)
        recording.record_once(connection, [recording.arrival(draft, "")], now=NOW)
    if published:
        waiting = outbox.unpublished(connection, limit=100)
        outbox.mark_published(connection, [NewestEvent(1, event.position) for event in waiting])


async def test_new_epoch_keeps_the_outbox_and_closes_what_was_before(database: Database) -> None:
    def work(connection: Connection) -> None:
        record(connection, "1", "2", published=True)
        record(connection, "b", channel=BOB, published=True)
        record(connection, "3", "4", published=False)

    await database.write(work)
    assert await database.write(partial(begin_epoch, after=1)) == 2
    states = await database.read(partial(history.states, names=[ALICE, BOB]))
    assert (states[ALICE].head, states[ALICE].pruned_seq) == (Place(2, 4), 2)
    assert (states[BOB].head, states[BOB].pruned_seq) == (Place(2, 1), 1)
    waiting = await database.read(partial(outbox.unpublished, limit=10))
    assert [event.entry.place for event in waiting] == [Place(2, 3), Place(2, 4)]
    for one in waiting:
        said = json.loads(one.entry.text)
        assert (said["epoch"], said["seq"]) == one.entry.place
        assert (said["source"], said["data"]) == ('"epoch":1,"seq":3', {"x": ',"epoch":1,"seq":3'})


async def test_seqs_go_on_in_the_new_epoch(database: Database) -> None:
    def work(connection: Connection) -> None:
        record(connection, "1", "2", published=True)
        begin_epoch(connection, after=6)
        record(connection, "3", published=False)

    await database.write(work)
    (waiting,) = await database.read(partial(outbox.unpublished, limit=10))
    assert waiting.entry.place == Place(7, 3)


async def test_epoch_that_has_begun_does_not_begin_again(database: Database) -> None:
    assert await database.write(partial(begin_epoch, after=4)) == 5
    assert await database.write(partial(begin_epoch, after=4)) == 5
    assert await database.write(partial(begin_epoch, after=2)) == 5
    assert await database.read(current_epoch) == 5


async def test_new_epoch_writes_no_more_rows_however_many_channels_there_are(database: Database) -> None:
    """A single statement for a million channels repeatedly exceeded its deadline."""

    def fill(connection: Connection) -> None:
        rows = [{"channel": f"customer:{number}", "seq": 3, "epoch": 1} for number in range(5_000)]
        connection.execute(insert(channels), rows)
        record(connection, "a", channel=ALICE, published=True)
        record(connection, "b", channel=BOB, published=False)

    await database.write(fill)
    assert await database.write(partial(begin_epoch, after=1)) == 2
    old = select(func.count()).select_from(channels).where(channels.c.epoch == 1)
    assert await database.read(lambda connection: connection.execute(old).scalar_one()) == 5_001
    some = Channel("customer:7")
    states = await database.read(partial(history.states, names=[some, ALICE, BOB]))
    assert (states[some].head, states[some].pruned_seq) == (Place(2, 3), 3)
    assert (states[ALICE].head, states[ALICE].pruned_seq) == (Place(2, 1), 1)
    assert (states[BOB].head, states[BOB].pruned_seq) == (Place(2, 1), 0)
    # Each channel continues where it was, and older events stay deleted.
    await database.write(lambda connection: record(connection, "c", channel=some, published=False))
    states = await database.read(partial(history.states, names=[some]))
    assert (states[some].head, states[some].pruned_seq) == (Place(2, 4), 3)
    await database.write(lambda connection: record(connection, "d", channel=some, published=False))
    states = await database.read(partial(history.states, names=[some]))
    assert (states[some].head, states[some].pruned_seq) == (Place(2, 5), 3)
    (found,) = await database.read(
        lambda connection: history.read(connection, [history.Request(some, Place(2, 3))], limit=10)
    )
    assert (found.reset, [entry.place for entry in found.entries]) == (None, [Place(2, 4), Place(2, 5)])


async def test_new_epoch_begins_with_a_few_statements_however_many_events_wait(database: Database) -> None:
    """A statement for each event took minutes after a restore with a backlog, and no order was completed."""
    await database.write(lambda c: record(c, *map(str, range(300)), published=False))
    statements: list[str] = []

    def begin(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", note)
        begin_epoch(connection, after=1)
        event.remove(connection, "before_cursor_execute", note)

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        statements.extend([statement] * (len(parameters) if isinstance(parameters, list) else 1))

    await database.write(begin)
    assert len(statements) < 15
    waiting = await database.read(partial(outbox.unpublished, limit=400))
    assert [json.loads(one.entry.text)["seq"] for one in waiting] == [*range(1, 301)]
    assert {json.loads(one.entry.text)["epoch"] for one in waiting} == {2}


async def test_damaged_texts_that_wait_move_into_the_new_epoch_as_they_are(database: Database) -> None:
    """They are given up there, and what is kept of them must be what was there."""
    await database.write(lambda c: record(c, "1", "2", published=False))

    def damage(connection: Connection) -> None:
        connection.execute(update(events).where(events.c.seq == 1).values(text="é" * 70_000))
        if connection.dialect.name == "sqlite":
            connection.execute(text("UPDATE events SET text = CAST(x'fffe00ff' AS TEXT) WHERE seq = 2"))

    await database.write(damage)
    assert await database.write(partial(begin_epoch, after=1)) == 2
    kept = await database.read(lambda c: c.execute(text(_KEPT[c.dialect.name])).scalars().all())
    assert kept[0] == ("é" * 70_000).encode().hex()
    assert kept[1] == "fffe00ff" or "epoch" in bytes.fromhex(kept[1]).decode()
    places = await database.read(lambda c: c.execute(select(events.c.epoch)).scalars().all())
    assert places == [2, 2]


_KEPT = {
    "sqlite": "SELECT lower(hex(CAST(text AS BLOB))) FROM events ORDER BY seq",
    "postgresql": "SELECT encode(convert_to(text, 'UTF8'), 'hex') FROM events ORDER BY seq",
}


@pytest.mark.postgres
async def test_no_event_returns_to_the_outbox_while_an_epoch_begins(
    emptied_postgres: EmptiedDatabase,
) -> None:
    """Its channel was not moved with it: the event was of the new epoch, and its channel of the old one."""
    with emptied_postgres.use() as url:
        async with open_database(url) as database:
            await database.write(lambda c: record(c, "1", "2", published=True))
            await database.write(lambda c: record(c, "b", channel=BOB, published=False))
            returning: list[asyncio.Task[int]] = []

            def return_beside(_c: object, _cursor: object, statement: str, *_: object) -> None:
                if statement.startswith("UPDATE outbox"):
                    tails = [outbox.Tail(ALICE, 1, Place(1, 2))]
                    returned = database.write(partial(outbox.return_tails, tails=tails))
                    returning.append(asyncio.create_task(returned))
                    await_only(asyncio.wait(returning, timeout=0.5))

            def begin(connection: Connection) -> None:
                event.listen(connection, "before_cursor_execute", return_beside)
                begin_epoch(connection, after=1)
                event.remove(connection, "before_cursor_execute", return_beside)

            await database.write(begin)
            assert await returning[0] == 0
            waiting = await database.read(partial(outbox.unpublished, limit=10))
            assert [one.entry.place for one in waiting] == [Place(2, 1)]
            states = await database.read(partial(history.states, names=[ALICE]))
            assert (states[ALICE].head, states[ALICE].pruned_seq) == (Place(2, 2), 2)
