"""PostgreSQL behind the two doors: asyncpg, a small pool, and the isolation that each door needs.

Writes run READ COMMITTED and take row locks in one order (an order's row, then channels by name), so they
do not deadlock; work that the database still refuses (a deadlock, two callers recording the same event at the
same time) runs again. Reads see one snapshot, so `as_of` and what was read with it belong together.

A locked row delays only the requests that need it: a transaction waits for locks only a moment; then its
items run separately, and an item that still has to wait does so in one of a few lanes.

`postgres_errors` knows what each error means. When the server has gone or no longer takes writes, every
connection of the pool is dropped: they all lead to the same place.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sender.database.errors import (
    DatabaseBusy,
    DatabaseFault,
    DatabaseFull,
    DatabaseUnavailable,
    DatabaseUnusable,
    RowHeld,
)
from sender.database.group_commit import GroupCommit
from sender.database.postgres_connect import Connector, lock_seconds
from sender.database.postgres_errors import ERRORS, Meaning, line_of, meaning
from sender.database.postgres_indexes import build_in_time
from sender.database.postgres_schema import bring_up_to_date
from sender.database.protocol import Pool
from shared.process.caller import CallerLeft, caller_now, require_caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from sender.database.group_commit import Job, Queue
    from sender.database.postgres_connect import Session
    from shared.database_url import PostgresUrl
    from shared.process.caller import Caller

logger = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    pool_size: int = 10
    turns: int = 2  # batches at a time: while one waits for the disk, the statements of the other run
    lanes: int = 4  # for work that waits for locks; the rest of the pool is for work that need not
    max_together: int = 1_000  # rows in one transaction
    max_waiting: int = 5_000  # writes; beyond that, callers are refused at once
    attempts: int = 5
    connect_seconds: float = 3  # for each host
    command_seconds: float = 10
    lock_seconds: float = 5
    patience_seconds: float = 0.1  # for a lock, of work that delays others
    give_way_seconds: float = 0.02  # how long work that nobody waits for lets others go first
    idle_seconds: float = 10  # in a transaction, before the server ends the session and frees its locks
    close_seconds: float = 1  # at the end, for jobs that were queued before
    migration_seconds: float = 86_400  # for one command


USUAL = Limits()


@asynccontextmanager
async def open_postgres(
    url: PostgresUrl, schema: str, *, prepared_statements: bool | None = None, limits: Limits = USUAL
) -> AsyncIterator[PostgresDatabase]:
    """`prepared_statements` are kept between transactions; None: unless a pooler is detected."""
    if url.ignored:
        logger.info("options of the database's URL are ignored", names=list(url.ignored))
    connector = _connector(url, schema, limits)
    pooled = await _check_server(connector)
    if prepared_statements is None:
        prepared_statements = url.prepared_statements if url.prepared_statements is not None else not pooled
    async with maintenance(url, schema, limits) as engine:
        async with _explained():
            await bring_up_to_date(engine, schema)
        database = PostgresDatabase(connector, limits, prepared=prepared_statements)
        building = asyncio.create_task(build_in_time(engine, schema))
        try:
            yield database
        finally:
            building.cancel()
            await asyncio.wait([building])
            if not building.cancelled() and (error := building.exception()):
                logger.error("building indexes failed", exc_info=error)
            await database.close()


@asynccontextmanager
async def maintenance(url: PostgresUrl, schema: str, limits: Limits = USUAL) -> AsyncIterator[AsyncEngine]:
    """For migrations: commands may take long, and the transaction that holds the lock is idle."""
    patient = Connector(
        url,
        schema=schema,
        connect_seconds=limits.connect_seconds,
        command_seconds=limits.migration_seconds,
        idle_seconds=0,
    )
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={
            "async_creator_fn": _ignoring_arguments(patient, 0),
            "prepared_statement_cache_size": 0,
        },
    )
    try:
        yield engine
    finally:
        await engine.dispose()


class PostgresDatabase:
    """Belongs to the loop it is made in."""

    def __init__(self, connector: Connector, limits: Limits, *, prepared: bool) -> None:
        self._connector = connector
        self._limits = limits
        self._lanes = asyncio.Semaphore(limits.lanes)
        self._loop = asyncio.get_running_loop()
        self._owned: set[asyncio.Task[None]] = set()
        self._prepared = prepared
        self._hurried = False
        self._use_engine()
        self._group = GroupCommit(
            self._commit, turns=limits.turns, max_together=limits.max_together, max_waiting=limits.max_waiting
        )
        self.write_together = self._group.write

    async def write(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        started, caller = self._loop.time(), caller_now.get()
        try:
            return await self._write(work, self._limits.patience_seconds, caller)
        except RowHeld:
            if not patient:
                raise
        return await self._wait_in_lane(work, started, caller)

    async def write_when_idle(self, work: Callable[[Connection], T]) -> T:
        await self._group.wait_for_idle(self._limits.give_way_seconds)
        return await self.write(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        caller = caller_now.get()

        async def once() -> T:
            async with self._read_engine.connect() as connection:
                require_caller(caller)
                return await self._run(connection, work)

        return await self._again(once, self._limits.lock_seconds)

    @property
    def pool(self) -> Pool:
        pool: Any = self._write_engine.pool  # its class is not that of every engine
        return Pool(pool.checkedout(), pool.checkedin())

    async def check(self) -> None:
        """In a transaction like every write's, locking a row, which a standby refuses."""
        await self._write(lambda connection: connection.execute(_CHECK).all(), self._limits.patience_seconds)

    async def probe(self) -> None:
        """Write the row that `check` locks, as it is."""
        await self._write(lambda connection: connection.execute(_PROBE), self._limits.patience_seconds)

    async def return_space(self) -> float | None:
        """Autovacuum makes the space usable again."""
        return None

    def hurry(self) -> None:
        self._hurried = True

    def abandon(self) -> None:
        # Cancelling a transaction would wait for the server, which may be silent.
        self.hurry()
        self._connector.drop_all()

    async def close(self) -> None:
        """Jobs that were queued before are finished first, if the server answers."""
        await self._group.close(self._limits.close_seconds)
        if self._owned:
            await asyncio.wait(self._owned, timeout=self._limits.close_seconds)
        self.abandon()
        await self._group.wait_ended()
        while self._owned:
            await asyncio.wait(self._owned)
        await self._write_engine.dispose()

    # Together

    async def _commit(self, queue: Queue) -> None:
        jobs = queue.take_alike()
        try:
            for job, outcome in zip(jobs, await self._run_jobs(jobs), strict=True):
                if isinstance(outcome, RowHeld):  # only its caller goes on waiting
                    self._own(self._run_alone(job))
                else:
                    job.resolve(outcome)
        except asyncio.CancelledError:  # asyncpg's, when a connection ends; or ours, at shutdown
            for job in jobs:
                job.resolve(DatabaseUnavailable("PostgreSQL: the transaction was cut off"))
            raise

    async def _run_jobs(self, jobs: Sequence[Job[Any, Any]]) -> Sequence[Any]:
        """The outcome of each; an exception if it failed."""
        work, items = jobs[0].work, [job.item for job in jobs]
        try:
            outcomes: Sequence[Any] = await self._write(
                lambda connection: work(connection, items), self._limits.patience_seconds
            )
        except Exception as error:  # the turn must outlive whatever a caller's work raises
            everybodys = isinstance(error, DatabaseUnavailable | DatabaseFull) and not isinstance(
                error, RowHeld
            )
            if len(jobs) == 1 or everybodys:
                return [error] * len(jobs)
            # One of them made all fail; find out which.
            return [await self._run_job(job) for job in jobs]
        return outcomes

    async def _run_job(self, job: Job[Any, Any]) -> Any:
        """The outcome of one job of a batch. Those before it may have taken long, and its caller left."""
        if job.caller is not None and job.caller.left:
            return CallerLeft()
        (outcome,) = await self._run_jobs([job])
        return outcome

    async def _run_alone(self, job: Job[Any, Any]) -> None:
        try:
            (outcome,) = await self._wait_in_lane(
                lambda connection: job.work(connection, [job.item]), self._loop.time(), job.caller
            )
        except Exception as error:  # any error belongs to the caller
            outcome = error
        job.resolve(outcome)

    # Alone

    async def _wait_in_lane(
        self, work: Callable[[Connection], T], started: float, caller: Caller | None
    ) -> T:
        """Wait for another transaction's lock, a few at a time: the pool is for work that need not wait."""
        deadline = started + self._limits.lock_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._lanes.acquire()
        except TimeoutError:
            raise RowHeld("another transaction holds rows that this needs") from None
        try:
            require_caller(caller)
            rest = max(deadline - self._loop.time(), self._limits.patience_seconds)
            return await self._write(work, rest, caller)
        finally:
            self._lanes.release()

    async def _write(
        self, work: Callable[[Connection], T], patience: float, caller: Caller | None = None
    ) -> T:
        """The work is not begun if the caller has left by the time a connection is free."""

        async def once() -> T:
            async with self._write_engine.connect() as connection, connection.begin():
                require_caller(caller)
                return await self._run(connection, work)

        return await self._again(once, patience)

    async def _again(self, once: Callable[[], Coroutine[Any, Any, T]], patience: float) -> T:
        """Repeat it while it fails for a reason that another try may avoid."""
        attempt = 0
        while not attempt or (attempt < self._limits.attempts and not self._hurried):
            if attempt:
                # Without a random pause, two that collide would collide again.
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
            token = lock_seconds.set(patience)
            attempt += 1
            try:
                async with _explained():
                    return await once()
            except _RunAgain as refusal:
                cause = refusal.__cause__
                logger.debug("transaction runs again", reason=line_of(cause) if cause else "")
            finally:
                lock_seconds.reset(token)
        kind = DatabaseBusy if cause and meaning(cause) is Meaning.OVERTAKEN else DatabaseUnavailable
        raise kind(f"refused {attempt} times in a row: {line_of(cause) if cause else ''}") from cause

    async def _run(self, connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
        try:
            return await connection.run_sync(work)
        except ERRORS as error:
            # Before the commit nothing is stored, so running again is safe, even on a new connection.
            if meaning(error) in _AGAIN:
                raise _RunAgain from error
            raise

    # Connections

    def _use_engine(self) -> None:
        size = 100 if self._prepared else 0
        engine = create_async_engine(
            "postgresql+asyncpg://",
            pool_size=self._limits.pool_size,
            max_overflow=0,
            hide_parameters=True,  # they are payloads, and errors are logged
            pool_timeout=self._limits.lock_seconds,
            isolation_level="READ COMMITTED",
            connect_args={
                "async_creator_fn": _ignoring_arguments(self._connector, size),
                "prepared_statement_cache_size": size,
            },
        )
        event.listen(engine.sync_engine, "handle_error", self._judge)
        self._write_engine = engine
        self._read_engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    def _judge(self, context: ExceptionContext) -> None:
        """Decide which connections an error ends. SQLAlchemy itself drops only closed ones."""
        error = context.original_exception
        means = meaning(error)
        if means is Meaning.SERVER_GONE:
            context.is_disconnect = True
        elif means in (Meaning.CONNECTION_SPOILT, Meaning.UNPREPARED):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
        if means is Meaning.UNPREPARED and self._prepared:
            logger.warning(
                "a pooler shares PostgreSQL's sessions: statements are no longer prepared by name",
                reason=line_of(error),
            )
            self._prepared = False
            self._own(_retire(self._write_engine))
            self._use_engine()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)


async def _retire(engine: AsyncEngine) -> None:
    """Wait for connections in use: a pool that is disposed of forgets them."""
    while engine.pool.checkedout():  # type: ignore[attr-defined] # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.05)
    await engine.dispose()


def _connector(url: PostgresUrl, schema: str, limits: Limits) -> Connector:
    return Connector(
        url,
        schema=schema,
        connect_seconds=limits.connect_seconds,
        command_seconds=limits.command_seconds,
        idle_seconds=limits.idle_seconds,
    )


def _ignoring_arguments(connector: Connector, size: int) -> Callable[..., Coroutine[Any, Any, Session]]:
    """A connect function that ignores SQLAlchemy's arguments: its URL is empty."""

    async def connect(*_: object, **__: object) -> Session:
        return await connector.connect(statement_cache_size=size)

    return connect


async def _check_server(connector: Connector) -> bool:
    """Whether we are connected to a pooler. Raises `DatabaseUnusable`."""
    session = await connector.connect()
    try:
        encoding = session.get_settings().server_encoding
        if encoding != "UTF8":
            raise DatabaseUnusable(
                f"the database's encoding is {encoding}; it must be UTF8: CREATE DATABASE … ENCODING 'UTF8'"
            )
        async with _explained(), session.transaction():
            backend = await session.fetchval("SELECT pg_backend_pid()")
            if await session.fetchval("SHOW synchronous_commit") == "off":
                logger.warning(
                    "synchronous_commit is off here; our transactions turn it on, except those of retention"
                )
                connector.insist_on_durable_commits()
        # A pooler announces process ids of its own, for cancelling.
        return bool(backend != session.get_server_pid())
    finally:
        session.terminate()


class _RunAgain(Exception):
    """The work was not at fault, and nothing of it is stored."""


_AGAIN = frozenset({Meaning.OVERTAKEN, Meaning.SERVER_GONE, Meaning.CONNECTION_SPOILT, Meaning.UNPREPARED})
_CHECK = text("SELECT epoch FROM generation FOR KEY SHARE SKIP LOCKED")
_PROBE = text(
    "UPDATE generation SET epoch = epoch"
    " WHERE id IN (SELECT id FROM generation FOR NO KEY UPDATE SKIP LOCKED)"
)


@asynccontextmanager
async def _explained() -> AsyncIterator[None]:
    """Turn whatever the database raises into one of our errors: none may end the process."""
    try:
        yield
    except ERRORS as error:
        raise _explain(error) from error


def _explain(error: Exception) -> Exception:
    means = meaning(error)
    if means is Meaning.FULL:
        return DatabaseFull("the database's disk is full")
    if means is Meaning.HELD:
        return RowHeld("another transaction holds rows that this needs")
    if means is Meaning.BUSY:
        return DatabaseBusy(f"PostgreSQL: {line_of(error)}")
    if means is Meaning.UNEXPECTED:
        logger.error("PostgreSQL refused a statement that should work", reason=line_of(error))
        return DatabaseFault(f"PostgreSQL: {line_of(error)}")
    return DatabaseUnavailable(f"PostgreSQL: {line_of(error)}")
