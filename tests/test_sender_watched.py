"""A database that takes no writes is known by the writes that failed, and found again by a probe."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from sender.database import sqlite
from sender.database.errors import DatabaseDamaged, DatabaseFull, DatabaseUnavailable
from sender.database.open import open_database
from sender.database.watched import WatchedDatabase
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orderbell.db"


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[WatchedDatabase]:
    async with sqlite.open_sqlite(str(path), sqlite.Limits(busy_seconds=0.05)) as opened:
        watched = WatchedDatabase(opened, probe_seconds=0.02)
        running = asyncio.create_task(watched.run())
        yield watched
        running.cancel()


def touch(connection: Connection) -> int:
    return connection.execute(text("UPDATE generation SET epoch = epoch + 1")).rowcount


async def takes_writes(database: WatchedDatabase) -> bool:
    try:
        await database.check()
    except DatabaseUnavailable:
        return False
    return True


async def test_lock_that_another_keeps_is_no_readiness_until_it_is_released(path: Path) -> None:
    async with watching(path) as database:
        with closing(sqlite3.connect(path, isolation_level=None)) as other, capture_logs() as logs:
            other.execute("BEGIN IMMEDIATE")
            assert await takes_writes(database)  # nobody has written yet
            with pytest.raises(DatabaseUnavailable):
                await database.write(touch)
            with pytest.raises(DatabaseUnavailable, match="takes no writes: another process keeps"):
                await database.check()
            with pytest.raises(DatabaseUnavailable):
                await database.write_together(lambda connection, items: [touch(connection)], None)
            other.execute("COMMIT")
            await await_until(partial(takes_writes, database))
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("error", "the database takes no writes; requests are refused"),
        ("warning", "the database takes writes again"),
    ]


async def test_full_disk_is_over_only_when_there_is_room_for_orders(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another small write that succeeds does not end it."""
    free = 4096

    def statvfs(where: Path) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 300, free // 4096, free // 4096, 9, 9, 9, 0, 255))

    def fill(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE filler AS SELECT zeroblob(999999) AS bytes"))

    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    async with watching(path) as database:
        monkeypatch.setattr(os, "statvfs", statvfs)
        await database.write(partial(limit, pages=1))  # no more than there are
        with pytest.raises(DatabaseFull):
            await database.write(fill)
        await database.write(touch)
        with pytest.raises(DatabaseUnavailable, match="the database takes no writes: the disk is full"):
            await database.check()
        free = 1_000_000
        await await_until(partial(takes_writes, database))


async def test_too_many_waiting_writes_are_no_fault_of_the_database(path: Path) -> None:
    few = sqlite.Limits(max_waiting=1)
    async with sqlite.open_sqlite(str(path), few) as opened:
        database = WatchedDatabase(opened)
        results = await asyncio.gather(*(database.write(touch) for _ in range(5)), return_exceptions=True)
        assert any(isinstance(result, DatabaseUnavailable) for result in results)
        assert await takes_writes(database)


async def test_file_of_garbage_ends_it_with_the_reason(path: Path) -> None:
    async with sqlite.open_sqlite(str(path)) as opened:
        database = WatchedDatabase(opened)
        running = asyncio.create_task(database.run())
        await database.write(touch)
        for name in (path, path.with_name(f"{path.name}-wal")):
            with name.open("r+b") as file:
                file.write(os.urandom(name.stat().st_size))
        with pytest.raises(DatabaseDamaged, match="restore a backup"):
            await database.read(lambda connection: connection.execute(text("SELECT * FROM orders")).all())
        with pytest.raises(DatabaseDamaged):
            await running


async def test_probe_writes_and_changes_nothing(new_database_url: str) -> None:
    def epoch(connection: Connection) -> int:
        return int(connection.execute(text("SELECT epoch FROM generation")).scalar_one())

    async with open_database(new_database_url) as database:
        before = await database.read(epoch)
        await database.probe()
        assert await database.read(epoch) == before
