"""The two doors to the database: `write` and `read`, the same for SQLite and PostgreSQL.

What happens behind a door is a function over a SQLAlchemy `Connection` that knows no loop and no HTTP;
the domain's modules (`orders`, `outbox`, `history`, `seen`, `idempotency`, `retention`) consist of them.
Each call is one transaction. When `write` has returned, its transaction is on disk; when it raised, nothing
of it is, except after a connection that was lost during the commit itself: then it may be there, and
repeating is safe because all of our writes are idempotent.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

MAX_TOGETHER = 1_000  # rows; bounds how long the first item waits for the last


class DatabaseError(Exception):
    """The database could not do its part; the caller may come back."""


class DatabaseUnavailable(DatabaseError):
    """Locked, unreachable or overloaded."""


class DatabaseFull(DatabaseError):
    """No space is left for what should be stored."""


class DatabaseUnusable(Exception):
    """Raised at start: a database that could not keep what we promise."""


class Database(Protocol):
    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run the work in a transaction of its own, and return when that is on disk.

        The work may run several times; only the last one counts. Raises what the work raised, then
        nothing of it is stored, and `DatabaseError`.
        """
        ...

    async def write_together(
        self, work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]], item: I, *, size: int = 1
    ) -> R:
        """`write` for work that takes many items at a time; those that wait may share one transaction.

        The work returns a result for each item, in order: an exception where that item alone failed and
        nothing of it is stored. `size`: how many rows or so the item writes; a transaction has at most about
        `MAX_TOGETHER`.
        """
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work on one snapshot of the database. Raises what the work raised and `DatabaseError`."""
        ...


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
