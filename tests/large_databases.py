"""Databases that hold a lot before a test begins, filled by statements over sets."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import asyncpg

from sender.database.open import open_database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MESSAGE = "m" * 150  # texts of events are then about 400 bytes long
LONG_AGO = "2026-01-01T00:00:00.000Z"

# `{series}` has a column n from 1 on, `{digest}` makes a digest of n.
_EVENT = (
    """'{{"specversion":"1.0","id":"' || n || '","source":"/filled","type":"order.completed","time":"'"""
    """ || {at}"""
    """ || '","datacontenttype":"application/json","channel":"customer:filled-' || {channel}"""
    """ || '","epoch":1,"seq":' || {seq} || ',"data":{{"message":"{message}"}}}}'"""
)
_CHANNELS = """
    INSERT INTO channels (channel, seq, pruned_seq, epoch)
    SELECT 'customer:filled-' || n, {each}, 0, 1 FROM {series}
"""
_EVENTS = """
    INSERT INTO events (channel, seq, epoch, identity, content_digest, recorded_at, text)
    SELECT 'customer:filled-' || {channel}, {seq}, 1, {digest}, '', {at}, {event} FROM {series}
"""
_ORDERS = """
    INSERT INTO orders (order_id, customer_id, status, created_at, completed_at, seq, data)
    SELECT 'filled-' || n, 'filled-' || {channel}, 'completed', {at}, {at}, {seq}, '{{}}' FROM {series}
"""


def statements(
    channels: int, events: int, at: str, *, digest: str, series: str, orders: bool = True
) -> list[str]:
    """`events` in all, evenly over the channels, in rounds; recorded at that moment, an SQL expression."""
    channel, seq = f"((n - 1) % {channels} + 1)", f"((n - 1) / {channels} + 1)"
    text = _EVENT.format(at=at, channel=channel, seq=seq, message=MESSAGE)
    own = {"channel": channel, "seq": seq, "at": at, "digest": digest, "event": text}
    rows = {"series": series.format(count=events), **own}
    return [
        _CHANNELS.format(series=series.format(count=channels), each=events // channels),
        _EVENTS.format(**rows),
        *([_ORDERS.format(**rows)] if orders else []),
    ]


def fill_postgres(url: str, *, channels: int, events: int, at: str = LONG_AGO) -> None:
    """A database that a sender has, or will have, in its schema."""
    made = statements(
        channels, events, f"'{at}'", digest="md5(CAST(n AS text))", series="generate_series(1, {count}) AS n"
    )
    execute(url, ["SET search_path = orderbell", "SET synchronous_commit = off", *made, "ANALYZE"])


def fill_sqlite(path: Path, *, channels: int, events: int, at: str = LONG_AGO, orders: bool = True) -> None:
    series = (
        "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)"
    )
    made = statements(
        channels, events, f"'{at}'", digest="printf('%032x', n * 2654435761)", series=series, orders=orders
    )
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
