"""Seen cursors: how far a customer has seen. The database keeps them; Redis passes them to gateways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError
from sqlalchemy import bindparam, select, update

from sender import history
from sender.database.tables import channels, generation
from shared.channels import Channel, is_private
from shared.cursors import Cursor, Place
from shared.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from shared.redis.channel_log import LogWriter

logger = structlog.get_logger(__name__)

_MAX_UNTOLD = (
    10_000  # channels; beyond, they are dropped: the database has them, and the next report repeats them
)
_TOLD_AT_ONCE = 500


class NotSeeable(CallerError):
    """Raised for topics: only a customer's own channel has a seen cursor."""


def see(connection: Connection, cursors: Sequence[Cursor]) -> list[Cursor]:
    """Move seen cursors forward; returns where each is now, in the order given.

    A cursor that is behind, beyond the head or of another epoch moves nothing. Raises `NotSeeable`.
    """
    for cursor in cursors:
        if not is_private(cursor.channel):
            raise NotSeeable(f"{cursor.channel} has no seen cursor; only a customer's own channel has one")
    moves = [
        {"seen_channel": channel, "to_epoch": place.epoch, "to_seq": place.seq}
        for channel, place in sorted(
            cursors
        )  # by name, so that two callers wait for each other instead of deadlocking
    ]
    if moves:
        connection.execute(_SEE, moves)
    states = history.states(connection, [cursor.channel for cursor in cursors])
    return [Cursor(cursor.channel, states[cursor.channel].seen) for cursor in cursors]


class SeenTeller:
    """Passes seen cursors on to Redis: best effort, and no answer waits for it.

    Only the newest place of a channel is passed on, so a burst of reports costs one.
    """

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._untold: dict[bool, dict[Channel, Place]] = {True: {}, False: {}}
        self._changed = asyncio.Event()

    def tell_nowait(self, cursors: Iterable[Cursor], *, devices: bool) -> None:
        """`devices`: whether to notify the customer's other devices as well."""
        untold = self._untold[devices]
        for channel, place in cursors:
            if channel in untold or len(untold) < _MAX_UNTOLD:
                untold[channel] = max(place, untold.get(channel, place))
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for devices in (True, False):
                while self._untold[devices]:
                    await self._tell_some(devices=devices)

    async def _tell_some(self, *, devices: bool) -> None:
        untold = self._untold[devices]
        some = [untold.popitem() for _ in range(min(_TOLD_AT_ONCE, len(untold)))]
        try:
            await self._log.see(some, tell=devices)
        except (RedisError, OSError) as error:
            logger.debug("seen cursors not passed on", count=len(some), reason=str(error))


_SEE = (
    update(channels)
    .where(
        channels.c.channel == bindparam("seen_channel"),
        channels.c.seq >= bindparam("to_seq"),
        select(generation.c.epoch).scalar_subquery() == bindparam("to_epoch"),
        (channels.c.seen_epoch < bindparam("to_epoch")) | (channels.c.seen_seq < bindparam("to_seq")),
    )
    .values(seen_epoch=bindparam("to_epoch"), seen_seq=bindparam("to_seq"))
)
