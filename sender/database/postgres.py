"""PostgreSQL behind the two doors: asyncpg, a small pool, and the isolation that each door needs.

Writes run READ COMMITTED and take row locks in one order (an order's row, then channels by name), so they
do not deadlock; what the database still refuses (a deadlock, two callers recording the same event at the
same time) is run again. Reads see one snapshot, so that `as_of` and what was read with it belong together.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from sender.database.errors import DatabaseError, DatabaseFull, DatabaseUnavailable
from sender.database.group_commit import GroupCommit
from sender.database.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from sender.database.group_commit import Queue

logger = structlog.get_logger(__name__)

T = TypeVar("T")

ATTEMPTS = 5


@dataclass(frozen=True)
class Limits:
    pool_size: int = 10
    turns: int = 2  # batches at a time: while one waits for the disk, the other one's statements run
    max_together: int = 1_000  # rows in one transaction
    max_waiting: int = 5_000  # writes; beyond that, callers are sent away at once
    command_seconds: float = 10
    lock_seconds: float = 5


_MIGRATION_LOCK = 0x6F7264657262656C  # "orderbel": any number that nobody else uses
_RUN_AGAIN = frozenset({"40001", "40P01", "23505"})  # serialization failure, deadlock, unique violation
_FULL = frozenset({"53100"})
_BUSY = frozenset({"53000", "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "25006"})


@asynccontextmanager
async def open_postgres(url: str, limits: Limits = Limits()) -> AsyncIterator[PostgresDatabase]:
    engine = create_async_engine(
        make_url(url),
        pool_size=limits.pool_size,
        max_overflow=0,
        hide_parameters=True,  # they are payloads, and errors are logged
        pool_timeout=limits.lock_seconds,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": limits.lock_seconds,
            "command_timeout": limits.command_seconds,
            "server_settings": {
                "application_name": "orderbell",
                "lock_timeout": f"{limits.lock_seconds * 1000:.0f}",
            },
        },
    )
    try:
        async with _explained(), engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            await connection.run_sync(migrate)
        database = PostgresDatabase(engine, limits)
        try:
            yield database
        finally:
            await database.close()
    finally:
        await engine.dispose()


class PostgresDatabase:
    def __init__(self, engine: AsyncEngine, limits: Limits) -> None:
        self._write_engine = engine
        self._read_engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._group = GroupCommit(
            self._commit,
            turns=limits.turns,
            max_together=limits.max_together,
            max_waiting=limits.max_waiting,
        )
        self.write_together = self._group.write

    async def write(self, work: Callable[[Connection], T]) -> T:
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._write_once(work)
            except _RunAgain as refusal:
                logger.debug("transaction runs again", reason=str(refusal.__cause__))
        try:
            return await self._write_once(work)
        except _RunAgain as refusal:
            raise DatabaseUnavailable(f"refused {ATTEMPTS} times in a row") from refusal

    async def check(self) -> None:
        await self.read(lambda connection: connection.exec_driver_sql("SELECT epoch FROM generation").all())

    async def close(self) -> None:
        await self._group.close()

    async def _commit(self, queue: Queue) -> None:
        jobs = queue.take_alike()
        outcomes = await self._run_items(jobs[0].work, [job.item for job in jobs])
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.resolve(outcome)

    async def _run_items(self, work: Callable[..., Any], items: Sequence[Any]) -> Sequence[Any]:
        """Each item's outcome; an exception where it failed."""
        try:
            outcomes: Sequence[Any] = await self.write(lambda connection: work(connection, items))
        except DatabaseError as error:
            return [error] * len(items)
        except Exception as error:  # one of them spoilt it for all; find out which
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in await self._run_items(work, [item])]
        return outcomes

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with _explained(), self._read_engine.connect() as connection:
            return await connection.run_sync(work)

    async def _write_once(self, work: Callable[[Connection], T]) -> T:
        async with _explained(), self._write_engine.connect() as connection, connection.begin():
            return await self._run(connection, work)

    async def _run(self, connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
        try:
            return await connection.run_sync(work)
        except DBAPIError as error:
            # Before the commit nothing is stored, so it is safe to run again, also on a new connection.
            if error.connection_invalidated or _code(error) in _RUN_AGAIN:
                raise _RunAgain from error
            raise


class _RunAgain(Exception):
    """The work did no wrong and nothing of it is stored."""


@asynccontextmanager
async def _explained() -> AsyncIterator[None]:
    try:
        yield
    except DBAPIError as error:
        code = _code(error)
        if code in _FULL:
            raise DatabaseFull("the database's disk is full") from error
        if error.connection_invalidated or code in _BUSY or code.startswith("08"):
            raise DatabaseUnavailable(f"PostgreSQL: {error.orig}") from error
        raise
    except PoolTimeout as error:
        raise DatabaseUnavailable("no connection was free in time") from error
    except (OSError, TimeoutError) as error:  # asyncpg's own, while it connects or waits
        raise DatabaseUnavailable(f"PostgreSQL does not answer: {error}") from error


def _code(error: DBAPIError) -> str:
    """The SQLSTATE, or an empty text."""
    return str(getattr(error.orig, "sqlstate", None) or "")
