"""What customers have seen. The database keeps it; Redis passes it to gateways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError
from sqlalchemy import bindparam, select, update

from sender import history
from sender.database.rows import is_among
from sender.database.tables import channels, events
from shared.channels import is_private
from shared.errors import CallerError
from shared.extents import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from shared.channels import Channel
    from shared.extents import Extent, Range
    from shared.redis.channel_log import LogWriter

logger = structlog.get_logger(__name__)

_MAX_WAITING = (
    10_000  # channels; beyond, they are dropped: the database has them, and the next report repeats them
)
_AT_ONCE = 500


class NotSeeable(CallerError):
    """Raised for topics: only a customer's own channel has a seen cursor."""


def see(
    connection: Connection,
    reports: Sequence[Seen],
    *,
    on_shown: Callable[[Connection, dict[Channel, list[Range]]], None] | None = None,
) -> list[Seen]:
    """Add reports to what was seen; returns what that is now, in the order given.

    One that reaches beyond the head or is of another epoch adds nothing. Raises `NotSeeable`.
    `on_shown` gets what is new, in the same transaction.
    """
    for channel, _ in reports:
        if not is_private(channel):
            raise NotSeeable(f"{channel} has no seen cursor; only a customer's own channel has one")
    names = sorted({channel for channel, _ in reports})
    if names and connection.dialect.name != "sqlite":  # which has one writer at a time
        connection.execute(_LOCK, {"channels": names})
    states = history.states(connection, names)
    now_seen = {channel: state.seen for channel, state in states.items()}
    for channel, extent in reports:
        head = states[channel].head
        if extent.place.epoch == head.epoch and extent.last <= head:
            now_seen[channel] = extent.union(now_seen[channel])
    changed = [
        _row(channel, now_seen[channel]) for channel in names if now_seen[channel] != states[channel].seen
    ]
    if changed:
        connection.execute(_SEE, changed)
        if on_shown is not None:
            new = {channel: now_seen[channel].since(states[channel].seen) for channel in names}
            on_shown(connection, {channel: ranges for channel, ranges in new.items() if ranges})
    return [Seen(channel, now_seen[channel]) for channel, _ in reports]


def new_in(connection: Connection, report: Seen) -> tuple[str, str] | None:
    """The newest event that the report says was seen, when it was recorded and its text; None if that was
    known before.
    """
    channel, extent = report
    if not is_private(channel):
        return None
    state = history.states(connection, [channel])[channel]
    newest = extent.last
    if newest.epoch != state.head.epoch or newest > state.head or newest in state.seen:
        return None
    row = connection.execute(_EVENT, {"of": channel, "at": newest.seq}).one_or_none()
    return (row.recorded_at, row.text) if row is not None else None


def _row(channel: Channel, seen: Extent) -> dict[str, object]:
    row = {"seen_channel": channel, "to_epoch": seen.place.epoch, "to_seq": seen.place.seq}
    return {**row, "to_beyond": seen.ranges_text()}


class SeenNotifier:
    """Passes on to Redis what was seen: best effort, and no answer waits for it.

    All that is new in a channel is passed on together, so a burst of reports costs one.
    """

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._waiting: dict[bool, dict[Channel, Extent]] = {True: {}, False: {}}
        self._changed = asyncio.Event()

    def pass_on(self, seen: Iterable[Seen], *, devices: bool) -> None:
        """`devices`: whether to notify the customer's other devices as well."""
        waiting = self._waiting[devices]
        for channel, extent in seen:
            if channel in waiting or len(waiting) < _MAX_WAITING:
                waiting[channel] = extent.union(waiting.get(channel, extent))
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for devices in (True, False):
                while self._waiting[devices]:
                    await self._pass_on_some(devices=devices)

    async def _pass_on_some(self, *, devices: bool) -> None:
        waiting = self._waiting[devices]
        some = [Seen(*waiting.popitem()) for _ in range(min(_AT_ONCE, len(waiting)))]
        try:
            await self._log.see(some, notify=devices)
        except (RedisError, OSError) as error:
            logger.debug("what was seen is not passed on", count=len(some), reason=str(error))


_EVENT = select(events.c.recorded_at, events.c.text).where(
    events.c.channel == bindparam("of"), events.c.seq == bindparam("at")
)
_SEE = (
    update(channels)
    .where(channels.c.channel == bindparam("seen_channel"))
    .values(
        seen_epoch=bindparam("to_epoch"), seen_seq=bindparam("to_seq"), seen_beyond=bindparam("to_beyond")
    )
)
# In the order of their names, so that two callers wait for each other instead of deadlocking.
_LOCK = (
    select(channels.c.channel)
    .where(is_among("postgresql", channels.c.channel, "channels"))
    .order_by(channels.c.channel)
    .with_for_update(key_share=True)
)
