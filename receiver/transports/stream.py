"""A connection that streams to one socket, and the limits on what waits for its client.

Bytes go straight to the kernel, past asyncio's transport, while the kernel takes them. What it does not take
waits in the transport's buffer, and `paused` is set; from then on everything is written to that buffer, so
the order is kept.

That buffer is bounded in bytes and in time (`StreamLimits`); beyond either limit the connection is ended as
slow. Dropping one event instead would leave a gap; ending makes the client come back with its cursor.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from receiver.connections.connection import Connection, End, Ending

if TYPE_CHECKING:
    from receiver.connections.life import Life
    from receiver.transports.limits import StreamLimits


class StreamConnection(Connection, asyncio.Protocol):
    """`writer` is the transport, or what temporarily takes its place."""

    __slots__ = ("_limits", "_waiter", "life", "paused", "socket", "waiting_since", "writer")

    def __init__(self, life: Life, limits: StreamLimits) -> None:
        super().__init__()
        self.life = life
        self._limits = limits
        self.writer: asyncio.Transport
        self.socket: socket.SocketType  # the transport's own, for sending while nothing waits
        self.paused = False  # something waits in the transport's buffer
        self.waiting_since = 0.0  # since when bytes wait, or since its end began; loop time
        self._waiter: asyncio.Future[None] | None = None  # of the one task that catches up

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.writer.write(data)
            if self.paused and self.writer.get_write_buffer_size() > self._limits.buffer_bytes:
                self.end(End.SLOW, "too slow")

    def write_straight(self, data: bytes) -> None:
        """As `write`, past the transport while the kernel takes it, which costs half as much.

        Not for the first bytes: what temporarily takes the transport's place must not be overtaken.
        """
        if not (self.closed or self.paused):
            try:
                sent = self.socket.send(data)
            except OSError:  # it takes nothing now, or the connection is gone: the transport finds out
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.write(data)

    def look(self, now: float) -> bool:
        """Called while something waits for the client to read, or to close its side."""
        if self.closed:
            if now - self.waiting_since > self._limits.linger_seconds:
                self.writer.abort()
        elif not self.paused:
            return False
        elif not self.behind:
            self.waiting_since = now
        elif now - self.waiting_since > self._limits.stall_seconds:
            self.end(End.SLOW, "too slow")
        return True

    @property
    def waiting_bytes(self) -> int:
        return int(self.writer.get_write_buffer_size()) if self.paused else 0

    @property
    def behind(self) -> bool:
        """Whether so much waits for the client that it will soon be ended as slow."""
        return self.paused and self.writer.get_write_buffer_size() > self._limits.stall_bytes

    async def wait_writable(self) -> None:
        if self.paused and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _end(self, code: int | str, reason: str) -> None:
        """Nothing is sent any more; the socket ends within `linger_seconds`. The first reason wins."""
        if not self.closed:
            self.closed = True
            self.ending = Ending(code if isinstance(code, str) else int(code), reason)
            self.waiting_since = asyncio.get_running_loop().time()
            self._wake()
            self.life.leave(self)
            self.life.clock.attend(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.writer = cast("asyncio.Transport", transport)  # uvloop's don't subclass it
        self.writer.set_write_buffer_limits(high=0)  # `paused` covers every byte that waits
        self.socket = _socket_of(transport)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.kernel_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.socket.detach()  # its file descriptor belongs to the transport, which closes it now
        self._wake()
        self.life.lost(self)

    def pause_writing(self) -> None:
        self.paused = True
        if not self.closed:
            self.waiting_since = asyncio.get_running_loop().time()
            self.life.clock.attend(self)

    def resume_writing(self) -> None:
        self.paused = False
        self._wake()


def _socket_of(transport: asyncio.BaseTransport) -> socket.SocketType:
    """The transport's own file, as a socket that can send. Detach it before the transport closes it.

    `send` costs the kernel a tenth less than `write`, which uvloop uses.
    """
    assert transport.get_extra_info("sslcontext") is None  # bytes sent past TLS would not be encrypted
    of = transport.get_extra_info("socket")
    return socket.SocketType(of.family, of.type, of.proto, of.fileno())
