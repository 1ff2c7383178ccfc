"""SQLite files that have our tables already: migrating an empty one takes thrice as long as opening it."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sender.database.open import open_database

SCHEME = "sqlite:///"


def prepare(url: str) -> None:
    """If the URL names a file that does not exist yet, create what the first sender would."""
    if url.startswith(SCHEME) and not (path := Path(url.removeprefix(SCHEME))).exists():
        path.write_bytes(_migrated())


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(1) as thread:
        path = Path(directory) / "orderbell.db"
        # In a thread of its own: the test's thread may have an event loop.
        thread.submit(lambda: asyncio.run(_migrate(f"{SCHEME}{path}"))).result()
        return path.read_bytes()


async def _migrate(url: str) -> None:
    async with open_database(url):
        pass
