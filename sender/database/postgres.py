"""PostgreSQL behind the two doors: asyncpg, a small pool, and the isolation that each door needs.

Writes run READ COMMITTED and take row locks in one order (an order's row, then channels by name), so they
do not deadlock; what the database still refuses (a deadlock, two callers recording the same event at the
same time) is run again. Reads see one snapshot, so that `as_of` and what was read with it belong together.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from sender.database.migrations import migrate
from sender.database.open import MAX_TOGETHER, DatabaseError, DatabaseFull, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

logger = structlog.get_logger(__name__)

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

ATTEMPTS = 5
POOL_SIZE = 10
TURNS = 2  # batches at a time: while one waits for the disk, the other one's statements run
COMMAND_SECONDS = 10
LOCK_SECONDS = 5

_MIGRATION_LOCK = 0x6F7264657262656C  # "orderbel": any number that nobody else uses
_RUN_AGAIN = frozenset({"40001", "40P01", "23505"})  # serialization failure, deadlock, unique violation
_FULL = frozenset({"53100"})
_BUSY = frozenset({"53000", "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "25006"})


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[PostgresDatabase]:
    engine = create_async_engine(
        make_url(url),
        pool_size=POOL_SIZE,
        max_overflow=0,
        hide_parameters=True,  # they are payloads, and errors are logged
        pool_timeout=LOCK_SECONDS,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": LOCK_SECONDS,
            "command_timeout": COMMAND_SECONDS,
            "server_settings": {"application_name": "orderbell", "lock_timeout": str(LOCK_SECONDS * 1000)},
        },
    )
    try:
        async with _explained(), engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            await connection.run_sync(migrate)
        yield PostgresDatabase(engine)
    finally:
        await engine.dispose()


class PostgresDatabase:
    def __init__(self, engine: AsyncEngine) -> None:
        self._write_engine = engine
        self._read_engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._waiting: dict[Callable[..., Any], list[_Job[Any, Any]]] = {}
        self._turns = asyncio.Semaphore(TURNS)

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

    async def write_together(
        self, work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]], item: I, *, size: int = 1
    ) -> R:
        job: _Job[I, R] = _Job(item, size, asyncio.get_running_loop().create_future())
        waiting = self._waiting.setdefault(work, [])
        waiting.append(job)
        # Few have their turn at a time, and each takes along all who wait: as many round trips for
        # twenty as for one. Whoever was taken along finds nothing left to do.
        async with self._turns:
            if job in waiting:
                await self._run_jobs(work, _take(waiting))
        return await job.done

    async def _run_jobs(self, work: Callable[..., Any], batch: Sequence[_Job[Any, Any]]) -> None:
        items = [job.item for job in batch]
        try:
            for job, outcome in zip(batch, await self._run_items(work, items), strict=True):
                if not job.done.done():  # its caller was cancelled
                    job.resolve(outcome)
        finally:
            for job in batch:
                job.done.cancel()  # where this caller, who runs it for all, was cancelled

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


@dataclass(frozen=True, slots=True, eq=False)
class _Job(Generic[I, R]):
    item: I
    size: int
    done: asyncio.Future[R]

    def resolve(self, outcome: R | Exception) -> None:
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


def _take(waiting: list[_Job[Any, Any]]) -> list[_Job[Any, Any]]:
    """Those that share the next transaction; at least one."""
    count, size = 0, 0
    while count < len(waiting) and size < MAX_TOGETHER:
        size += waiting[count].size
        count += 1
    taken, waiting[:] = waiting[:count], waiting[count:]
    return taken


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
        raise DatabaseUnavailable(f"no connection was free for {LOCK_SECONDS} s") from error
    except (OSError, TimeoutError) as error:  # asyncpg's own, while it connects or waits
        raise DatabaseUnavailable(f"PostgreSQL does not answer: {error}") from error


def _code(error: DBAPIError) -> str:
    """The SQLSTATE, or an empty text."""
    return str(getattr(error.orig, "sqlstate", None) or "")
