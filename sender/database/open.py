"""Opening the database that a URL names: SQLite or PostgreSQL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shared.database_url import SqliteUrl, parse_database_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sender.database.watched import ProbedDatabase

SCHEMA = "orderbell"  # on PostgreSQL


@asynccontextmanager
async def open_database(
    url: str, *, schema: str | None = None, prepared_statements: bool | None = None
) -> AsyncIterator[ProbedDatabase]:
    """The database, brought to the newest schema. Raises `DatabaseUnusable` and `DatabaseError`.

    On PostgreSQL, `schema` holds our tables (by default the URL's, else `orderbell`), and
    `prepared_statements` are kept between transactions (None: unless a pooler is detected).
    """
    parsed = parse_database_url(url)
    # Each engine is imported only when needed: it brings its driver.
    if isinstance(parsed, SqliteUrl):
        from sender.database.sqlite import open_sqlite

        async with open_sqlite(parsed.path) as sqlite:
            yield sqlite
    else:
        from sender.database.postgres import open_postgres

        schema = schema or parsed.schema or SCHEMA
        async with open_postgres(parsed, schema, prepared_statements=prepared_statements) as postgres:
            yield postgres
