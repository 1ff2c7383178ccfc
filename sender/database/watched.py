"""Whether the database takes writes, as the writes themselves find out.

That it can be read proves little: a full disk and a lock that another process keeps stop only writes. So a
write that fails for the database's sake marks it, and `check` reports that until a write succeeds. Meanwhile
there may be no writes, because a balancer sends no requests to a sender that is not ready; so a small probe
is written every second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from sender.database.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFault,
    DatabaseFull,
    DatabaseUnavailable,
    RowHeld,
)
from sender.database.protocol import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from sender.database.protocol import Pool

logger = structlog.get_logger(__name__)

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

PROBE_SECONDS = 1.0
_OF_ONE_WRITE = (RowHeld, DatabaseBusy, DatabaseFault)  # others may succeed


class ProbedDatabase(Database, Protocol):
    async def probe(self) -> None:
        """Write something small that changes nothing. Raises `DatabaseError`."""
        ...


class WatchedDatabase:
    """A `Database` that knows whether it takes writes. `run` ends only by raising `DatabaseDamaged`."""

    def __init__(self, database: ProbedDatabase, *, probe_seconds: float = PROBE_SECONDS) -> None:
        self._database = database
        self._probe_seconds = probe_seconds
        self._refusal: DatabaseError | None = None  # why it takes no writes
        self._damaged: DatabaseDamaged | None = None
        self._failed = asyncio.Event()
        self.return_space = database.return_space
        self.hurry, self.abandon = database.hurry, database.abandon

    @property
    def pool(self) -> Pool:
        return self._database.pool

    async def write(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        try:
            done = await self._database.write(work, patient=patient)
        except DatabaseError as error:
            self._note(error)
            raise
        self._note_success()
        return done

    async def write_when_idle(self, work: Callable[[Connection], T]) -> T:
        try:
            done = await self._database.write_when_idle(work)
        except DatabaseError as error:
            self._note(error)
            raise
        self._note_success()
        return done

    async def write_together(
        self, work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]], item: I, *, size: int = 1
    ) -> R:
        try:
            done = await self._database.write_together(work, item, size=size)
        except DatabaseError as error:
            self._note(error)
            raise
        self._note_success()
        return done

    async def read(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._database.read(work)
        except DatabaseDamaged as error:
            self._note(error)
            raise

    async def check(self) -> None:
        await self._database.check()  # first: it names a removed file, where a write shows an I/O error
        if self._refusal is not None:
            raise DatabaseUnavailable(f"the database takes no writes: {self._refusal}")

    async def run(self) -> None:
        while True:
            await self._failed.wait()
            if self._damaged is not None:
                raise self._damaged
            await asyncio.sleep(self._probe_seconds)
            await self._probe()

    async def _probe(self) -> None:
        try:
            await self._database.probe()
        except DatabaseError as error:
            self._note(error)
        else:
            self._takes_writes()

    def _note(self, error: DatabaseError) -> None:
        if isinstance(error, DatabaseDamaged):
            self._damaged = error
        elif isinstance(error, _OF_ONE_WRITE):
            return
        if self._refusal is None:
            logger.error("the database takes no writes; requests are refused", reason=str(error))
        self._refusal = error
        self._failed.set()

    def _note_success(self) -> None:
        # On a full disk, a write that is small enough may succeed; only the probe knows that there is room.
        if self._refusal is not None and not isinstance(self._refusal, DatabaseFull):
            self._takes_writes()

    def _takes_writes(self) -> None:
        if self._refusal is not None and self._damaged is None:
            logger.warning("the database takes writes again")
            self._refusal = None
            self._failed.clear()
