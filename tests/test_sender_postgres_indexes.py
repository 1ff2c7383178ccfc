"""Indexes that are built while a sender works, on a database of an earlier version."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from bench.large import as_of_postgres
from sender import history, pruning, recording
from sender.database.open import open_database
from sender.database.postgres_indexes import INDEXES
from sender.digest import identity_of
from tests.postgres_servers import fresh_database
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

OF_BEFORE = (
    "CREATE INDEX orders_status_index ON orders (status, position)",
    "CREATE INDEX orders_customer_id_status_index ON orders (customer_id, status, position)",
    "ALTER TABLE events ADD CONSTRAINT events_identity_key UNIQUE (identity)",
)
OLD = {"orders_status_index", "orders_customer_id_status_index", "events_identity_key"}
NEW = {index.name for index in INDEXES}


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield url


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        await connection.execute("SET search_path = orderbell")
        yield connection
    finally:
        await connection.close()


async def valid(connection: Any) -> set[str]:
    rows = await connection.fetch(
        "SELECT relname FROM pg_class JOIN pg_index ON indexrelid = oid"
        " WHERE indisvalid AND relnamespace = 'orderbell'::regnamespace"
    )
    return {row["relname"] for row in rows}


async def make_it_old(url: str) -> None:
    async with open_database(url), plain(url) as connection:
        for statement in as_of_postgres(10, 100, "'2026-11-23T14:25:00.123Z'"):
            await connection.execute(statement)
        for name in NEW:
            await connection.execute(f"DROP INDEX {name}")
        for statement in OF_BEFORE:
            await connection.execute(statement)


async def test_an_administrators_time_limits_do_not_end_the_building_of_indexes(url: str) -> None:
    """Each try would be ended half-built, and the next one would begin with nothing."""
    await make_it_old(url)
    async with plain(url) as other:
        name = await other.fetchval("SELECT current_database()")
        for setting in ("statement_timeout = 100", "lock_timeout = 100"):
            await other.execute(f'ALTER DATABASE "{name}" SET {setting}')
        transaction = other.transaction()
        await transaction.start()  # building has to wait for it
        await other.fetch("SELECT count(*) FROM orders")
        with capture_logs() as lines:
            async with open_database(url), plain(url) as connection:

                async def waits() -> bool:
                    found = await connection.fetchval(_WAITING_FOR)
                    return found is not None and found > 0.15

                await await_until(waits)
                await transaction.rollback()
                await await_until(partial(_is_built, connection))
    assert "indexes cannot be built now" not in [line["event"] for line in lines]


_WAITING_FOR = """
    SELECT CAST(extract(epoch FROM clock_timestamp() - query_start) AS float) FROM pg_stat_activity
    WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND datname = current_database()
"""


async def _is_built(connection: Any) -> bool:
    return await valid(connection) >= NEW


async def test_indexes_of_before_are_replaced_while_the_database_is_in_use(url: str) -> None:
    await make_it_old(url)
    async with plain(url) as other:
        transaction = other.transaction()
        await transaction.start()  # building has to wait for it
        await other.fetch("SELECT count(*) FROM events")
        with capture_logs() as logs:
            async with open_database(url) as database, plain(url) as connection:
                await await_until(lambda: is_building(connection))
                assert await valid(connection) >= OLD
                found = await database.read(partial(recording.find, source="/filled", event_id="1"))
                assert found is None  # and no error
                await transaction.rollback()
                await await_until(lambda: all_there(connection))
                assert not await valid(connection) & OLD
        assert {log["event"] for log in logs} >= {"indexes were changed"}


async def is_building(connection: Any) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_stat_progress_create_index"))


async def all_there(connection: Any) -> bool:
    found = await valid(connection)
    return found >= NEW and not found & OLD


async def test_index_that_was_left_unfinished_is_built_again(url: str) -> None:
    await make_it_old(url)
    async with plain(url) as connection:
        await connection.execute("CREATE INDEX orders_open_index ON orders (position)")
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_open_index'::regclass"
        )
        async with open_database(url):
            await await_until(lambda: all_there(connection))
        definition = await connection.fetchval("SELECT pg_get_indexdef('orders_open_index'::regclass)")
    assert "WHERE" in definition


@pytest.mark.long
async def test_identity_is_found_and_unique_by_either_index(url: str) -> None:
    await make_it_old(url)
    identity = identity_of("/s", "1")
    async with plain(url) as connection:
        insert = (
            "INSERT INTO events (channel, seq, epoch, identity, content_digest, recorded_at, text)"
            " VALUES ('customer:a', $1, 1, $2, '', '2026-11-23T14:25:00.123Z', '{}')"
        )
        await connection.execute(insert, 1, identity)
        for _ in range(2):
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute(insert, 2, identity)
            async with open_database(url) as database:
                await await_until(lambda: all_there(connection))
                found = await database.read(partial(recording.find, source="/s", event_id="1"))
                assert found is not None


async def test_statistics_that_a_migration_dropped_are_collected_at_the_next_start(url: str) -> None:
    async with open_database(url), plain(url) as connection:
        for statement in as_of_postgres(500, 5_000, "'2026-11-23T14:25:00.123Z'"):
            await connection.execute(statement)
        await connection.execute("ANALYZE")
        # As migration 0003 does.
        await connection.execute("ALTER TABLE events ALTER COLUMN channel TYPE varchar(2000)")
        assert "channel" not in await known_columns(connection)
        with capture_logs() as logs:
            async with open_database(url):
                await await_until(
                    lambda: [log for log in logs if log["event"] == "statistics were collected"]
                )
        assert "channel" in await known_columns(connection)


async def known_columns(connection: Any) -> set[str]:
    rows = await connection.fetch("SELECT attname FROM pg_stats WHERE tablename = 'events'")
    return {row["attname"] for row in rows}


@pytest.mark.long
async def test_events_are_found_by_index_though_the_statistics_of_channels_are_missing(url: str) -> None:
    """They are missing after a migration or in a restored dump. Each batch read the whole table before."""
    async with open_database(url), plain(url) as connection:
        for statement in as_of_postgres(20_000, 60_000, "'2026-11-23T14:25:00.123Z'"):
            await connection.execute(statement)
        await connection.execute("ALTER TABLE events SET (autovacuum_enabled = false)")
        await connection.execute("ANALYZE")
        await connection.execute("ALTER TABLE events ALTER COLUMN channel TYPE varchar(2000)")
        wanted = [[n, f"customer:filled-{n}", 0, 3] for n in range(100)]
        reading = str(history._READ["postgresql"]).replace(":wanted", f"'{json.dumps(wanted)}'")
        old = {f"customer:filled-{n}": 3 for n in range(100)}
        deleting = str(pruning._DELETE_POSTGRES).replace(":old", f"'{json.dumps(old)}'")
        for name, value in (("server", "''"), ("floor", "0"), ("last", "9")):
            deleting = deleting.replace(f":{name}", value)
        for statement in (reading, deleting):
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}"))
            assert "Seq Scan on events" not in plan, plan
