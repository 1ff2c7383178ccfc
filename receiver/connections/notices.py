"""The gateway's own messages, as data; each transport writes them in its own form.

Most transports write a notice as a CloudEvent without a place in any channel; it is made once for all
connections that get the same notice.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, ClassVar

import msgspec
import uuid_utils

from shared.channels import Channel, is_private
from shared.cursors import Cursor, Place, format_cursors
from shared.extents import Extent, Seen
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = "/orderbell/receiver"
ACCEPTED = ("orderbell.seen", "orderbell.auth", "orderbell.ping", "orderbell.read")

_encoder = msgspec.json.Encoder()


class Notice(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """Its fields are the `data` that clients get."""

    type: ClassVar[str]

    @cached_property
    def data(self) -> bytes:
        """As JSON."""
        return _encoder.encode(self)

    @cached_property
    def cloud_event(self) -> bytes:
        return _encoder.encode(
            {
                "specversion": "1.0",
                "id": str(uuid_utils.uuid7()),
                "source": SOURCE,
                "type": self.type,
                "time": _time(time.time_ns() // 1_000_000),
                "data": self,
            }
        )


def _time(milliseconds: int) -> str:
    """Since 1970, as notices have it."""
    second, rest = divmod(milliseconds, 1000)
    return f"{_beginning(second)}{rest:03d}Z"


@lru_cache(maxsize=1)  # thousands of notices may leave in one second
def _beginning(second: int) -> str:
    return format_time(datetime.fromtimestamp(second, UTC)).removesuffix("000Z")


class Hello(Notice, frozen=True):
    """Always the first: where this connection starts."""

    type = "orderbell.hello"

    cursor: str
    channels: tuple[Channel, ...]
    heartbeat_seconds: float
    gateway: str
    accepts: tuple[str, ...]  # the types of messages that a client may send; older gateways don't send it
    as_of: str = ""  # where the channels are now: events up to there were missed

    @classmethod
    def at(
        cls,
        places: Mapping[Channel, Place],
        heads: Mapping[Channel, Place],
        *,
        heartbeat_seconds: float,
        gateway: str,
    ) -> Hello:
        cursor = format_cursors(places)
        as_of = cursor if heads == places else format_cursors(heads)  # most start where the channels are
        return cls(cursor, tuple(places), heartbeat_seconds, gateway, ACCEPTED, as_of)


class Heartbeat(Notice, frozen=True):
    """The gateway is there. A page can't see pings, and nothing else comes over a quiet connection."""

    type = "orderbell.heartbeat"


class Pong(Notice, frozen=True):
    """The answer to a client's `orderbell.ping`."""

    type = "orderbell.pong"


class Reset(Notice, frozen=True):
    """A cursor can't be honoured: the client continues at `cursor` and reloads what it shows."""

    type = "orderbell.reset"

    channel: Channel
    reason: str
    cursor: str
    refetch: str = ""  # empty for topics, which have nothing to reload

    @classmethod
    def to(cls, channel: Channel, place: Place, reason: str) -> Reset:
        refetch = f"/orders?customer_id={channel.removeprefix('customer:')}" if is_private(channel) else ""
        return cls(channel, reason, str(Cursor(channel, place)), refetch)


class SeenElsewhere(Notice, frozen=True):
    """What the customer's devices have shown: everything up to `cursor`, and what `seen` has beyond it."""

    type = "orderbell.seen"

    cursor: str
    seen: str = ""  # present if there is something beyond

    @classmethod
    def of(cls, channel: Channel, extent: Extent) -> SeenElsewhere:
        beyond = str(Seen(channel, extent)) if extent.beyond else ""
        return cls(str(Cursor(channel, extent.place)), beyond)


class Unread(Notice, frozen=True):
    """How many of the customer's alerts are unread, and the place where that is true: a later place wins."""

    type = "orderbell.unread"

    unread: int
    as_of: str


class Ring(Notice, frozen=True):
    """No device has shown the alerts up to `cursor` for long: a page that can show them should do so."""

    type = "orderbell.ring"

    cursor: str


class Bye(Notice, frozen=True):
    """The gateway is about to end the connection; come back after that time."""

    type = "orderbell.bye"

    retry_after_ms: int


class Ended(Notice, frozen=True):
    """The gateway has ended the connection; for transports that have no close code."""

    type = "orderbell.end"

    end: str
    reason: str
