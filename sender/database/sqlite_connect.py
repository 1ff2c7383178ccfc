"""How SQLite's file is opened, and what every connection to it begins with."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

from sqlalchemy import URL, create_engine, event
from sqlalchemy.pool import NullPool

from sender.database.errors import DatabaseUnusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

_RETRY_SECONDS = 0.01
PRAGMAS: dict[str, str | int] = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: with NORMAL, a power failure may lose commits that were answered
    "foreign_keys": 1,
    "cache_size": -65_536,  # KiB; the index of digests is read at random
    "wal_autocheckpoint": 16_000,  # pages: 64 MB; sqlite_checkpoints.py copies them earlier
}


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def engine_of(
    path: str,
    *,
    begin: str,
    busy_seconds: float,
    step_seconds: float | None = None,
    hurried: Callable[[], bool] = lambda: False,
) -> Engine:
    """A transaction waits `busy_seconds` for the lock; once `hurried()`, at most `step_seconds` more."""
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
        driver.execute(f"PRAGMA busy_timeout={(step_seconds or busy_seconds) * 1000:.0f}")
        for name, value in PRAGMAS.items():
            _set_pragma(driver, name, value, busy_seconds)
        driver.execute(f"PRAGMA query_only={reading:d}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        driver = driver_of(connection)  # as with savepoints, see _run_group
        deadline = time.monotonic() + busy_seconds
        while True:
            try:
                driver.execute(begin)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or hurried() or time.monotonic() >= deadline:
                    raise
            else:
                return

    return engine


def _set_pragma(driver: sqlite3.Connection, name: str, value: str | int, busy_seconds: float) -> None:
    """SQLite doesn't wait where two connections change a new file's journal mode at the same time."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            driver.execute(f"PRAGMA {name}={value}")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Also where another process recovers the log; the lowest byte has the kind of an error."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def pragma(driver: sqlite3.Connection, name: str) -> int:
    return int(driver.execute(f"PRAGMA {name}").fetchone()[0])


def check_pragmas(connection: Connection) -> None:
    driver = driver_of(connection)
    for name, wanted in PRAGMAS.items():
        (found,) = driver.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            raise DatabaseUnusable(f"SQLite does not accept PRAGMA {name}={wanted} here; it stays {found}")
