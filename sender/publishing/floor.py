"""The outbox's floor, as one sender knows it: raised by its relay, used by every read of the outbox.

It only saves work: without it the same events are found, at a higher cost (sender/outbox.py).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sender import outbox
from sender.outbox import NO_FLOOR, Floor

if TYPE_CHECKING:
    from sender.database.protocol import Database

EVERY_SECONDS = 0.25
AGAIN_SECONDS = 0.05  # while it waits for transactions to end


class KnownFloor:
    """`now` is the floor."""

    def __init__(self, database: Database, every_seconds: float = EVERY_SECONDS) -> None:
        self._database = database
        self._every_seconds = every_seconds
        self._next_at = 0.0  # loop time
        self._aim: _Aim | None = None
        self._loop = asyncio.get_running_loop()
        self.now = NO_FLOOR
        self._server = ""
        self.moved = False  # another server answers, or the same one after a restart; the relay resets it

    def forget(self) -> None:
        """Events may wait below it: Redis lost some and they were returned, or the database was away."""
        self.now, self._aim = NO_FLOOR, None

    async def raise_in_time(self) -> None:
        """Every `every_seconds`, raise it as far as is safe."""
        if self._loop.time() < self._next_at:
            return
        self._next_at = self._loop.time() + self._every_seconds
        aim, known = self._aim, self.now
        if aim is None:
            to = await self._database.read(outbox.extent)
            self.moved = self.moved or self._server not in ("", to.server)
            self._server = to.server
            # Read second: a transaction that took a position before `to`, and has not ended, is among them.
            aim = _Aim(to, await self._database.read(outbox.writers))
            if to == known or self.now is not known:  # nothing new, or `forget` was called meanwhile
                return
            self._aim = aim
            if aim.writers:
                self._next_at = self._loop.time() + AGAIN_SECONDS
                return
        elif aim.writers & await self._database.read(outbox.writers):
            self._next_at = self._loop.time() + AGAIN_SECONDS
            return
        raised = await self._database.read(partial(outbox.raised, floor=known, to=aim.to))
        if self._aim is aim:  # else `forget` was called meanwhile
            self.now, self._aim = raised, None


class _Aim(NamedTuple):
    """The floor may be raised to `to` once these transactions have ended."""

    to: Floor
    writers: frozenset[str]
