from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from sender import outbox
from sender.database.open import open_database
from sender.outbox import NO_FLOOR, Floor
from sender.publishing.floor import AGAIN_SECONDS, KnownFloor
from shared.redis.channel_log import NewestEvent
from tests.postgres_servers import fresh_database
from tests.test_sender_recording import arrival, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sender.database.protocol import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(database_url: str, anyio_backend: object) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def shop_url(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield url


async def test_outbox_holds_what_is_not_marked(database: Database) -> None:
    await record(database, *(arrival(str(n)) for n in range(3)))
    first, *rest = await database.read(partial(outbox.unpublished, limit=10))
    await database.write(partial(outbox.mark_published, published=[NewestEvent(1, first.position)]))
    assert await database.read(partial(outbox.unpublished, limit=10)) == rest
    backlog = await database.read(outbox.backlog)
    assert backlog == (2, "2026-11-23T14:25:00.000Z")


@pytest.mark.parametrize(
    ("positions", "found"), [([5], [(5, 5)]), ([1, 2, 3, 5, 7, 8], [(1, 3), (5, 5), (7, 8)])]
)
def test_runs_hold_consecutive_positions_alone(positions: list[int], found: list[tuple[int, int]]) -> None:
    assert outbox.runs(positions) == found


async def test_what_waits_between_published_events_stays(database: Database) -> None:
    await record(database, *(arrival(f"{number}") for number in range(6)))
    waiting = await database.read(partial(outbox.unpublished, limit=10))
    published = [NewestEvent(1, waiting[number].position) for number in (0, 1, 3, 5)]
    marked = await database.write(partial(outbox.mark_published, published=published))
    left = await database.read(partial(outbox.unpublished, limit=10))
    assert (marked, [event.entry.place.seq for event in left]) == (frozenset(), [3, 5])


async def test_a_long_outbox_is_measured_without_counting_it(database: Database) -> None:
    total = 2 * outbox.COUNTED + 7
    await record(database, *(arrival(str(n)) for n in range(total)))
    assert (await database.read(outbox.backlog)).size == total
    waiting = await database.read(partial(outbox.unpublished, limit=total - 3))
    published = [NewestEvent(1, event.position) for event in waiting]
    await database.write(partial(outbox.mark_published, published=published))
    assert (await database.read(outbox.backlog)).size == 3


async def floor_of(database: Database, known: Floor = NO_FLOOR) -> Floor:
    """The floor as a relay raises it while nothing is written."""
    to = await database.read(outbox.extent)
    assert await database.read(outbox.writers) == frozenset()
    return await database.read(partial(outbox.raised, floor=known, to=to))


async def test_floor_is_the_first_that_waits(database: Database) -> None:
    await record(database, *(arrival(str(n)) for n in range(4)))
    first, second, *_ = await database.read(partial(outbox.unpublished, limit=10))
    await database.write(partial(outbox.mark_published, published=[NewestEvent(1, first.position)]))
    floor = await floor_of(database)
    assert floor.position == second.position
    assert len(await database.read(partial(outbox.unpublished, limit=10, floor=floor))) == 3
    assert (await database.read(partial(outbox.backlog, floor=floor))).size == 3
    assert await database.read(partial(outbox.settled, floor=floor)) == second.position


@pytest.mark.postgres
async def test_floor_is_not_raised_over_a_row_that_is_still_being_written(
    shop_url: str,
) -> None:
    """A later row becomes visible first; another program's open transaction delays nothing."""
    async with open_database(shop_url) as database, plain(shop_url) as other:
        await other.execute("BEGIN; SELECT txid_current(); SELECT count(*) FROM orderbell.outbox")
        assert await database.read(outbox.writers) == frozenset()
        async with plain(shop_url) as writing:
            await writing.execute(f"BEGIN; SET LOCAL search_path = orderbell; {RECORD_BY_HAND}")
            await record(database, arrival("1"))
            known = KnownFloor(database, every_seconds=0)
            (visible,) = await database.read(partial(outbox.unpublished, limit=10))
            await database.write(partial(outbox.mark_published, published=[NewestEvent(1, visible.position)]))
            for _ in range(3):
                await asyncio.sleep(AGAIN_SECONDS)
                await known.raise_in_time()
            assert known.now == NO_FLOOR
            await writing.execute("COMMIT")
        await asyncio.sleep(AGAIN_SECONDS)
        await known.raise_in_time()
        (late,) = await database.read(partial(outbox.unpublished, limit=10))
        assert late.position < visible.position
        assert known.now.position == late.position
        await other.execute("ROLLBACK")


@pytest.mark.postgres
async def test_floor_of_another_server_hides_nothing(shop_url: str) -> None:
    async with open_database(shop_url) as database:
        await record(database, arrival("1"))
        (waiting,) = await database.read(partial(outbox.unpublished, limit=10))
        elsewhere = Floor(waiting.position + 1, "another")
        assert await database.read(partial(outbox.unpublished, limit=10, floor=elsewhere)) == [waiting]
        assert await database.read(partial(outbox.raised, floor=NO_FLOOR, to=elsewhere)) == NO_FLOOR


async def test_forgotten_floor_is_not_raised_by_a_look_that_was_under_way(database: Database) -> None:
    await record(database, arrival("1"))
    (event,) = await database.read(partial(outbox.unpublished, limit=10))
    await database.write(partial(outbox.mark_published, published=[NewestEvent(1, event.position)]))

    class Forgetting:
        """Events are returned between the look and its answer."""

        async def read(self, work: Any) -> Any:
            answer = await database.read(work)
            if isinstance(work, partial):
                known.forget()
            return answer

    known = KnownFloor(cast("Database", Forgetting()), every_seconds=0)
    await known.raise_in_time()
    assert known.now == NO_FLOOR


RECORD_BY_HAND = """
    WITH recorded AS (
        INSERT INTO events (channel, seq, epoch, identity, content_digest, recorded_at, text)
        VALUES ('customer:carol', 1, 1, 'ff', '', '2026-11-23T14:25:00.123Z', '{}') RETURNING position, epoch)
    INSERT INTO outbox SELECT position, epoch FROM recorded
"""


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        yield connection
    finally:
        await connection.close()
