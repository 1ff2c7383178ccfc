"""Databases with many rows before a test begins, filled by statements over sets."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import asyncpg

from bench.large import LONG_AGO, as_of_postgres, statements
from bench.large_sqlite import DIGEST, SERIES
from sender.database.open import open_database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def fill_postgres(url: str, *, channels: int, events: int, at: str = LONG_AGO) -> None:
    """A database that a sender has, or will have, in its schema."""
    made = as_of_postgres(channels, events, f"'{at}'")
    execute(url, ["SET search_path = orderbell", "SET synchronous_commit = off", *made, "ANALYZE"])


def fill_sqlite(path: Path, *, channels: int, events: int, at: str = LONG_AGO, orders: bool = True) -> None:
    made = statements(channels, events, f"'{at}'", digest=DIGEST, series=SERIES, orders=orders)
    with closing(sqlite3.connect(path)) as connection:
        for statement in made:
            connection.execute(statement)
        connection.commit()


def execute(url: str, what: Sequence[str]) -> list[Any]:
    """On one connection, each in a transaction of its own; the rows of the last."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1), timeout=10)
        try:
            rows: list[Any] = []
            for statement in what:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    rows: list[Any] = in_thread(run())
    return rows


def make_tables(url: str) -> None:
    async def run() -> None:
        async with open_database(url):
            pass

    in_thread(run())


def in_thread(work: Any) -> Any:
    """The test's own thread may have an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
