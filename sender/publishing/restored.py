"""Events that wait in a restored outbox although they were published: they waited when the backup was made.

In the new epoch they would be published, and shown, a second time. Redis shows which they are: its log has
the same text, which contains the event's id. Such events leave the outbox and stay in the old epoch, like all
others of the backup that were published. What Redis no longer has, or does not show, is published again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from sender import outbox
from sender.outbox import Floor
from shared.redis.channel_log import NewestEvent
from shared.redis.wire import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sender.database.protocol import Database
    from sender.outbox import Waiting
    from shared.channels import Channel
    from shared.redis.channel_log import LogReader

logger = structlog.get_logger(__name__)

AT_ONCE = 500  # events


async def leave_published(database: Database, log: LogReader, *, at_once: int = AT_ONCE) -> int:
    """Mark what was published; returns how many. Raises redis-py's errors where Redis is away."""
    total, floor = 0, Floor(0, (await database.read(outbox.extent)).server)
    while waiting := await database.read(partial(outbox.unpublished, limit=at_once, floor=floor)):
        try:
            published = await _published(log, waiting)
        except CommandRefused as refusal:
            logger.warning(
                "redis refuses to show what was published; it may be published again", reason=str(refusal)
            )
            break
        if published:
            await database.write(partial(outbox.mark_published, published=published))
        total += len(published)
        floor = floor._replace(position=waiting[-1].position + 1)
    return total


async def _published(log: LogReader, waiting: Sequence[Waiting]) -> list[NewestEvent]:
    """Those that the logs have, with the same text."""
    channels: dict[Channel, list[Waiting]] = {}
    for event in waiting:
        channels.setdefault(event.channel, []).append(event)
    # Each log is read from the channel's first waiting event on. Channels with as many are read together, so
    # that nothing is read that is not compared.
    lengths: dict[int, list[Channel]] = {}
    for channel, events in channels.items():
        length = events[-1].entry.place.seq - events[0].entry.place.seq + 1
        lengths.setdefault(length, []).append(channel)
    found: list[NewestEvent] = []
    for length, names in lengths.items():
        starts = [(channel, channels[channel][0].entry.place.seq - 1) for channel in names]
        for channel, read in zip(names, await log.read(starts, limit=length), strict=True):
            there = set(read.entries)
            found += [
                NewestEvent(event.entry.place.epoch, event.position, event.identity)
                for event in channels[channel]
                if event.fault is None and event.entry in there
            ]
    return found
