"""A SQLite file with many events, and the sender on it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.large import freshen, open_orders, statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bench.run import Run
    from bench.stack import Stack

SERIES = "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)"
DIGEST = "printf('%032x', n * 2654435761)"
# Moments as SQL expressions, as in bench/large_databases.py.
_OLD = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-8 days')"
TWO_HOURS_AGO = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-2 hours')"
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


@dataclass
class FilledSqlite:
    """The sender runs only while something is measured."""

    path: Path
    size: int
    stack: Stack
    _placed: int = 0

    async def place(self, count: int) -> list[str]:
        prefix = f"order-{self._placed}"
        self._placed += 1
        placing = open_orders(
            count, max(self.size // 10, 1), prefix=prefix, now=_NOW, series=SERIES.format(count=count)
        )
        await asyncio.to_thread(_execute, self.path, [placing])
        return [f"{prefix}-{n}" for n in range(1, count + 1)]


@contextlib.asynccontextmanager
async def filled_sqlite(run: Run, size: int) -> AsyncIterator[FilledSqlite]:
    kept = await asyncio.to_thread(_filled_file, run, size)
    with run.stack(gateways=0) as stack:
        stack.sender.end()
        stack.servers.clear()
        path = stack.directory / "orderbell.db"
        await asyncio.to_thread(shutil.copyfile, kept, path)
        await asyncio.to_thread(_execute, path, [freshen(TWO_HOURS_AGO)])
        yield FilledSqlite(path, size, stack)


def _filled_file(run: Run, size: int) -> Path:
    """Filled once a run, or once for all runs that keep it."""
    kept = (run.databases or run.directory / "filled").resolve() / f"{size}.db"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with run.stack(gateways=0) as stack:
            stack.sender.end()  # it has made the tables
            stack.servers.clear()
            run.progress(f"filling a SQLite file with {size:,} events")
            path = stack.directory / "orderbell.db"
            made = statements(max(size // 10, 1), size, _OLD, digest=DIGEST, series=SERIES)
            _execute(path, made)
            shutil.move(path, kept)
    return kept


def _execute(path: Path, what: list[str]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in what:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
