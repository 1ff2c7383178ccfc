"""PostgreSQL's indexes on tables that may be large: built while senders work; then older ones are dropped.

A migration changes only the catalogue, in a moment; building an index over millions of rows takes minutes,
and callers would have to wait. So on a database with rows, indexes are built afterwards, one after the other,
while all senders work. Until then the earlier indexes serve: each statement can use either.

Building is resumable: an unfinished index is invalid, and is built again. One process builds; the others
check until all indexes are there.

Statistics come first. PostgreSQL drops a column's when its type changes (migration 0003), and a dump has
none; autovacuum sees no reason to collect them before much of the table has changed. Until then the planner
believes that each channel has a two-hundredth of all events, and may read the whole table for one.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import structlog
from sqlalchemy import text

from sender.database.postgres_connect import lock_seconds
from sender.database.postgres_errors import ERRORS, Meaning, line_of, meaning
from sender.database.tables import IDENTITY_AS_UUID

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

logger = structlog.get_logger(__name__)

_LOCK = 0x6F7264657262656D  # "orderbem": the migration's lock is its neighbour
_AGAIN_SECONDS = 5.0
_REPORT_SECONDS = 10.0
_LOCK_SECONDS = 1.1  # an autovacuum gives way after PostgreSQL's deadlock_timeout of a second


class Index(NamedTuple):
    name: str
    on: str  # SQL: the table, and what follows
    unique: bool = False
    replaces: tuple[str, ...] = ()


_COMPLETED = "WHERE status = 'completed' AND cancelled_at IS NULL"
_CANCELLED = "WHERE cancelled_at IS NOT NULL"
INDEXES = (
    Index("orders_completed_index", f"orders (position) {_COMPLETED}"),
    Index("orders_cancelled_index", f"orders (position) {_CANCELLED}"),
    Index("orders_customer_id_completed_index", f"orders (customer_id, position) {_COMPLETED}"),
    Index("orders_customer_id_cancelled_index", f"orders (customer_id, position) {_CANCELLED}"),
    Index("orders_open_index", "orders (position) WHERE status = 'open'", replaces=("orders_status_index",)),
    Index(
        "orders_customer_id_open_index",
        "orders (customer_id, position) WHERE status = 'open'",
        replaces=("orders_customer_id_status_index", "orders_customer_id_position_index"),
    ),
    Index(
        "events_identity_uuid_index",
        f"events (({IDENTITY_AS_UUID}))",
        unique=True,
        replaces=("events_identity_key",),
    ),
    Index("revocations_kept_until_index", "revocations (kept_until)"),
    Index("dead_letters_channel_index", "dead_letters (channel)"),
)


async def build_in_time(engine: AsyncEngine, schema: str) -> None:
    """Until all indexes are there, or this role may not build them."""
    while True:
        try:
            if await build(engine, schema):
                return
        except ERRORS as error:
            if meaning(error) is Meaning.REFUSED:
                logger.warning(
                    "indexes are missing, and this role may not build them: run `orderbell migrate`",
                    reason=line_of(error),
                )
                return
            logger.info("indexes cannot be built now", reason=line_of(error))
        await asyncio.sleep(_AGAIN_SECONDS)


async def build(engine: AsyncEngine, schema: str) -> bool:
    """False if another process is building."""
    async with engine.connect() as connection:
        if not await _work(connection, schema):
            return True
    async with engine.connect() as locking, locking.begin():
        if not (await locking.execute(_TAKE_LOCK, {"lock": _LOCK})).scalar_one():
            return False
        # The last statement would keep its snapshot, and building an index waits for that.
        driver = (await locking.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute("SELECT 1")
        async with engine.connect() as connection:
            work = await _work(connection, schema)
        reporting = asyncio.create_task(_report(engine))
        try:
            for statement in work:
                await _run(engine, statement)
        finally:
            reporting.cancel()
            await asyncio.wait([reporting])
    return True


async def _work(connection: AsyncConnection, schema: str) -> list[str]:
    """The statements that are left to run."""
    rows = await connection.execute(_FOUND, {"schema": schema})
    valid = {str(row.name): bool(row.valid) for row in rows}
    await connection.rollback()
    unknown = (await connection.execute(_UNKNOWN, {"schema": schema})).scalars().all()
    await connection.rollback()
    work = [f'ANALYZE "{schema}".{table}' for table in unknown]
    for index in INDEXES:
        if valid.get(index.name) is False:
            work.append(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{index.name}')
        if not valid.get(index.name):
            unique = "UNIQUE " if index.unique else ""
            work.append(f'CREATE {unique}INDEX CONCURRENTLY {index.name} ON "{schema}".{index.on}')
        for old in index.replaces:
            if old not in valid:
                continue
            if old.endswith("_key"):  # a constraint's; it has no CONCURRENTLY, and takes a moment
                work.append(f'ALTER TABLE "{schema}".{index.on.split()[0]} DROP CONSTRAINT IF EXISTS {old}')
            else:
                work.append(f'DROP INDEX CONCURRENTLY IF EXISTS "{schema}".{old}')
    return work


async def _run(engine: AsyncEngine, statement: str) -> None:
    began = monotonic()
    async with engine.connect() as connection:
        if "CONCURRENTLY" in statement:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await _take_time(connection)
        token = lock_seconds.set(_LOCK_SECONDS)
        try:
            await connection.execute(text(statement))
            await connection.commit()
        finally:
            lock_seconds.reset(token)
    what = "statistics were collected" if statement.startswith("ANALYZE") else "indexes were changed"
    logger.info(what, statement=statement, seconds=round(monotonic() - began, 1))


async def _take_time(connection: AsyncConnection) -> None:
    """Lift an administrator's time limits, which would end each index half-built, again and again.

    No transaction could set them for it, only the session; and a pooler's session is not ours to change.
    """
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    if await driver.fetchval("SELECT pg_backend_pid()") == driver.get_server_pid():
        await driver.execute("SET statement_timeout = 0; SET lock_timeout = 0")


async def _report(engine: AsyncEngine) -> None:
    """Log how far an index is, until cancelled."""
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        try:
            async with engine.connect() as connection:
                for row in await connection.execute(_PROGRESS):
                    logger.info("an index is being built", phase=row.phase, done=row.done, of=row.total)
        except ERRORS as error:
            logger.debug("the progress of the index cannot be read", reason=line_of(error))


_TAKE_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
_FOUND = text(
    """
    SELECT c.relname AS name, i.indisvalid AS valid FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema
    """
)
# Of tables with more than a few pages: columns by which many rows are found.
_UNKNOWN = text(
    """
    SELECT DISTINCT c.relname FROM (VALUES
        ('events', 'channel'), ('channels', 'channel'), ('orders', 'customer_id'), ('orders', 'order_id')
    ) AS needed (relation, attribute)
    JOIN pg_class c ON c.relname = needed.relation AND c.relkind = 'r'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = :schema
    WHERE pg_relation_size(c.oid) > 100 * 8192 AND NOT EXISTS (
        SELECT FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname
            AND s.attname = needed.attribute)
    """
)
_PROGRESS = text(
    """
    SELECT phase, greatest(blocks_done, tuples_done) AS done, greatest(blocks_total, tuples_total) AS total
    FROM pg_stat_progress_create_index WHERE datname = current_database()
    """
)
