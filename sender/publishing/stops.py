"""Stops: times in which this sender published nothing, or nothing of one channel, and why.

Publishing an event leaves no row that names it (sender/database/tables.py), so the time that a single event
waited is not stored. A stop is stored instead: one row for all events that waited in it, written when it is
over, with its beginning and its end. `orderbell trace` reads them.

Short stops are not kept, and of the others the newest `KEPT`. Other senders may have published meanwhile:
what a stop says is true of the sender that it names.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, or_, select

from sender.database.tables import stops
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from shared.channels import Channel

KEPT = 10_000
SHORTEST_SECONDS = 1.0
_NAME_LENGTH = 64
_DETAIL_LENGTH = 500
_CHAIN = 100  # stops that one event may have waited in, one after the other


class Cause(StrEnum):
    REDIS = "redis"
    DATABASE = "database"
    RESTART = "restart"
    POISON = "poison"


class Stop(NamedTuple):
    """Events recorded from `began_at` on waited until `ended_at`."""

    began_at: str
    ended_at: str
    sender: str
    channel: str | None  # None: of all channels
    cause: Cause
    detail: str


class _Begun(NamedTuple):
    at: datetime
    cause: Cause
    detail: str


class Stops:
    """This sender's. `keep` stores what has ended."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self.sender = socket.gethostname()[:_NAME_LENGTH]
        self._started_at = self._good_at = clock()
        self._turn_at = self._good_at
        self._begun: _Begun | None = None
        self._of_channels: dict[Channel, _Begun] = {}
        self._ended: list[Stop] = []

    @property
    def unkept(self) -> bool:
        """Some that have ended are not stored yet."""
        return bool(self._ended)

    @property
    def are_open(self) -> bool:
        return self._begun is not None or bool(self._of_channels)

    def turn_begins(self) -> None:
        """The turn that begins now may not see what is recorded from now on."""
        self._turn_at = self._clock()

    def turn_ends_well(self) -> None:
        if self._begun is not None:
            self._end(self._begun, None)
            self._begun = None
        self._good_at = self._turn_at

    def begin(self, cause: Cause, detail: str) -> None:
        """Nothing can be published now. The first cause counts until a turn ends well."""
        if self._begun is None:
            self._begun = _Begun(self._good_at, cause, detail)

    def begin_channel(self, channel: Channel, recorded_at: datetime, detail: str) -> None:
        self._of_channels.setdefault(channel, _Begun(recorded_at, Cause.POISON, detail))

    def end_channel(self, channel: Channel) -> None:
        if (begun := self._of_channels.pop(channel, None)) is not None:
            self._end(begun, channel)

    def waited_before(self, recorded_at: datetime) -> None:
        """An event recorded at that time still waited at the first turn, so no sender has published since."""
        if recorded_at < self._started_at:
            self._end(_Begun(recorded_at, Cause.RESTART, ""), None, at=self._started_at)

    def _end(self, begun: _Begun, channel: Channel | None, at: datetime | None = None) -> None:
        at = at or self._clock()
        if (at - begun.at).total_seconds() >= SHORTEST_SECONDS:
            detail = begun.detail.replace("\x00", "")[:_DETAIL_LENGTH]
            self._ended.append(
                Stop(format_time(begun.at), format_time(at), self.sender, channel, begun.cause, detail)
            )

    async def keep(self) -> None:
        """Raises `DatabaseError`; what was not stored is stored the next time."""
        if self._ended:
            ended = self._ended[:]
            await self._database.write(partial(store, ended=ended))
            del self._ended[: len(ended)]


def store(connection: Connection, ended: list[Stop]) -> None:
    connection.execute(insert(stops), [stop._asdict() for stop in ended])
    connection.execute(_FORGET)


def waited_in(connection: Connection, channel: Channel, recorded_at: str) -> list[Stop]:
    """The stops that an event recorded at that time waited in, one after the other."""
    found: list[Stop] = []
    at = recorded_at
    while len(found) < _CHAIN:
        row = connection.execute(_NEXT, {"at": at, "of": channel}).first()
        if row is None:
            break
        stop = Stop(*row[:4], Cause(row[4]), row[5])
        found.append(stop)
        at = stop.ended_at
    return found


_FORGET = delete(stops).where(stops.c.position <= select(func.max(stops.c.position) - KEPT).scalar_subquery())
_NEXT = (
    select(stops.c.began_at, stops.c.ended_at, stops.c.sender, stops.c.channel, stops.c.cause, stops.c.detail)
    .where(
        stops.c.began_at <= bindparam("at"),
        stops.c.ended_at > bindparam("at"),
        or_(stops.c.channel.is_(None), stops.c.channel == bindparam("of")),
    )
    .order_by(stops.c.ended_at.desc())
    .limit(1)
)
