"""Finds alerts that no device has reported as seen some seconds after they were recorded.

Recording an alert writes nothing for this. Instead the events are read once more, in order of position, as
soon as they are old enough: one read of 500 rows finds what 500 events need, and a row in the database says
how far we have come. Only the alerts that were not seen cost a write.

An event's age is measured by our own monotonic clock, which is never set: events before a position that was
the newest N seconds ago are due. Their time in the database is used only for events that were recorded before
we started. Rows become visible out of order (see sender/outbox.py), so a position counts once all
transactions have ended that were writing when it was noted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog
from sqlalchemy import bindparam, select, update

from sender import history, outbox
from sender.database.errors import DatabaseError
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, channels, events, insert_into
from sender.database.tables import webhook_search as table
from sender.webhooks import deliveries
from sender.webhooks.message import Kind
from shared.channels import Channel, is_private
from shared.cursors import Place
from shared.extents import Range
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from sender.outbox import Floor

logger = structlog.get_logger(__name__)

AT_ONCE = 500  # events
_SAMPLES = 64  # of the time an alert is given


@dataclass(frozen=True)
class Pace:
    most_seconds: float = 1.0  # between two searches
    rest: float = 1.0  # times what a step took


USUAL = Pace()


class Due(NamedTuple):
    """Which events are old enough."""

    complete: int  # before this position all rows are visible
    aged: int  # all before this position are old enough …
    since: int  # … and of those before this one, what was recorded before that moment
    before: datetime


class _Sample(NamedTuple):
    """The newest position at a moment, and the transactions that were writing then."""

    at: float  # loop time
    extent: Floor
    writers: frozenset[str]


class Search:
    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        *,
        seconds: float,
        oldest: timedelta,
        pace: Pace = USUAL,
    ) -> None:
        """`wake` is called when something was found. What is older than `oldest` is passed over."""
        self._database = database
        self._clock = clock
        self._wake = wake
        self._seconds = seconds
        self._oldest = oldest
        self._pace = pace
        self._every = min(pace.most_seconds, seconds / _SAMPLES)
        self._samples: deque[_Sample] = deque()
        self._first = 0  # the newest position at our start

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
            except DatabaseError as error:  # the relay meets the same error, and logs it
                logger.debug("alerts that nobody has seen cannot be looked for now", reason=str(error))
            await asyncio.sleep(self._every)

    async def sweep(self) -> None:
        """Record a delivery for each alert that is due and was not seen."""
        due = await self._due()
        # Looking writes nothing, so a quiet database stays quiet.
        while (begun := await self._database.read(partial(has_work, due=due))) is not False:
            if begun is None:
                await self._database.write(partial(begin, at=due.complete))
                continue
            started = asyncio.get_running_loop().time()
            step = partial(search, due=due, now=self._clock(), oldest=self._clock() - self._oldest)
            found = await self._database.write(step)
            if found is None:
                return
            if found:
                self._wake()
            await asyncio.sleep(self._pace.rest * (asyncio.get_running_loop().time() - started))

    async def _due(self) -> Due:
        loop_time = asyncio.get_running_loop().time()
        extent = await self._database.read(outbox.extent)
        writers = await self._database.read(outbox.writers)
        if not self._samples or self._samples[-1].extent.server != extent.server:
            # Our start, or another server, which may have lost positions and use them again.
            self._samples.clear()
            self._first = extent.position
        self._samples.append(_Sample(loop_time, extent, writers))
        complete = aged = 0
        for sample in self._samples:
            if not (sample.writers & writers):
                complete = sample.extent.position
                if loop_time - sample.at >= self._seconds:
                    aged = sample.extent.position
        while len(self._samples) > 2 and loop_time - self._samples[1].at >= self._seconds:
            self._samples.popleft()
        return Due(complete, aged, self._first, self._clock() - timedelta(seconds=self._seconds))


def has_work(connection: Connection, due: Due) -> bool | None:
    """Whether an event is due that was not looked at; None before `begin`."""
    position = connection.execute(_POSITION).scalar_one_or_none()
    if position is None:
        return None
    first = connection.execute(_ROWS, {"first": position, "end": due.complete, "limit": 1}).first()
    return first is not None and _is_due(first.position, first.recorded_at, due)


def begin(connection: Connection, at: int) -> None:
    """With the events from that position on; what was recorded before stays as it is."""
    connection.execute(_BEGIN[connection.dialect.name], {"at": at})


def search(connection: Connection, due: Due, *, now: datetime, oldest: datetime) -> int | None:
    """Look at the next events; how many were not seen, or None where another sender is looking."""
    position = connection.execute(_LOCKED).scalar_one_or_none()
    if position is None:
        return None
    given = {"first": position, "end": due.complete, "limit": AT_ONCE}
    ranges: dict[Channel, list[Range]] = {}
    for row in connection.execute(_ROWS, given):
        if not _is_due(row.position, row.recorded_at, due):
            break
        position = row.position + 1
        if is_private(row.channel) and row.recorded_at >= format_time(oldest):
            ranges.setdefault(Channel(row.channel), []).append(Range(row.seq, row.seq))
    connection.execute(_MOVE, {"to": position})
    names = sorted(ranges)
    if connection.dialect.name != "sqlite":  # which has one writer at a time
        connection.execute(_LOCK_CHANNELS, {"channels": names})
    unseen = _unseen(connection, names, ranges)
    return deliveries.note(connection, Kind.NOT_SHOWN_IN, unseen, now=now)


def _is_due(position: int, recorded_at: str, due: Due) -> bool:
    return position < due.aged or (position < due.since and recorded_at <= format_time(due.before))


def _unseen(
    connection: Connection, names: list[Channel], ranges: dict[Channel, list[Range]]
) -> dict[Channel, list[Range]]:
    states = history.states(connection, names)
    read = dict(connection.execute(_READ_SEQS[connection.dialect.name], {"channels": names}).all())
    found = {}
    for channel in names:
        state = states[channel]
        start = max(state.pruned_seq, read.get(channel, 0))
        found[channel] = [
            one
            for one in ranges[channel]
            if one.first > start and Place(state.head.epoch, one.first) not in state.seen
        ]
    return found


_POSITION = select(table.c.position).where(table.c.id == 1)
_LOCKED = _POSITION.with_for_update(skip_locked=True)
_BEGIN = {
    dialect: insert_into(dialect, table).values(id=1, position=bindparam("at")).on_conflict_do_nothing()
    for dialect in DIALECTS
}
_MOVE = update(table).where(table.c.id == 1).values(position=bindparam("to"))
_ROWS = (
    select(events.c.position, events.c.channel, events.c.seq, events.c.recorded_at)
    .where(events.c.position >= bindparam("first"), events.c.position < bindparam("end"))
    .order_by(events.c.position)
    .limit(bindparam("limit"))
)
# Against an erasure alone: completing, which changes no key, does not wait. By name, as all code locks them.
_LOCK_CHANNELS = (
    select(channels.c.channel)
    .where(is_among("postgresql", channels.c.channel, "channels"))
    .order_by(channels.c.channel)
    .with_for_update(read=True, key_share=True)
)
_READ_SEQS = {
    dialect: select(channels.c.channel, channels.c.read_seq).where(
        is_among(dialect, channels.c.channel, "channels")
    )
    for dialect in DIALECTS
}
