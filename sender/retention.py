"""Retention: deletes what is older than the history's time, a little at a time.

Only published events are deleted, and only the beginning of each channel: `pruned_seq` moves in the same
transaction, so a cursor before it gets a reset and never a hole. Dead letters are kept for the same time from
the moment when they were given up, because that is when the log asked an operator to look at them.

Rows are numbered roughly in order of time, so old ones are found without an index on time: windows of rows
are looked at, in order, up to the first that are young. A row whose time lies in the future (a clock was
wrong) is skipped; it goes with the next old one of its channel. Positions below the oldest waiting event are
all published, so channels need not be checked one by one.

Callers must not notice: a step takes few rows and milliseconds, and we rest after it, for longer than it took
and as long as the rate says, which is a multiple of what comes. Windows shrink if the database is slow.

Orders are kept unless a setting says for how long; then completed ones go that long after their completion,
and open ones stay. Channels that have nothing left are removed once a day (sender/beginnings.py); not in the
first hour, in which senders of an earlier release may still run, which would let them begin at 1 again.

A clock that jumps ahead would make everything old at once. So if the time since the newest event or our last
round is longer than a day, nothing is deleted for an hour, and the log has an error: this costs an idle shop,
or a sender that was off, an hour's delay, and gives time to correct a wrong clock.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog
from sqlalchemy import bindparam, delete, select, text, update

from sender import beginnings, dead_letters, metrics, outbox, revocations
from sender.database.errors import DatabaseError
from sender.database.tables import events, idempotency
from sender.idempotency import KEPT_HOURS
from sender.outbox import NO_FLOOR
from sender.webhooks import deliveries
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from sender.outbox import Floor

logger = structlog.get_logger(__name__)

T = TypeVar("T")

_AHEAD = timedelta(hours=1)  # clocks of callers' senders differ by less


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 60.0
    batch: int = 250  # rows looked at in one transaction, so that no caller waits long behind it
    batch_seconds: float = 0.01  # target for one batch; a slower one shrinks the next, down to half
    rest: float = 2.0  # times the duration of a batch, at least
    rate: float = 2_000.0  # rows a second at most, unless more come:
    times: float = 12.0  # then so many times what comes
    again_seconds: float = 3_600.0  # between scans from the first row
    doubt_after: timedelta = timedelta(days=1)  # since the newest event or round
    doubt_seconds: float = 3_600.0
    channels_after_seconds: float = 3_600.0  # from our start to the first removal of channels
    channels_again_seconds: float = 86_400.0


USUAL = Pace()


class Window(NamedTuple):
    """What became of some consecutive rows."""

    deleted: int
    looked: int
    last: int  # position
    young: bool  # some are neither old nor from the future


class Step(NamedTuple):
    """What to look at next."""

    after: int  # position
    limit: int  # rows


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
        self._events, self._orders = _Scan(pace), _Scan(pace)
        self._last: datetime | None = None  # time of our last round
        self._doubted: float | None = None  # since when we doubt the clock; loop time
        self._channels_at: float | None = None  # when channels are to be removed next; loop time
        self._rate = pace.rate
        self._counted: tuple[float, int] | None = None  # loop time, and the newest position then

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
        await self._set_rate()
        limit = self._pace.batch
        keys_before = now - timedelta(hours=KEPT_HOURS)
        await self._drain(partial(prune_keys, before=keys_before, limit=limit))
        await self._drain(partial(restamp_keys, now=now, limit=limit))
        await self._drain(partial(revocations.prune, now=now, limit=limit))
        await self._drain(partial(dead_letters.prune, before=now - self._kept, limit=limit))
        await self._drain(partial(deliveries.restamp, now=now, limit=limit))
        await self._drain(partial(deliveries.prune, before=now - self._kept, limit=limit))
        before = now - self._kept
        if count := await self._scan(
            self._events,
            lambda step, connection: prune_window(
                connection, **step._asdict(), before=before, now=now, floor=self._floor()
            ),
            metrics.pruned.inc,
        ):
            logger.info("history pruned", events=count)
        if self._orders_kept is not None:
            before_orders = now - self._orders_kept
            if count := await self._scan(
                self._orders,
                lambda step, connection: prune_orders(
                    connection, **step._asdict(), before=before_orders, now=now
                ),
                metrics.pruned_orders.inc,
            ):
                logger.info("orders pruned", orders=count)
        if self._channels_are_due():
            await self._remove_channels()
        await self._return_space()

    async def _trusts(self, now: datetime) -> bool:
        """Whether this time is plausible."""
        loop_time = asyncio.get_running_loop().time()
        newest = await self._database.read(newest_time)
        heard = [time for time in (newest, self._last) if time is not None and time <= now]
        if self._doubted is None and heard and now - max(heard) > self._pace.doubt_after:
            self._doubted = loop_time
            logger.error(
                "the clock is far ahead of the newest event: nothing is deleted for now; check the clock",
                now=format_time(now),
                newest=format_time(max(heard)),
                seconds=self._pace.doubt_seconds,
            )
        if self._doubted is not None:
            ahead = bool(heard) and now - max(heard) > self._pace.doubt_after
            if ahead and loop_time - self._doubted < self._pace.doubt_seconds:
                metrics.retention_doubts.set(1)
                return False
            self._doubted = None
        metrics.retention_doubts.set(0)
        self._last = now
        return True

    async def _scan(
        self, scan: _Scan, prune: Callable[[Step, Connection], Window], note: Callable[[int], object]
    ) -> int:
        """Prune windows until young rows come; returns how many rows were deleted."""
        total = 0
        scan.begin(asyncio.get_running_loop().time())
        while (step := scan.next_step()) is not None:
            taken, window = await self._timed(partial(prune, step))
            scan.note(window, taken)
            total += window.deleted
            note(window.deleted)
            await self._rest(taken, window.deleted)
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
            looked = await self._database.read(partial(beginnings.look, after=after, limit=self._pace.batch))
            removed = 0
            if looked.empty:
                if looked.highest > looked.mark:
                    await self._database.write(partial(beginnings.raise_mark, seq=looked.highest))
                removed = await self._database.write(partial(beginnings.remove, names=looked.empty))
            taken = perf_counter() - began
            metrics.removed_channels.inc(removed)
            total += removed
            if looked.last is None:
                break
            after = looked.last
            await asyncio.sleep(max(taken * self._pace.rest, removed / self._rate - taken))
        if total:
            logger.info("channels removed", channels=total)

    async def _set_rate(self) -> None:
        """By what has come since the last round."""
        now, newest = asyncio.get_running_loop().time(), await self._database.read(outbox.extent)
        if self._counted is not None and now > self._counted[0]:
            arriving = (newest.position - self._counted[1]) / (now - self._counted[0])
            self._rate = max(self._pace.rate, self._pace.times * arriving)
        self._counted = now, newest.position

    async def _rest(self, taken: float, rows: int) -> None:
        if rows:
            await asyncio.sleep(max(taken * self._pace.rest, rows / self._rate - taken))

    async def _drain(self, prune: Callable[[Connection], int]) -> None:
        while True:
            taken, count = await self._timed(prune)
            if not count:
                return
            await self._rest(taken, count)

    async def _return_space(self) -> None:
        """To the file system, where the database itself does not care for that."""
        while (taken := await self._database.return_space()) is not None:  # noqa: ASYNC110 - a pace, no event
            await asyncio.sleep(taken * self._pace.rest)

    async def _timed(self, work: Callable[[Connection], T]) -> tuple[float, T]:
        """Seconds that it took in its transaction, and its result."""

        def timed(connection: Connection) -> tuple[float, T]:
            began = perf_counter()
            result = work(connection)
            return perf_counter() - began, result

        return await self._database.write(timed)


class _Scan:
    """A table's rows in order of position, a window at a time, up to the first that are young.

    The next scan begins where young rows began; now and then one begins with the first row, for rows that
    were passed over.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._limit = pace.batch
        self._after: int | None = None  # in this scan; None when it is over
        self._from_first = -math.inf  # when we last began with the first row; loop time
        self.began_after = 0  # all before this position is young, or was when we looked
        self._young_after: int | None = None

    def begin(self, loop_time: float) -> None:
        if loop_time - self._from_first > self._pace.again_seconds:
            self.began_after, self._from_first = 0, loop_time
        self._after, self._young_after = self.began_after, None

    def next_step(self) -> Step | None:
        return Step(self._after, self._limit) if self._after is not None else None

    def note(self, window: Window, taken: float) -> None:
        assert self._after is not None
        if taken > 2 * self._pace.batch_seconds:
            self._limit = max(self._limit // 2, self._pace.batch // 2, 1)
        elif taken < self._pace.batch_seconds:
            self._limit = min(self._limit * 2, self._pace.batch)
        if window.young and self._young_after is None:
            self._young_after = self._after
        if window.looked and (window.deleted or not window.young):
            self._after = window.last
            return
        self.began_after = self._after if self._young_after is None else self._young_after
        self._after = None


def newest_time(connection: Connection) -> datetime | None:
    """When the newest event was recorded, by its sender's clock."""
    found = connection.execute(_NEWEST).scalar_one_or_none()
    return datetime.fromisoformat(found) if found is not None else None


def prune_events(connection: Connection, *, before: datetime, limit: int = USUAL.batch) -> int:
    """Delete some of the first events that were recorded before that moment; the number deleted."""
    return prune_window(connection, after=0, before=before, now=before, limit=limit).deleted


def prune_window(
    connection: Connection,
    *,
    after: int,
    before: datetime,
    now: datetime,
    limit: int,
    floor: Floor = NO_FLOOR,
) -> Window:
    """Look at some rows after a position; delete those recorded before that moment."""
    # The newest event stays, however old: it proves that the database did not go back (sender.generation).
    given = {
        "after": after,
        "until": outbox.settled(connection, floor=floor),
        "before": format_time(before),
        "now": format_time(now),
        "limit": limit,
    }
    looked = connection.execute(_LOOK[connection.dialect.name], given).one()
    deleted = 0
    if looked.old not in (None, "{}"):
        deleted = _delete(connection, looked.old)
    return Window(deleted, looked.amount, looked.last or after, bool(looked.young))


def prune_keys(connection: Connection, *, before: datetime, limit: int = USUAL.batch) -> int:
    """Delete some idempotency keys stored before that moment; the number deleted."""
    return connection.execute(_PRUNE_KEYS, {"before": format_time(before), "limit": limit}).rowcount


def restamp_keys(connection: Connection, *, now: datetime, limit: int = USUAL.batch) -> int:
    """Keys stored by a clock that was ahead would stay until then: they count from now on."""
    given = {"now": format_time(now), "ahead": format_time(now + _AHEAD), "limit": limit}
    return connection.execute(_RESTAMP_KEYS, given).rowcount


def prune_orders(
    connection: Connection, *, after: int, before: datetime, now: datetime, limit: int
) -> Window:
    """Look at some orders after a position; delete those completed or cancelled before that moment."""
    given = {"after": after, "before": format_time(before), "now": format_time(now), "limit": limit}
    looked = connection.execute(_LOOK_AT_ORDERS, given).one()
    deleted = connection.execute(_PRUNE_ORDERS[connection.dialect.name], given).rowcount if looked.old else 0
    return Window(deleted, looked.amount, looked.last or after, bool(looked.young))


def _delete(connection: Connection, old: str) -> int:
    """Delete each channel's events up to a seq, and note it in `pruned_seq`."""
    if connection.dialect.name == "sqlite":
        connection.execute(_NOTE_SQLITE, {"old": old})
        return connection.execute(_DELETE_SQLITE, {"old": old}).rowcount
    return int(connection.execute(_DELETE_POSTGRES, {"old": old}).scalar_one())


_NEWEST = select(events.c.recorded_at).order_by(events.c.position.desc()).limit(1)
_WINDOW = """
    SELECT position, channel, seq, recorded_at FROM events
    WHERE position > :after AND position < :until
      AND position < (SELECT position FROM events ORDER BY position DESC LIMIT 1)
    ORDER BY position LIMIT :limit
"""
_FOUND = """
    (SELECT count(*) FROM looked) AS amount,
    (SELECT max(position) FROM looked) AS last,
    (SELECT count(*) FROM looked WHERE recorded_at >= :before AND recorded_at <= :now) AS young
"""
_OLD = "SELECT channel, max(seq) AS seq FROM looked WHERE recorded_at < :before GROUP BY channel"
_LOOK = {
    "sqlite": text(
        f"WITH looked AS MATERIALIZED ({_WINDOW})"
        f" SELECT (SELECT json_group_object(channel, seq) FROM ({_OLD})) AS old, {_FOUND}"
    ),
    "postgresql": text(
        f"WITH looked AS MATERIALIZED ({_WINDOW})"
        f" SELECT (SELECT CAST(jsonb_object_agg(channel, seq) AS text) FROM ({_OLD}) AS o) AS old, {_FOUND}"
    ),
}
_NOTE_SQLITE = text(
    """
    UPDATE channels SET pruned_seq = old.value FROM json_each(:old) AS old
    WHERE channels.channel = old.key AND channels.pruned_seq < old.value
    """
)
_DELETE_SQLITE = text(
    """
    DELETE FROM events WHERE position IN (
        SELECT events.position FROM json_each(:old) AS old
        CROSS JOIN events ON events.channel = old.key AND events.seq <= old.value)
    """
)
# By name, the order in which all code locks channels; a locked one keeps its events until the next time.
# The order of joining is fixed, as in sender/history.py.
_DELETE_POSTGRES = text(
    """
    WITH old AS MATERIALIZED (
        SELECT key AS channel, CAST(value AS bigint) AS seq
        FROM jsonb_each_text(CAST(:old AS jsonb)) ORDER BY key COLLATE "C"),
    free AS MATERIALIZED (
        SELECT channels.channel, old.seq FROM old JOIN channels ON channels.channel = old.channel
        ORDER BY channels.channel COLLATE "C" FOR UPDATE OF channels SKIP LOCKED),
    noted AS (
        UPDATE channels SET pruned_seq = free.seq FROM free
        WHERE channels.channel = free.channel AND channels.pruned_seq < free.seq),
    gone AS (
        DELETE FROM events WHERE position = ANY (ARRAY(
            SELECT found.position FROM free CROSS JOIN LATERAL (
                SELECT position FROM events
                WHERE events.channel = free.channel AND events.seq <= free.seq
                ORDER BY events.seq OFFSET 0) AS found))
        RETURNING 1)
    SELECT count(*) FROM gone
    """
)
_OLD_KEYS = (
    select(idempotency.c.scope)
    .where(idempotency.c.created_at < bindparam("before"))
    .limit(bindparam("limit"))
)
_PRUNE_KEYS = delete(idempotency).where(idempotency.c.scope.in_(_OLD_KEYS))
_RESTAMP_KEYS = (
    update(idempotency)
    .where(
        idempotency.c.scope.in_(
            select(idempotency.c.scope)
            .where(idempotency.c.created_at > bindparam("ahead"))
            .limit(bindparam("limit"))
        )
    )
    .values(created_at=bindparam("now"))
)
_ORDERS_WINDOW = """
    SELECT position, status, created_at, completed_at, cancelled_at FROM orders
    WHERE position > :after ORDER BY position LIMIT :limit
"""
_OLD_ORDERS = "status = 'completed' AND coalesce(cancelled_at, completed_at) < :before"
_LOOK_AT_ORDERS = text(
    f"""
    SELECT count(*) AS amount, max(position) AS last,
        coalesce(sum(CASE WHEN {_OLD_ORDERS} THEN 1 ELSE 0 END), 0) AS old,
        coalesce(sum(CASE WHEN created_at >= :before AND created_at <= :now THEN 1 ELSE 0 END), 0) AS young
    FROM ({_ORDERS_WINDOW}) AS looked
    """
)
_PRUNE_ORDERS = {
    "sqlite": text(
        f"DELETE FROM orders WHERE position IN (SELECT position FROM ({_ORDERS_WINDOW}) WHERE {_OLD_ORDERS})"
    ),
    # Locked ones are being repeated by a caller; they go the next time.
    "postgresql": text(
        f"""
        DELETE FROM orders WHERE position IN (
            SELECT position FROM orders
            WHERE position > :after AND {_OLD_ORDERS} AND position <= (
                SELECT max(position) FROM ({_ORDERS_WINDOW}) AS looked)
            FOR UPDATE SKIP LOCKED)
        """
    ),
}
