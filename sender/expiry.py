"""Records the expiry of alerts, and deletes the states of alerts that the history no longer has.

An alert's `expirytime` alone decides whether it has expired, at any moment. The event recorded here, which
may come some seconds later, notifies devices and brings the new count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from sender import alerts
from sender.database.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sender.database.protocol import Database

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 2.0
    prune_every: int = 300  # rounds, from the end of one look at all states to the next
    looks: int = (
        10  # of a round, as long as each finds something to delete; one that finds nothing is the last
    )


USUAL = Pace()


class Expiry:
    def __init__(
        self,
        database: Database,
        wake: Callable[[], None],
        clock: Callable[[], datetime],
        pace: Pace = USUAL,
    ) -> None:
        """`wake` wakes the relay when something was recorded."""
        self._database = database
        self._wake = wake
        self._clock = clock
        self._pace = pace
        self._after: alerts.Row | None = alerts.FIRST_ROW  # None between two looks at all states
        self._rounds = 0  # since the end of the last one

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
                await self._prune_some()
            except DatabaseError as error:
                logger.warning("the expiry of alerts cannot be recorded now", reason=str(error))
            await asyncio.sleep(self._pace.every_seconds)

    async def sweep(self) -> None:
        """Record every expiry that is due. Looking writes nothing, so a quiet database stays quiet."""
        while await self._database.read(partial(alerts.is_any_due, now=self._clock())):
            if await self._database.write(partial(alerts.expire, now=self._clock())):
                self._wake()

    async def _prune_some(self) -> None:
        """Look at some states, a little in each round: there may be millions."""
        if self._after is None:
            self._rounds += 1
            if self._rounds < self._pace.prune_every:
                return
            self._after, self._rounds = alerts.FIRST_ROW, 0
        for _ in range(self._pace.looks):
            looked = await self._database.read(partial(alerts.look, after=self._after))
            if looked.gone:
                await self._database.write(partial(alerts.prune, up_to=looked.gone))
            self._after = looked.last
            if self._after is None or not looked.gone:
                return
