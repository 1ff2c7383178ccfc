"""SQLite behind the two doors: one thread that writes, a few that read.

SQLite has one writer at a time, and the cost is the disk sync of each commit. So the writes that wait run
together in one transaction, each in a savepoint of its own, and are committed once: the more callers wait,
the less each pays (`sender.database.group_commit`). A thread of plain calls is also several times
cheaper than an async driver, which hops to a thread and back for every statement.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

from sender.database.errors import (
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
    DatabaseUnusable,
)
from sender.database.group_commit import GroupCommit
from sender.database.protocol import Pool
from sender.database.sqlite_checkpoints import Checkpoints
from sender.database.sqlite_connect import PRAGMAS, driver_of, engine_of, pragma
from sender.database.sqlite_errors import explain
from sender.database.sqlite_schema import INCREMENTAL, prepare
from shared.process.caller import caller_now, require_caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection

    from sender.database.group_commit import Job, Queue

logger = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    busy_seconds: float = 5  # how long another process may hold the lock before we report it
    max_together: int = 1_000  # rows in one transaction
    max_waiting: int = 5_000  # writes, and reads; beyond that, callers are refused at once
    readers: int = 3
    hurried_seconds: float = 0.5  # in place of busy_seconds when the process is about to end
    give_way_seconds: float = 0.02  # how long work that nobody waits for lets others go first
    close_seconds: float = 1  # at the end, for jobs that were queued before


USUAL = Limits()


# While one turn writes to disk, the next waits for the thread: no trip through the loop between commits.
_TURNS = 2

ROOM_BYTES = 128 * 1024  # the pages of some orders

_FREE_SHARE = 0.1  # of the file: free pages for new rows
_FREE_PAGES = 1_000  # at least: 4 MB
_RETURNED_PAGES = 100  # at a time


@asynccontextmanager
async def open_sqlite(path: str, limits: Limits = USUAL) -> AsyncIterator[SqliteDatabase]:
    """Raises `DatabaseUnusable` and `DatabaseError`."""
    if path == ":memory:":
        raise DatabaseUnusable("SQLite needs a file: a database in memory would be lost with the process")
    await asyncio.to_thread(prepare, path, busy_seconds=limits.busy_seconds)
    database = SqliteDatabase(path, limits)
    try:
        yield database
    finally:
        await database.close()


class SqliteDatabase:
    """Belongs to the loop it is made in."""

    def __init__(self, path: str, limits: Limits = USUAL) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._files = WatchedFiles(path)
        self._write_engine = engine_of(
            path,
            begin="BEGIN IMMEDIATE",
            busy_seconds=limits.busy_seconds,
            step_seconds=min(limits.hurried_seconds, limits.busy_seconds),
            hurried=lambda: self._hurried,
        )
        self._read_engine = engine_of(path, begin="BEGIN", busy_seconds=limits.busy_seconds)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._writing: Connection | None = None  # the writer's connection
        self._readers = ThreadPoolExecutor(limits.readers, thread_name_prefix="sqlite-reader")
        self._reader = threading.local()  # holds each thread's connection
        self._reading: list[Connection] = []  # the readers' connections
        self._group = GroupCommit(
            self._commit, turns=_TURNS, max_together=limits.max_together, max_waiting=limits.max_waiting
        )
        self._reads_waiting, self._max_waiting = 0, limits.max_waiting
        self._give_way_seconds, self._close_seconds = limits.give_way_seconds, limits.close_seconds
        self._hurried = False
        self._checkpoints = Checkpoints(self._connect_beside)
        self.write_together = self._group.write

    async def write(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        return await self._group.write(lambda connection, items: [work(connection)], None)

    async def write_when_idle(self, work: Callable[[Connection], T]) -> T:
        """The commit is synced after the lock is released, so that no caller's commit waits for that."""
        await self._group.wait_for_idle(self._give_way_seconds)
        outcome = await self._loop.run_in_executor(self._writer, self._run_unsynced, work)
        self._note_changes()
        if isinstance(outcome, Exception):
            raise outcome
        await asyncio.to_thread(sync, f"{self._path}-wal")
        return outcome  # type: ignore[no-any-return]

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Raises `DatabaseBusy` if too many wait."""
        if self._reads_waiting >= self._max_waiting:
            raise DatabaseBusy(f"{self._max_waiting} reads are waiting already")
        caller = caller_now.get()

        def run() -> T:  # in a reader's thread
            require_caller(caller)
            return self._read(work)

        self._reads_waiting += 1
        try:
            return await self._loop.run_in_executor(self._readers, run)
        finally:
            self._reads_waiting -= 1

    @property
    def pool(self) -> Pool:
        connections = [*self._reading, *([self._writing] if self._writing else [])]
        in_use = sum(connection.in_transaction() for connection in connections)
        return Pool(in_use, len(connections) - in_use)

    async def check(self) -> None:
        self._files.check()
        await self.read(lambda connection: connection.exec_driver_sql("SELECT epoch FROM generation").all())

    async def probe(self) -> None:
        """Write a page. There must be room for several: others could fail while one still fits."""
        await asyncio.to_thread(check_room, self._path)
        await self.write(_write_page)

    async def return_space(self) -> float | None:
        """A small part at a time: pages are moved, and callers wait for it."""
        return await self.write_when_idle(_return_space)

    def hurry(self) -> None:
        self._hurried = True

    def abandon(self) -> None:
        """Nothing to do: there is no server, and the writer waits at most `hurried_seconds` for the lock."""

    async def close(self) -> None:
        """Jobs that were queued before are finished first, if nobody else holds the lock."""
        self.hurry()
        await self._group.close(self._close_seconds)
        await self._checkpoints.close()
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in (*self._reading, *([self._writing] if self._writing else [])):
            connection.close()
        self._read_engine.dispose()
        self._write_engine.dispose()

    async def _commit(self, queue: Queue) -> None:
        jobs, outcomes = await self._loop.run_in_executor(self._writer, self._run_waiting, queue)
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.resolve(outcome)
        self._note_changes()

    def _note_changes(self) -> None:
        if self._writing is not None:
            self._checkpoints.note(driver_of(self._writing).total_changes)

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            connection: Connection | None = getattr(self._reader, "connection", None)
            if connection is None:
                self._files.check()  # opening a file that is away would make an empty one
                connection = self._reader.connection = self._read_engine.connect()
                self._reading.append(connection)
            with connection.begin():
                return work(connection)
        except (DBAPIError, sqlite3.Error) as error:
            raise explain(error) from error

    def _connect_beside(self) -> Connection:
        """In the thread that copies the log."""
        self._files.check()
        return self._read_engine.connect()

    # Everything below runs in the writer's thread.

    def _open_writing(self) -> Connection:
        self._files.check()
        self._writing = self._writing or self._write_engine.connect()
        return self._writing

    def _run_unsynced(self, work: Callable[[Connection], T]) -> Any:
        """The outcome of a transaction that is not yet on disk."""
        try:
            writing = self._open_writing()
            driver = driver_of(writing)
            driver.execute("PRAGMA synchronous=NORMAL")
            try:
                outcome = _run_one(writing, work)
            finally:
                driver.execute(f"PRAGMA synchronous={PRAGMAS['synchronous']}")
            self._files.check()
        except (DBAPIError, sqlite3.Error, DatabaseError) as error:
            return explain(error)
        return outcome

    def _run_waiting(self, queue: Queue) -> tuple[list[Job[Any, Any]], list[Any]]:
        """Run all jobs that wait when the thread is free; the jobs and their outcomes."""
        jobs = queue.take()
        try:
            writing = self._open_writing()
            outcomes = _run(writing, jobs) if jobs else []
            self._files.check()  # or the commit may have gone into deleted files
        except (DBAPIError, sqlite3.Error, DatabaseError) as error:
            return jobs, [explain(error)] * len(jobs)
        return jobs, outcomes


class WatchedFiles:
    """Whether the database's names still lead to the open files.

    After `rm orders.db*` SQLite goes on in files without a name, whose content is gone at the next start.
    """

    def __init__(self, path: str) -> None:
        self._names = (path, f"{path}-wal")  # the first transaction makes the log; it stays while we run
        self._known: dict[str, tuple[int, int]] = {}
        if (found := _identity(path)) is not None:
            self._known[path] = found
        self._gone = False

    def check(self) -> None:
        """Raises `DatabaseUnavailable`."""
        for name in self._names:
            found = _identity(name)
            if found is not None:
                self._known.setdefault(name, found)
            if found != self._known.get(name):
                self._note(gone=True, name=name)
                raise DatabaseUnavailable(f"{name} was removed or replaced under the running sender")
        self._note(gone=False)

    def _note(self, *, gone: bool, name: str = "") -> None:
        """Log a change of state, once."""
        if gone is not self._gone:
            self._gone = gone
            if gone:
                logger.error("the database file was removed or replaced; requests are refused", file=name)
            else:
                logger.warning("the database file is back")


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatabaseUnavailable(f"{name}: {error.strerror}") from error
    return found.st_dev, found.st_ino


class _TransactionLost(Exception):
    """SQLite itself rolled back the whole transaction, as it may when the disk is full."""


def _run(connection: Connection, jobs: Sequence[Job[Any, Any]]) -> list[Any]:
    """Run all jobs in one transaction; their outcomes. If the commit fails, all fail."""
    try:
        with connection.begin():
            return _run_groups(connection, jobs)
    except _TransactionLost as error:
        return [explain(error.__cause__ or error)] * len(jobs)
    except Exception as error:  # the thread must outlive a failed commit, whatever its reason
        # After a failed COMMIT, SQLite leaves the transaction open, while SQLAlchemy believes it closed.
        driver_of(connection).rollback()
        return [explain(error)] * len(jobs)


def _run_one(connection: Connection, work: Callable[[Connection], T]) -> T | Exception:
    try:
        with connection.begin():
            return work(connection)
    except Exception as error:  # as in `_run`
        driver_of(connection).rollback()
        return explain(error)


def _run_groups(connection: Connection, jobs: Sequence[Job[Any, Any]]) -> list[Any]:
    """Run jobs of the same work together."""
    groups: dict[Any, list[int]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault(job.work, []).append(number)
    outcomes: list[Any] = [None] * len(jobs)
    for work, numbers in groups.items():
        found = _run_group(connection, work, [jobs[n].item for n in numbers])
        for number, outcome in zip(numbers, found, strict=True):
            outcomes[number] = outcome
    return outcomes


def _run_group(connection: Connection, work: Callable[..., Any], items: Sequence[Any]) -> Sequence[Any]:
    # The driver's own savepoint costs a tenth of SQLAlchemy's.
    driver = driver_of(connection)
    driver.execute("SAVEPOINT job")
    try:
        outcomes: Sequence[Any] = work(connection, items)
    except Exception as error:  # this group's alone: the other groups go on
        if not driver.in_transaction:
            raise _TransactionLost from error
        driver.execute("ROLLBACK TO job")
        driver.execute("RELEASE job")
        if len(items) == 1:
            return [explain(error)]
        # One of them made all fail; find out which.
        return [_run_group(connection, work, [item])[0] for item in items]
    driver.execute("RELEASE job")
    return outcomes


def sync(path: str) -> None:
    """Write the file to disk. Raises `DatabaseUnavailable`."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise DatabaseUnavailable(f"{path}: {error.strerror}") from error


def check_room(path: str) -> None:
    """Raises `DatabaseFull` and `DatabaseUnavailable`."""
    try:
        found = os.statvfs(Path(path).absolute().parent)
    except OSError as error:
        raise DatabaseUnavailable(f"{path}: {error.strerror}") from error
    if found.f_bavail * found.f_frsize < ROOM_BYTES:
        raise DatabaseFull("the disk is full")


def _write_page(connection: Connection) -> None:
    """An UPDATE that changes nothing would not be written; this always is."""
    driver = driver_of(connection)
    driver.execute(f"PRAGMA user_version = {pragma(driver, 'user_version')}")


def _return_space(connection: Connection) -> float | None:
    driver = driver_of(connection)
    began = perf_counter()
    free, pages = pragma(driver, "freelist_count"), pragma(driver, "page_count")
    if free <= max(_FREE_PAGES, pages * _FREE_SHARE) or pragma(driver, "auto_vacuum") != INCREMENTAL:
        return None
    driver.execute(f"PRAGMA incremental_vacuum({_RETURNED_PAGES})").fetchall()
    return perf_counter() - began if pragma(driver, "freelist_count") < free else None
