"""Retention: what is older than the history's time is deleted, a little at a time.

Only published events go, and of each channel only a beginning: `pruned_seq` moves in the same transaction,
so that a cursor before it gets a reset and never a hole. Dead letters are kept as long, from the moment when
they were given up: that is when somebody was told to look at them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import bindparam, delete, func, select, update

from sender import dead_letters
from sender.database.errors import DatabaseError
from sender.database.tables import channels, events, idempotency
from sender.idempotency import KEPT_HOURS
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from sender.metrics import Metrics

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 60.0
    batch: int = 500  # rows in one transaction, so that nobody waits long behind it


class Retention:
    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        clock: Callable[[], datetime],
        *,
        history_days: float,
        pace: Pace = Pace(),
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._pace = pace
        self._kept = timedelta(days=history_days)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
            except DatabaseError as error:
                logger.warning("retention cannot use the database", reason=str(error))
            await asyncio.sleep(self._pace.every_seconds)

    async def sweep(self) -> None:
        """Delete all whose time is over."""
        now = self._clock()
        limit = self._pace.batch
        await self._drain(partial(prune_keys, before=now - timedelta(hours=KEPT_HOURS), limit=limit))
        await self._drain(partial(dead_letters.prune, before=now - self._kept, limit=limit))
        count = await self._drain(partial(prune_events, before=now - self._kept, limit=limit))
        if count:
            self._metrics.pruned.inc(count)
            logger.info("history pruned", events=count)

    async def _drain(self, prune: Callable[[Connection], int]) -> int:
        total = 0
        while count := await self._database.write(prune):
            total += count
        return total


def prune_events(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some events recorded before that moment; how many."""
    old = connection.execute(_OLD, {"before": format_time(before), "limit": limit}).all()
    last: dict[str, int] = {}
    for channel, seq in old:
        last[channel] = max(seq, last.get(channel, 0))
    count = 0
    for channel in sorted(last):  # by name, as everybody locks channels
        count += _prune_channel(connection, channel, last[channel])
    return count


def prune_keys(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some idempotency keys stored before that moment; how many."""
    return connection.execute(_PRUNE_KEYS, {"before": format_time(before), "limit": limit}).rowcount


def _prune_channel(connection: Connection, channel: str, last: int) -> int:
    first_waiting = connection.execute(_FIRST_WAITING, {"channel": channel}).scalar_one()
    if first_waiting is not None:
        last = min(last, first_waiting - 1)
    connection.execute(_MOVE, {"pruned_channel": channel, "last": last})
    return connection.execute(_PRUNE, {"channel": channel, "last": last}).rowcount


# Rows are numbered about as they are recorded, so the oldest are found without an index on time.
# The newest event stays, however old: it tells that the database did not go back (sender.generation).
_OLDEST = (
    select(events)
    .where(events.c.position < select(func.max(events.c.position)).scalar_subquery())
    .order_by(events.c.position)
    .limit(bindparam("limit"))
    .subquery()
)
_OLD = select(_OLDEST.c.channel, _OLDEST.c.seq).where(
    _OLDEST.c.recorded_at < bindparam("before"), _OLDEST.c.published_at.is_not(None)
)
_MOVE = (
    update(channels)
    .where(channels.c.channel == bindparam("pruned_channel"), channels.c.pruned_seq < bindparam("last"))
    .values(pruned_seq=bindparam("last"))
)
_PRUNE = delete(events).where(
    events.c.channel == bindparam("channel"),
    events.c.seq <= bindparam("last"),
)
_FIRST_WAITING = select(func.min(events.c.seq)).where(
    events.c.channel == bindparam("channel"), events.c.published_at.is_(None)
)
_OLD_KEYS = (
    select(idempotency.c.scope)
    .where(idempotency.c.created_at < bindparam("before"))
    .limit(bindparam("limit"))
)
_PRUNE_KEYS = delete(idempotency).where(idempotency.c.scope.in_(_OLD_KEYS))
