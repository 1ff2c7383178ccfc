"""The two doors to the database: `write` and `read`, the same for SQLite and PostgreSQL.

What happens behind a door is a function over a SQLAlchemy `Connection` that knows no loop and no HTTP;
the domain's modules (`orders`, `recording`, `outbox`, `history`, `seen` …) consist of them.
Each call is one transaction. When `write` returns, its transaction is on disk; when it raises, nothing of it
is stored, except if the connection was lost during the commit itself: then it may be, and repeating is safe
because all our writes are idempotent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


class Pool(NamedTuple):
    """Connections to the database."""

    in_use: int
    idle: int


class Database(Protocol):
    async def write(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        """Run the work in a transaction of its own, and return when it is on disk.

        The work may run several times; only the last run counts. Raises what the work raised, and
        `DatabaseError`; then nothing is stored. If not `patient`, a locked row raises `RowHeld` at once.
        """
        ...

    async def write_when_idle(self, work: Callable[[Connection], T]) -> T:
        """`write` for work that nobody waits for: it begins when no other write waits, or after a moment."""
        ...

    async def write_together(
        self, work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]], item: I, *, size: int = 1
    ) -> R:
        """`write` for work that takes many items at a time; those that wait may share one transaction.

        The work returns a result for each item, in order: an exception if that item alone failed and nothing
        of it is stored. `size`: about how many rows the item writes; a transaction has a bounded number
        of rows, see `sender.database.group_commit`.
        """
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work on one snapshot of the database. Raises what the work raises, and `DatabaseError`."""
        ...

    async def return_space(self) -> float | None:
        """Return some free pages to the file system: the seconds it took, or None if there are few left."""
        ...

    @property
    def pool(self) -> Pool:
        """As it is now."""
        ...

    def hurry(self) -> None:
        """The process is about to end: from now on, every wait is short."""
        ...

    def abandon(self) -> None:
        """Whatever waits for a server fails now, as if the connection were lost."""
        ...

    async def check(self) -> None:
        """Try what a request needs. Raises `DatabaseError` if requests would fail now."""
        ...
