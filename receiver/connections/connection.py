"""A connection as the gateway knows it: by what it can do, never by its transport.

Feeds deliver events to it, its life notifies it and ends it, the clock beats for it. Each transport decides
what to write for that: a frame, a line of an event stream, an element of a poll's answer; a ping, a comment,
nothing. It also does its own reading: it hands messages of its client to `Life.receive`, and reports its end
to `Life.leave` and `Life.lost`.

There are two kinds. Most transports write something of each connection's own around an event, so they are
handed channel, place and text. A `SharingConnection` writes nothing of its own: all of them get the same
bytes, which are made once and written straight to the sockets (receiver/feeds/burst.py).
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
    from shared.events import Entry


class End(enum.Enum):
    """Why the gateway ends a connection. Each transport renders it in its own way."""

    INTERNAL_ERROR = "internal-error"
    RESTART = "restart"  # going away; come back at a random moment
    TRY_AGAIN_LATER = "try-again-later"
    BAD_MESSAGE = "bad-message"
    UNAUTHENTICATED = "unauthenticated"  # not authenticated, or no longer: get a new token
    FORBIDDEN = "forbidden"  # stop
    SLOW = "slow"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    TOO_FAST = "too-fast"


class Ending(NamedTuple):
    """How a connection ended, for the log and the metrics."""

    code: int | str  # in the transport's own terms, such as a close code
    reason: str


class Connection(abc.ABC):
    """A connection from accept to close. Only `wait_writable` waits.

    All that the gateway keeps of a connection is here: 10,000 of these are most of a gateway's memory.
    """

    __slots__ = ("address", "closed", "ending", "feeds", "identity", "number", "opened_at", "spoke_at")

    transport: ClassVar[str]  # its name, for the log and the metrics

    def __init__(self) -> None:
        self.number = 0  # of its gateway's connections, for logs and support; see `Life.id_of`
        self.closed = False  # nothing is sent any more
        self.ending: Ending
        self.opened_at = asyncio.get_running_loop().time()
        self.spoke_at = 0.0  # when its page last sent a message, by the loop's clock; pongs don't count
        self.identity: Identity | None = None
        self.address = ""  # the key of its client's limits; empty: no limits apply (access/capacity.py)
        self.feeds: tuple[Feed, ...] = ()  # those it has entered

    @property
    def parts(self) -> Iterable[Connection]:
        """What entered feeds for its client: the connection itself, or each of its subscriptions (STOMP)."""
        return (self,)

    @property
    def passing(self) -> bool:
        """Whether it lives for one request only, so that its end is not logged."""
        return False

    @property
    def waiting_bytes(self) -> int:
        """How many wait for the client to read them."""
        return 0

    @abc.abstractmethod
    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        """Send an event; does nothing once it has closed. Ends it if too much is already waiting."""

    def deliver_all(self, channel: Channel, entries: Sequence[Entry]) -> None:
        """Send several events of one channel, together if the transport can."""
        for place, text in entries:
            self.deliver(channel, place, text)

    @abc.abstractmethod
    def notify(self, notice: Notice) -> None:
        """Send one of the gateway's own messages."""

    @abc.abstractmethod
    def beat(self, now: float) -> None:
        """Called once a heartbeat: ends it if the client is silent, else shows that we are alive."""

    def look(self, now: float) -> bool:
        """Called each second after `Clock.attend`, until it returns False."""
        return False

    @abc.abstractmethod
    def end(self, end: End, reason: str) -> None:
        """Send the reason, then nothing more. The first reason wins."""

    def drop(self) -> None:  # noqa: B027 - only connections that open before they prove anything need it
        """After `end`: leave no time for the client to read the reason."""

    @abc.abstractmethod
    async def wait_writable(self) -> None:
        """Wait until nothing waits to be sent or the connection has ended. Only one task may wait."""


class Socket(Protocol):
    """The shortest way to a client: a socket that does not wait."""

    def send(self, data: bytes, /) -> int:
        """Returns how many bytes the kernel has taken. Raises `OSError` if it takes none."""


class SharingConnection(Connection):
    """A connection that gets the same bytes of an event as all others of its kind in that channel."""

    __slots__ = ()

    paused: bool  # something waits for the client to read; `write` queues behind it

    @property
    @abc.abstractmethod
    def socket(self) -> Socket:
        """Sends directly while nothing waits."""

    @property
    def shares(self) -> bool:
        """Whether it really shares bytes, which depends on how it was made. Asked when it joins a feed."""
        return True

    @staticmethod
    @abc.abstractmethod
    def frame(channel: Channel, epoch: int, seq: int, text: bytes) -> bytes:
        """The bytes that are sent for an event."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Send finished bytes, now or when the client reads; otherwise as `deliver`."""
