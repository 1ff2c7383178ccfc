"""SQLite behind the two doors: one thread that writes, a few that read.

SQLite has one writer at a time, and the cost is the disk sync of each commit. So the writes that wait run
together in one transaction, each in a savepoint of its own, and are committed once: the more callers wait,
the less each pays (`sender.database.group_commit`). A thread of plain calls is also several times
cheaper than an async driver, which hops to a thread and back for every statement.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy import URL, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sender.database import migrations
from sender.database.errors import DatabaseError, DatabaseFull, DatabaseUnavailable, DatabaseUnusable
from sender.database.group_commit import GroupCommit
from sender.database.migrations import Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection, Engine

    from sender.database.group_commit import Job, Queue

logger = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    busy_seconds: float = 5  # how long another process may hold the lock before we report it
    max_together: int = 1_000  # rows in one transaction
    max_waiting: int = 5_000  # writes; beyond that, callers are refused at once
    readers: int = 3


USUAL = Limits()

# While one turn writes to disk, the next waits for the thread: no trip through the loop between commits.
_TURNS = 2

_FREE_SHARE = 0.1  # of the file: free pages for new rows
_FREE_PAGES = 1_000  # at least: 4 MB
_RETURNED_PAGES = 100  # at a time
_SPARE_BYTES = 2**26
_LOGGED_BYTES = 2**26
_REWRITTEN_BYTES = 2**31  # at a start: larger ones would take minutes
_INCREMENTAL = 2  # the mode of auto_vacuum in which we return pages when it suits us

_PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: with NORMAL, a power failure may lose commits that were answered
    "foreign_keys": 1,
    "cache_size": -65_536,  # KiB; the index of digests is read at random
    "wal_autocheckpoint": 4_000,  # pages: 16 MB
}


@asynccontextmanager
async def open_sqlite(path: str, limits: Limits = USUAL) -> AsyncIterator[SqliteDatabase]:
    """Raises `DatabaseUnusable` and `DatabaseError`."""
    if path == ":memory:":
        raise DatabaseUnusable("SQLite needs a file: a database in memory would be lost with the process")
    await asyncio.to_thread(_prepare, path, limits)
    database = SqliteDatabase(path, limits)
    try:
        yield database
    finally:
        await database.close()


class SqliteDatabase:
    """Belongs to the loop it is made in."""

    def __init__(self, path: str, limits: Limits = USUAL) -> None:
        self._loop = asyncio.get_running_loop()
        self._files = WatchedFiles(path)
        self._write_engine = _engine(path, limits, begin="BEGIN IMMEDIATE")
        self._read_engine = _engine(path, limits, begin="BEGIN")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._writing: Connection | None = None  # the writer's connection
        self._readers = ThreadPoolExecutor(limits.readers, thread_name_prefix="sqlite-reader")
        self._reader = threading.local()  # holds each thread's connection
        self._reading: list[Connection] = []  # the readers' connections
        self._group = GroupCommit(
            self._commit, turns=_TURNS, max_together=limits.max_together, max_waiting=limits.max_waiting
        )
        self.write_together = self._group.write

    async def write(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        return await self._group.write(lambda connection, items: [work(connection)], None)

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._loop.run_in_executor(self._readers, self._read, work)

    async def check(self) -> None:
        self._files.check()
        await self.read(lambda connection: connection.exec_driver_sql("SELECT epoch FROM generation").all())

    async def return_space(self) -> float | None:
        """A small part at a time: pages are moved, and callers wait for it."""
        return await self.write(_return_space)

    async def close(self) -> None:
        """Jobs that were queued before are finished first."""
        await self._group.close()
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

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            connection: Connection | None = getattr(self._reader, "connection", None)
            if connection is None:
                connection = self._reader.connection = self._read_engine.connect()
                self._reading.append(connection)
            with connection.begin():
                return work(connection)
        except (DBAPIError, sqlite3.Error) as error:
            raise _explain(error) from error

    # Everything below runs in the writer's thread.

    def _run_waiting(self, queue: Queue) -> tuple[list[Job[Any, Any]], list[Any]]:
        """Run all jobs that wait when the thread is free; the jobs and their outcomes."""
        jobs = queue.take()
        try:
            self._files.check()
            self._writing = self._writing or self._write_engine.connect()
            outcomes = _run(self._writing, jobs) if jobs else []
            self._files.check()  # or the commit may have gone into deleted files
        except (DBAPIError, sqlite3.Error, DatabaseError) as error:
            return jobs, [_explain(error)] * len(jobs)
        return jobs, outcomes


class WatchedFiles:
    """Whether the database's names still lead to the open files.

    After `rm orders.db*` SQLite goes on in files without a name, whose content is gone at the next start.
    """

    def __init__(self, path: str) -> None:
        self._names = (path, f"{path}-wal")  # the first transaction makes the log; it stays while we run
        self._known: dict[str, tuple[int, int]] = {}
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
        return [_explain(error.__cause__ or error)] * len(jobs)
    except Exception as error:  # the thread must outlive a failed commit, whatever its reason
        # After a failed COMMIT, SQLite leaves the transaction open, while SQLAlchemy believes it closed.
        _driver(connection).rollback()
        return [_explain(error)] * len(jobs)


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
    driver = _driver(connection)
    driver.execute("SAVEPOINT job")
    try:
        outcomes: Sequence[Any] = work(connection, items)
    except Exception as error:  # this group's alone: the other groups go on
        if not driver.in_transaction:
            raise _TransactionLost from error
        driver.execute("ROLLBACK TO job")
        driver.execute("RELEASE job")
        if len(items) == 1:
            return [_explain(error)]
        # One of them made all fail; find out which.
        return [_run_group(connection, work, [item])[0] for item in items]
    driver.execute("RELEASE job")
    return outcomes


def _return_space(connection: Connection) -> float | None:
    driver = _driver(connection)
    began = perf_counter()
    free, pages = _pragma(driver, "freelist_count"), _pragma(driver, "page_count")
    if free <= max(_FREE_PAGES, pages * _FREE_SHARE) or _pragma(driver, "auto_vacuum") != _INCREMENTAL:
        return None
    driver.execute(f"PRAGMA incremental_vacuum({_RETURNED_PAGES})").fetchall()
    return perf_counter() - began if _pragma(driver, "freelist_count") < free else None


def _pragma(driver: sqlite3.Connection, name: str) -> int:
    return int(driver.execute(f"PRAGMA {name}").fetchone()[0])


def _prepare(path: str, limits: Limits) -> None:
    """Create the file and the schema, and check that SQLite can keep what we promise."""
    engine = _engine(path, limits, begin="BEGIN IMMEDIATE")
    try:
        with engine.connect() as connection:
            _check_pragmas(connection)
            with connection.begin():
                _bring_up_to_date(connection, path)
            _let_it_shrink(connection, path)
    except (DBAPIError, sqlite3.Error) as error:
        raise _explain_start(error, path) from error
    finally:
        engine.dispose()


def _let_it_shrink(connection: Connection, path: str) -> None:
    """Files of earlier versions or other programs: their mode changes only if all pages are rewritten."""
    driver = _driver(connection)
    if _pragma(driver, "auto_vacuum") == _INCREMENTAL:
        return
    size, began = os.stat(path).st_size, perf_counter()
    if size > _REWRITTEN_BYTES:
        logger.warning(
            "the database file cannot shrink; to let it, stop the sender and run in sqlite3:"
            " PRAGMA auto_vacuum = 2; VACUUM;",
            bytes=size,
        )
        return
    if shutil.disk_usage(Path(path).absolute().parent).free < 2 * size + _SPARE_BYTES:
        logger.warning("too little disk space to rewrite the database file: it cannot shrink", bytes=size)
        return
    if size > _LOGGED_BYTES:
        logger.info("the database file is rewritten once, so that it can shrink", bytes=size)
    driver.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    try:
        driver.execute("VACUUM")
    except sqlite3.OperationalError as error:  # for example a backup reads it; the next start tries again
        logger.warning("the database file could not be rewritten: it cannot shrink", reason=str(error))
        return
    if size > _LOGGED_BYTES:
        logger.info("the database file was rewritten", seconds=round(perf_counter() - began, 1))


def _bring_up_to_date(connection: Connection, path: str) -> None:
    version = migrations.read_version(connection)
    standing = migrations.look(connection, version)
    newest = migrations.newest_version()
    if standing is Standing.EMPTY and (others := inspect(connection).get_table_names()):
        raise DatabaseUnusable(f"{path} is another program's database: it has the table {others[0]}")
    if standing in (Standing.EMPTY, Standing.BEHIND):
        migrations.migrate(connection)
    elif standing is Standing.NEWER:
        logger.warning(
            "the database's schema is from a later release, and has all that this one needs",
            found=version,
            ours=newest,
        )
    elif standing is Standing.FOREIGN:
        raise DatabaseUnusable(
            f"{path} is at version {version!r}, which this release (up to {newest}) does not know, and lacks "
            "tables or columns that it needs: it belongs to another program, or to a much later release"
        )


def _explain_start(error: DBAPIError | sqlite3.Error, path: str) -> Exception:
    """What is wrong with the file, for the operator."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    directory = Path(path).absolute().parent
    if code == sqlite3.SQLITE_NOTADB:
        return DatabaseUnusable(f"{path} is not a SQLite database")
    if code == sqlite3.SQLITE_CANTOPEN and not directory.is_dir():
        return DatabaseUnusable(f"unable to open database file {path}: there is no directory {directory}")
    if code == sqlite3.SQLITE_CANTOPEN and Path(path).is_dir():
        return DatabaseUnusable(f"unable to open database file {path}: it is a directory")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return DatabaseUnusable(
            f"unable to open database file {path} for writing ({original}): "
            "it and its directory must be writable for this user"
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return DatabaseUnusable(f"{path} is damaged ({original}); restore a backup")
    return _explain(error)


def _check_pragmas(connection: Connection) -> None:
    driver = _driver(connection)
    for name, wanted in _PRAGMAS.items():
        (found,) = driver.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            raise DatabaseUnusable(f"SQLite does not accept PRAGMA {name}={wanted} here; it stays {found}")


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _engine(path: str, limits: Limits, *, begin: str) -> Engine:
    reading = begin == "BEGIN"
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=path),
        poolclass=NullPool,
        hide_parameters=True,  # they are payloads, and errors are logged
        # Python's module would begin transactions by itself, and too late; we begin them.
        connect_args={"isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(driver: sqlite3.Connection, _record: object) -> None:
        driver.execute(f"PRAGMA busy_timeout={limits.busy_seconds * 1000:.0f}")
        for name, value in _PRAGMAS.items():
            driver.execute(f"PRAGMA {name}={value}")
        driver.execute(f"PRAGMA query_only={reading:d}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        _driver(connection).execute(begin)  # as with savepoints, see _run_group

    return engine


def _explain(error: BaseException) -> Exception:
    """The error for the caller; one that is not the database's stays as it is."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, sqlite3.OperationalError | sqlite3.DatabaseError):
        return error if isinstance(error, Exception) else DatabaseError(str(error))
    if isinstance(original, sqlite3.IntegrityError):
        return error if isinstance(error, Exception) else original
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # the lower byte is the kind
    if code == sqlite3.SQLITE_FULL:
        return DatabaseFull("the disk is full")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseUnavailable("another process keeps the database locked")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return DatabaseUnavailable(str(original))
    return error if isinstance(error, Exception) else original
