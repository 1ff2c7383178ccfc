"""The sweep: finds what Redis has lost of the newest events, and has it published again.

A Redis that fails over to a replica without the tail, or restarts with the last second missing, goes on as
if nothing had happened. A channel's next event would show it, as a gap; but a channel may have no next event
for days, and whoever comes back meanwhile would be told by Redis that there is nothing new.

So every channel's head in Redis is compared with the database, for the newest events: what is lost is
always a tail. The newest are those since Redis was last found to have everything, and some before them: a
tail that was lost as an outage began lies behind all the thousands that waited for its end. Nobody has to
have noticed the fail-over, which connections that are opened again in silence hide, and each part of a
cluster may have its own. What is lost goes back into the outbox, and the relay publishes it as ever;
gateways that have it drop the repetition.

A channel of which Redis knows no head at all needs nothing: whoever wants to know asks the history then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from sender import outbox
from sender.database.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sender.database.protocol import Database
    from sender.metrics import Metrics
    from sender.outbox import Tail
    from shared.redis.channel_log import LogReader

logger = structlog.get_logger("sender")


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 2.0
    window: int = 2_000  # events looked at together; where some are lost, as many before them come next


class Sweep:
    def __init__(
        self,
        database: Database,
        log: LogReader,
        metrics: Metrics,
        wake_relay: Callable[[], None],
        pace: Pace = Pace(),
        publishes: Callable[[], bool] = lambda: True,
    ) -> None:
        """While the relay publishes nothing, what Redis has says nothing of what it has lost."""
        self._database = database
        self._log = log
        self._metrics = metrics
        self._pace = pace
        self._wake_relay = wake_relay
        self._publishes = publishes
        # All before this position was published when Redis was last found to have everything; at first, when
        # we began: what waits then has waited since before Redis went.
        self._settled: int | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._publishes():
                    await self.sweep()
            except (RedisError, OSError, DatabaseError) as error:  # the relay meets the same, and tells
                logger.debug("no sweep now", reason=str(error))
            await asyncio.sleep(self._pace.every_seconds)

    async def sweep(self) -> int:
        """How many events were lost."""
        settled = await self._database.read(outbox.settled)  # before Redis is asked: it may lose more since
        if self._settled is None:
            self._settled = settled
        lost, before = 0, None
        while True:
            recent = await self._database.read(
                partial(outbox.recent, before=before, window=self._pace.window)
            )
            behind = await self._behind(recent.tails)
            if behind:
                lost += await self._return(behind)
            elif recent.oldest <= self._settled - self._pace.window // 2:
                self._settled = settled
                return lost
            # Between the newest window and what is settled, little is published: it is looked at when it is
            # settled. So a backlog costs nothing here, however long it is.
            before = min(recent.oldest, settled + self._pace.window)

    async def _return(self, behind: list[Tail]) -> int:
        """Into the outbox; how many events."""
        returned = await self._database.write(partial(outbox.return_tails, tails=behind))
        self._wake_relay()
        self._metrics.returned.inc(returned)
        logger.warning("redis has lost events; they are published again", count=returned)
        return returned

    async def _behind(self, tails: list[Tail]) -> list[Tail]:
        """Of each channel what follows the head that Redis knows."""
        heads = await self._log.heads([tail.channel for tail in tails])
        return [
            tail._replace(after=head.seq)
            for tail, head in zip(tails, heads, strict=True)
            if head is not None and head.epoch == tail.last.epoch and head < tail.last
        ]
