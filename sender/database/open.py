"""Opening the database that a URL names: SQLite or PostgreSQL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sender.database.protocol import Database


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """The database, brought to the newest schema. Raises `DatabaseUnusable` and `DatabaseError`."""
    # The engines are imported where they are wanted: each brings its driver.
    if make_url(url).get_backend_name() == "sqlite":
        from sender.database.sqlite import open_sqlite

        async with open_sqlite(url) as sqlite:
            yield sqlite
    else:
        from sender.database.postgres import open_postgres

        async with open_postgres(url) as postgres:
            yield postgres
