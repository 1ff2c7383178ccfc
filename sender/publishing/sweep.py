"""The sweep: finds the newest events that Redis has lost, and returns them to the outbox.

A Redis that fails over to a replica without the tail, or restarts without its last second, goes on as if
nothing had happened. A channel's next event would reveal the gap; but there may be none for days, and Redis
would show a browser that returns meanwhile that there is nothing new.

So the heads in Redis of the channels with the newest events are compared with the database: a loss is always
a tail. The newest events are those since Redis was last found to have everything, and some before them: a
tail that was lost when an outage began lies before the thousands of events that waited for its end. The
fail-over itself need not be noticed: reconnecting silently hides it, and each part of a cluster may have one
of its own. Lost events go back into the outbox, and the relay publishes them as usual; gateways that have
them drop the repetition.

A channel without a head in Redis needs nothing: gateways then ask the history.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from sender import metrics, outbox
from sender.database.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sender.database.protocol import Database
    from sender.outbox import Tail
    from sender.publishing.floor import KnownFloor
    from shared.redis.channel_log import LogReader

logger = structlog.get_logger("sender")


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 2.0
    window: int = 2_000  # events compared together; if some are lost, as many before them come next


class Sweep:
    def __init__(
        self,
        database: Database,
        log: LogReader,
        wake_relay: Callable[[], None],
        floor: KnownFloor,
        pace: Pace = Pace(),
        publishes: Callable[[], bool] = lambda: True,
    ) -> None:
        """`publishes`: whether the relay does; if not, what Redis lacks need not be lost."""
        self._database = database
        self._log = log
        self._pace = pace
        self._wake_relay = wake_relay
        self._floor = floor
        self._publishes = publishes
        # Everything before this position was published when Redis was last found to have everything, or at
        # first when we started: what waited then has waited since before Redis was lost.
        self._settled: int | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._publishes():
                    await self.sweep()
            except (
                RedisError,
                OSError,
                DatabaseError,
            ) as error:  # the relay meets the same error, and logs it
                logger.debug("the sweep is put off", reason=str(error))
            await asyncio.sleep(self._pace.every_seconds)

    async def sweep(self) -> int:
        """Returns how many events were lost."""
        # Read before asking Redis, which may lose more afterwards.
        settled = await self._database.read(partial(outbox.settled, floor=self._floor.now))
        if self._settled is None:
            self._settled = settled
        lost, before = 0, None
        while True:
            recent = await self._database.read(
                partial(outbox.recent, before=before, window=self._pace.window, floor=self._floor.now)
            )
            behind = await self._behind(recent.tails)
            if behind:
                lost += await self._return(behind)
            elif recent.oldest <= self._settled - self._pace.window // 2:
                self._settled = settled
                return lost
            # Between the newest window and the settled part, little is published: it is compared once it is
            # settled. So a backlog costs nothing here, however long it is.
            before = min(recent.oldest, settled + self._pace.window)

    async def _return(self, behind: list[Tail]) -> int:
        """Return them to the outbox; the number of events."""
        try:
            returned = await self._database.write(partial(outbox.return_tails, tails=behind))
        finally:  # a write that failed may have been committed
            self._floor.forget()
        self._wake_relay()
        metrics.returned.inc(returned)
        logger.warning("redis has lost events; they are published again", count=returned)
        return returned

    async def _behind(self, tails: list[Tail]) -> list[Tail]:
        """For each channel, what follows the head that Redis knows."""
        heads = await self._log.heads([tail.channel for tail in tails])
        return [
            tail._replace(after=head.seq)
            for tail, head in zip(tails, heads, strict=True)
            if head is not None and head.epoch == tail.last.epoch and head < tail.last
        ]
