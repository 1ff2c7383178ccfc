"""A connection as the gateway knows it: by what it can do, never by its transport.

Feeds deliver events to it, its life notifies it and ends it, the clock beats for it. What a transport makes
of that (a frame, a line of an event stream, an element of a poll's answer; a ping, a comment, nothing) is its
own affair. So is what it reads: it hands messages of its client to `Life.receive`, and reports its end to
`Life.leave` and `Life.lost`.

There are two kinds. Most transports write something of each connection's own around an event, so they are
handed channel, place and text. A `SharingConnection` needs nothing of its own: what one of them gets all of
them get. Its bytes are made once, and written straight to the sockets (receiver/feeds/burst.py).
"""

from __future__ import annotations

import abc
import asyncio
import enum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from receiver.access.identity import Identity
    from receiver.connections.notices import Notice
    from receiver.feeds.feed import Feed
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.redis.channel_log import Entry


class End(enum.Enum):
    """Why the gateway ends a connection. Each transport renders it in its own way."""

    INTERNAL_ERROR = "internal-error"
    RESTART = "restart"  # going away; come back, spread
    TRY_AGAIN_LATER = "try-again-later"
    BAD_MESSAGE = "bad-message"
    UNAUTHENTICATED = "unauthenticated"  # not or no longer: get a new token
    FORBIDDEN = "forbidden"  # stop
    SLOW = "slow"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    TOO_FAST = "too-fast"


class Ending(NamedTuple):
    """How a connection ended, for the log and the metrics."""

    code: int | str  # in the transport's own words, a close code for example
    reason: str


class Connection(abc.ABC):
    """From accept to close. Nothing here waits but `wait_writable`.

    What the gateway keeps of each connection is kept in it: 10,000 of these are most of a gateway's memory.
    """

    __slots__ = ("address", "closed", "ending", "feeds", "identity", "opened_at", "spoke_at")

    transport: ClassVar[str]  # its name, for the log and the metrics

    def __init__(self) -> None:
        self.closed = False  # nothing is sent any more
        self.ending: Ending
        self.opened_at = asyncio.get_running_loop().time()
        self.spoke_at = 0.0  # when its page last sent a message, on the loop's clock; a pong proves no page
        self.identity: Identity | None = None
        self.address = ""  # what its client's limits are counted by; empty: it has none (access/capacity.py)
        self.feeds: tuple[Feed, ...] = ()  # those it has entered

    @property
    def parts(self) -> Iterable[Connection]:
        """What has entered feeds for its client: the connection itself, unless each subscription is one."""
        return (self,)

    @property
    def passing(self) -> bool:
        """It lives for one request, so its end is not worth a line in the log."""
        return False

    @abc.abstractmethod
    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        """Send an event; nothing once it has closed. It ends where too much is already waiting."""

    def deliver_all(self, channel: Channel, entries: Sequence[Entry]) -> None:
        """Send several events of one channel, together where the transport can."""
        for place, text in entries:
            self.deliver(channel, place, text)

    @abc.abstractmethod
    def notify(self, notice: Notice) -> None:
        """Send one of the gateway's own messages."""

    @abc.abstractmethod
    def beat(self, now: float) -> None:
        """Once a heartbeat: end where the client is silent, else show it that we are alive."""

    def look(self, now: float) -> bool:
        """Called each second, once it was given to `Clock.attend`, until it returns False."""
        return False

    @abc.abstractmethod
    def end(self, end: End, reason: str) -> None:
        """Say why, then nothing more. The first reason wins."""

    def drop(self) -> None:  # noqa: B027 - only connections that open before they prove anything need it
        """After `end`: leave no time for the client to read the reason."""

    @abc.abstractmethod
    async def wait_writable(self) -> None:
        """Until nothing waits to be sent or the connection has ended. Only one task may wait."""


class Socket(Protocol):
    """The shortest way to a client: a socket that does not wait."""

    def send(self, data: bytes, /) -> int:
        """How many bytes the kernel has taken. Raises `OSError` where it takes none."""


class SharingConnection(Connection):
    """One that gets of an event what all connections of its kind get in that channel."""

    __slots__ = ()

    paused: bool  # something waits for the client to read; what follows goes by `write` and queues behind it

    @property
    @abc.abstractmethod
    def socket(self) -> Socket:
        """To send by while nothing waits."""

    @property
    def shares(self) -> bool:
        """Whether it does, as it was made. It is asked when it joins a feed."""
        return True

    @staticmethod
    @abc.abstractmethod
    def frame(channel: Channel, epoch: int, seq: int, text: bytes) -> bytes:
        """What is sent of an event."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Send finished bytes, now or when the client reads; as `deliver`."""
