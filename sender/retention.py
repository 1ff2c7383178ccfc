"""Retention: deletes what is older than the history's time, a little at a time.

Only published events are deleted, and only the beginning of each channel (sender/pruning.py). Dead letters
are kept for the same time from the moment when they were given up, because that is when the log asked an
operator to look at them.

Events are looked at in order of position, a window at a time, up to the first that are young. A row whose
time lies in the future (a clock was wrong) is skipped; it goes with the next old one of its channel.
Positions below the oldest waiting event are all published, so channels need not be checked one by one. What
is old is deleted in portions that callers hardly notice, at a multiple of the rate at which events come
(sender/portions.py).

Orders are kept unless a setting limits their time; then completed ones are deleted that long after their
completion, and open ones stay. Channels that have nothing left are removed once a day (sender/beginnings.py);
not in the first hour, in which senders of an earlier release may still run and would let them begin at 1
again.

A clock that jumps ahead would make everything old at once. So if the time since the newest event or our last
round is longer than a day, or the clock has gone a day further than time has since then, nothing is deleted
for an hour, and the log has an error: this costs an idle shop, or a sender that was off, an hour's delay, and
gives time to correct a wrong clock. After a start, events of the last hour prove nothing, because the wrong
clock may have stamped them: the newest one before them counts.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import bindparam, func, select

from sender import beginnings, dead_letters, metrics, outbox, pruning, revocations
from sender.database.errors import DatabaseError
from sender.database.tables import events
from sender.idempotency import KEPT_HOURS
from sender.outbox import NO_FLOOR
from sender.portions import Limits, Portions
from sender.webhooks import deliveries
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from sender.outbox import Floor
    from sender.pruning import Window

logger = structlog.get_logger(__name__)

_AHEAD = timedelta(hours=1)  # clocks of callers' senders differ by less


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 60.0
    window: int = 500  # rows looked at together
    portions: Limits = field(default_factory=Limits)
    rate_seconds: float = 5.0  # between two looks at how much comes
    again_seconds: float = 3_600.0  # between scans from the first row
    doubt_after: timedelta = timedelta(days=1)  # since the newest event or round
    doubt_seconds: float = 3_600.0
    channels_after_seconds: float = 3_600.0  # from our start to the first removal of channels
    channels_again_seconds: float = 86_400.0
    channels: int = 250  # removed together


USUAL = Pace()


class Retention:
    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        history_days: float,
        orders_days: float | None = None,
        pace: Pace = USUAL,
        floor: Callable[[], Floor] = lambda: NO_FLOOR,
    ) -> None:
        """Without `orders_days`, orders are kept for ever."""
        self._database = database
        self._clock = clock
        self._pace = pace
        self._floor = floor
        self._kept = timedelta(days=history_days)
        self._orders_kept = timedelta(days=orders_days) if orders_days is not None else None
        self._events, self._orders = _Scan(pace.again_seconds), _Scan(pace.again_seconds)
        self._last: datetime | None = None  # time of our last round,
        self._last_at = 0.0  # which was then; loop time
        self._doubted: float | None = None  # since when we doubt the clock; loop time
        self._channels_at: float | None = None  # when channels are to be removed next; loop time
        self._portions = Portions(pace.portions)
        self._rate_at = -math.inf  # when we last looked at how much comes; loop time

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
            except DatabaseError as error:
                logger.warning("retention cannot use the database", reason=str(error))
            await asyncio.sleep(self._pace.every_seconds)

    async def sweep(self) -> None:
        """Delete everything that is old enough."""
        now = self._clock()
        if not await self._trusts(now):
            return
        kept_before = now - self._kept
        keys_before = now - timedelta(hours=KEPT_HOURS)
        await self._drain(partial(pruning.prune_keys, before=keys_before))
        await self._drain(partial(pruning.restamp_keys, now=now, ahead=_AHEAD))
        await self._drain(partial(revocations.prune, now=now))
        await self._drain(partial(dead_letters.prune, before=kept_before))
        await self._drain(partial(deliveries.restamp, now=now))
        await self._drain(partial(deliveries.prune, before=kept_before))
        if count := await self._prune_events(kept_before, now):
            logger.info("history pruned", events=count)
        if self._orders_kept is not None and (
            count := await self._prune_orders(now - self._orders_kept, now)
        ):
            logger.info("orders pruned", orders=count)
        if self._channels_are_due():
            await self._remove_channels()
        await self._return_space()

    async def _trusts(self, now: datetime) -> bool:
        """Whether this time is plausible."""
        loop_time = asyncio.get_running_loop().time()
        if self._last is None:  # we have just started, and events of the last hour have our clock's time
            hour_ago = now - timedelta(seconds=self._pace.doubt_seconds)
            newest = await self._database.read(partial(newest_time_before, moment=hour_ago))
        else:
            newest = await self._database.read(newest_time)
        heard = [time for time in (newest, self._last) if time is not None and time <= now]
        last = max(heard, default=now)
        ahead = now - last > self._pace.doubt_after or self._jumped(now, loop_time)
        if self._doubted is None and ahead:
            self._doubted = loop_time
            logger.error(
                "the clock is far ahead of the newest event: nothing is deleted for now; check the clock",
                now=format_time(now),
                newest=format_time(min(last, self._last or last)),
                seconds=self._pace.doubt_seconds,
            )
        if self._doubted is not None:
            if ahead and loop_time - self._doubted < self._pace.doubt_seconds:
                metrics.retention_doubts.set(1)
                return False
            self._doubted = None
        metrics.retention_doubts.set(0)
        self._last, self._last_at = now, loop_time
        return True

    def _jumped(self, now: datetime, loop_time: float) -> bool:
        """Whether the clock has gone much further since our last round than time has.

        Events that came since then prove nothing: the same clock has stamped them.
        """
        if self._last is None:
            return False
        return now - self._last - timedelta(seconds=loop_time - self._last_at) > self._pace.doubt_after

    async def _prune_events(self, before: datetime, now: datetime) -> int:
        """Returns how many were deleted."""
        scan, total = self._events, 0
        scan.begin(asyncio.get_running_loop().time())
        while (after := scan.after) is not None:
            work = partial(
                pruning.look,
                after=after,
                before=before,
                now=now,
                limit=self._pace.window,
                floor=self._floor(),
            )
            window, deleted = await self._database.read(work), 0
            while window.old:
                some = pruning.take(window.old, self._portions.rows)
                delete = partial(pruning.delete_events, old=some, last=window.last, floor=self._floor())
                count = await self._portion(delete)
                metrics.pruned.inc(count)
                deleted += count
            scan.note(window, deleted)
            total += deleted
        return total

    async def _prune_orders(self, before: datetime, now: datetime) -> int:
        """Returns how many were deleted."""
        scan, total = self._orders, 0
        scan.begin(asyncio.get_running_loop().time())
        while (after := scan.after) is not None:
            work = partial(
                pruning.look_at_orders, after=after, before=before, now=now, limit=self._pace.window
            )
            window, deleted = await self._database.read(work), 0
            while window.old:
                some = [window.old.pop() for _ in window.old[: self._portions.rows]]
                count = await self._portion(partial(pruning.delete_orders, positions=some, before=before))
                metrics.pruned_orders.inc(count)
                deleted += count
            scan.note(window, deleted)
            total += deleted
        return total

    def _channels_are_due(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._channels_at is None:
            self._channels_at = now + self._pace.channels_after_seconds
        if now < self._channels_at:
            return False
        self._channels_at = now + self._pace.channels_again_seconds
        return True

    async def _remove_channels(self) -> None:
        """Those that have nothing left."""
        total, after = 0, ""
        while True:
            began = perf_counter()
            work = partial(beginnings.look, after=after, limit=self._pace.channels)
            looked = await self._database.read(work)
            removed = 0
            if looked.empty:
                if looked.highest > looked.mark:
                    await self._database.write(partial(beginnings.raise_mark, seq=looked.highest))
                removed = await self._database.write_when_idle(partial(beginnings.remove, names=looked.empty))
            taken = perf_counter() - began
            metrics.removed_channels.inc(removed)
            total += removed
            if looked.last is None:
                break
            after = looked.last
            await asyncio.sleep(self._portions.rest(removed, worked=taken, elapsed=taken))
        if total:
            logger.info("channels removed", channels=total)

    async def _drain(self, prune: Callable[..., int]) -> None:
        """Call it with a connection and a limit until it finds nothing more."""
        while await self._portion(partial(prune, limit=self._portions.rows)):
            pass

    async def _portion(self, delete: Callable[[Connection], int]) -> int:
        """Delete some rows, and rest; returns how many they were."""

        def timed(connection: Connection) -> tuple[float, int]:
            began = perf_counter()
            rows = delete(connection)
            return perf_counter() - began, rows

        await self._look_at_the_rate()
        began = perf_counter()
        worked, rows = await self._database.write_when_idle(timed)
        if rows:
            await asyncio.sleep(self._portions.note(rows, worked=worked, elapsed=perf_counter() - began))
        return rows

    async def _look_at_the_rate(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._rate_at > self._pace.rate_seconds:
            self._rate_at = now
            self._portions.note_recorded(now, (await self._database.read(outbox.extent)).position)

    async def _return_space(self) -> None:
        """To the file system, where the database itself does not care for that."""
        while (taken := await self._database.return_space()) is not None:  # noqa: ASYNC110 - a pace, no event
            await asyncio.sleep(self._portions.rest(0, worked=taken, elapsed=taken))


class _Scan:
    """A table's rows in order of position, some at a time, up to the first that are young.

    The next scan begins where young rows began; now and then one begins with the first row, for rows that
    were passed over.
    """

    def __init__(self, again_seconds: float) -> None:
        self._again_seconds = again_seconds
        self.after: int | None = None  # the position to look after; None when the scan is over
        self._from_first = -math.inf  # when we last began with the first row; loop time
        self.began_after = 0  # all before this position is young, or was when we looked
        self._young_after: int | None = None

    def begin(self, loop_time: float) -> None:
        if loop_time - self._from_first > self._again_seconds:
            self.began_after, self._from_first = 0, loop_time
        self.after, self._young_after = self.began_after, None

    def note(self, window: Window[Any], deleted: int) -> None:
        assert self.after is not None
        if window.young and self._young_after is None:
            self._young_after = self.after
        if window.looked and (deleted or not window.young):
            self.after = window.last
            return
        self.began_after = self.after if self._young_after is None else self._young_after
        self.after = None


def newest_time(connection: Connection) -> datetime | None:
    """When the newest event was recorded, by its sender's clock."""
    found = connection.execute(_NEWEST).scalar_one_or_none()
    return datetime.fromisoformat(found) if found is not None else None


def newest_time_before(connection: Connection, moment: datetime) -> datetime | None:
    """When the newest event before that moment was recorded; None if there is none.

    There is no index on time: positions are bisected, because rows are numbered roughly in order of time.
    """
    first, last = connection.execute(_ENDS).one()
    before, found = format_time(moment), None
    while first is not None and first <= last:
        middle = (first + last) // 2
        position, recorded_at = connection.execute(_AT, {"at": middle}).one()
        if recorded_at < before:
            found, first = recorded_at, middle + 1
        else:
            last = position - 1
    return datetime.fromisoformat(found) if found is not None else None


# Two queries: SQLite would read a whole index for both in one.
_ENDS = select(
    select(func.min(events.c.position)).scalar_subquery(),
    select(func.max(events.c.position)).scalar_subquery(),
)
_AT = (
    select(events.c.position, events.c.recorded_at)
    .where(events.c.position <= bindparam("at"))
    .order_by(events.c.position.desc())
    .limit(1)
)
_NEWEST = select(events.c.recorded_at).order_by(events.c.position.desc()).limit(1)
