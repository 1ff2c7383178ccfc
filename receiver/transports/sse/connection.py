"""One event stream: an HTTP response that does not end, on a socket taken over from the edge.

Every event carries the connection's whole cursor as its `id`: a client sends it as `Last-Event-ID` when it
comes back, to any gateway. Events are plain messages; the gateway's own messages have their type as `event`.
The answer's head waits for the first message, so what ends a connection before that is an HTTP status;
afterwards it is an event, `orderbell.end`.

A client sends nothing on this socket. If it vanishes, that is noticed because TCP does not acknowledge what
is sent: at least a comment each heartbeat.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from receiver.connections.connection import End, Ending, SharingConnection
from receiver.connections.notices import Bye, Ended, Hello, Reset
from receiver.transports.http import format_refusal
from receiver.transports.limits import StreamLimits
from receiver.transports.sse import fields
from receiver.transports.stream import StreamConnection
from shared.process.date import date_now

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from receiver.connections.life import Life
    from receiver.connections.notices import Notice
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.events import Entry
    from shared.process.head import Header

RETRY_MS = 2_000  # until a client that lost its connection comes back; networks' delays spread it
_MAX_IGNORED = 16 * 1024  # bytes that a client may send, though nothing reads them

HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would wait for a buffer to fill
    (b"connection", b"close"),  # the stream ends with its connection
]

LIMITS = StreamLimits()


class EventStream(StreamConnection, SharingConnection):
    __slots__ = ("_cursors", "_headers", "_ignored")

    transport = "sse"

    def __init__(self, life: Life, headers: Sequence[Header], limits: StreamLimits = LIMITS) -> None:
        """`headers` go with the answer, whatever it is."""
        super().__init__(life, limits)
        self.ending = Ending("vanished", "")
        self._headers: Sequence[Header] | None = headers  # until the answer's head is sent
        self._cursors: dict[Channel, bytes] = {}  # of the last event of each channel
        self._ignored = 0

    # The gateway's side.

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        self.write_straight(self._event(channel, place, text))

    def deliver_all(self, channel: Channel, entries: Sequence[Entry]) -> None:
        self.write_straight(b"".join([self._event(channel, *entry) for entry in entries]))

    def _event(self, channel: Channel, place: Place, text: bytes) -> bytes:
        cursors = self._cursors
        cursors[channel] = cursor = f"{channel}={place[0]}.{place[1]}".encode()
        return fields.event(text, id=cursor if len(cursors) == 1 else b",".join(cursors.values()))

    def _id(self) -> bytes:
        feeds = self.feeds
        if self.shares and self in feeds[0].sharing and (place := feeds[0].place) is not None:
            return f"{feeds[0].channel}={place}".encode()  # its events bypass `_event`
        return b",".join(self._cursors.values())

    @property
    def shares(self) -> bool:
        """With one channel, an event's id is the same for all connections."""
        return len(self.feeds) == 1

    @staticmethod
    def frame(channel: Channel, epoch: int, seq: int, text: bytes) -> bytes:
        return fields.placed(channel.encode(), epoch, seq, text)

    def notify(self, notice: Notice) -> None:
        retry_ms = None
        if isinstance(notice, Hello):
            retry_ms = RETRY_MS
            self._cursors = dict(zip(notice.channels, notice.cursor.encode().split(b","), strict=True))
        elif isinstance(notice, Reset):
            self._cursors[notice.channel] = notice.cursor.encode()
        elif isinstance(notice, Bye):
            retry_ms = notice.retry_after_ms
        kind = notice.type.encode()
        text = fields.event(notice.cloud_event, id=self._id(), kind=kind, retry_ms=retry_ms)
        self.write(self._take_head() + text)

    def _take_head(self) -> bytes:
        """The answer's head, if it was not sent yet."""
        headers, self._headers = self._headers, None
        if headers is None:
            return b""
        lines = [name + b": " + value for name, value in (date_now(), *HEADERS, *headers)]
        return b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"

    def beat(self, now: float) -> None:
        if self._headers is None:
            self.write(fields.COMMENT)

    def end(self, end: End, reason: str) -> None:
        if self.closed:
            return
        if self._headers is not None:
            self.writer.write(format_refusal(end, reason, self._headers))
        else:
            text = Ended(end.value, reason).cloud_event
            self.writer.write(fields.event(text, id=self._id(), kind=Ended.type.encode()))
        self._end(end.value, reason)
        self.writer.close()

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT") and self.socket.family in (socket.AF_INET, socket.AF_INET6):
            unacknowledged_ms = int(2_000 * self.life.terms.heartbeat_seconds)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged_ms)

    def data_received(self, data: bytes) -> None:
        self._ignored += len(data)
        if self._ignored > _MAX_IGNORED:
            self._end(End.TOO_FAST.value, "sent data on an event stream")
            self.writer.abort()

    def eof_received(self) -> None:
        """The client has left: none closes only one side of an event stream."""
        self._end("left", "closed by the client")
