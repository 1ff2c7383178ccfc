"""Checkpoints: copy the log's pages into the database file, beside the writer instead of within its commits.

A commit that finds the log long copies it before it returns, and all callers wait: thousands of pages at
random places, and a sync of the file. So a thread of its own copies them earlier. Such a checkpoint
(SQLite calls it passive) delays no transaction. SQLite begins the log anew only when all of it was copied, so
the checkpoint is repeated for what was written meanwhile. `wal_autocheckpoint` remains as the bound
(sqlite_connect.py).
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import DBAPIError

from sender.database.errors import DatabaseError
from sender.database.sqlite_connect import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

logger = structlog.get_logger(__name__)

AFTER_CHANGES = 1_000  # rows; each changes a few pages
_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
_REPETITIONS = 5  # each has less to copy than the one before


class Checkpoints:
    """Belongs to the loop it is made in."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """`connect` opens the database; the connection is used in one thread, and closed with us."""
        self._connect = connect
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-checkpoints")
        self._loop = asyncio.get_running_loop()
        self._running: asyncio.Future[None] | None = None
        self._changes = 0  # by the writer's count, at our last beginning
        self._closed = False

    def note(self, changes: int) -> None:
        """So many rows have been changed since the writer's connection was opened."""
        if self._closed or (self._running is not None and not self._running.done()):
            return
        if changes - self._changes >= AFTER_CHANGES:
            self._changes = changes
            self._running = self._loop.run_in_executor(self._thread, self._copy)

    async def close(self) -> None:
        """A write that is still under way may note its changes afterwards."""
        self._closed = True
        if self._running is not None:
            await self._running
        await asyncio.to_thread(self._thread.shutdown)
        if self._connection is not None:
            self._connection.close()

    def _copy(self) -> None:
        try:
            self._connection = self._connection or self._connect()
            for _ in range(_REPETITIONS):
                _, pages, copied = driver_of(self._connection).execute(_CHECKPOINT).fetchone()
                if copied == pages:
                    return
        except (sqlite3.Error, DBAPIError, DatabaseError) as error:
            # The writer meets the same trouble, and reports it; its commits then copy the log.
            logger.debug("a checkpoint failed", reason=str(error))
