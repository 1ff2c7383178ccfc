"""A SockJS client's requests for messages, as sockets taken over from the edge.

`xhr` is answered once, with the waiting messages or the first that comes; the edge gets its socket back. The
answer to `xhr_streaming` goes on, up to a size that a browser may keep in memory.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, cast

from shared.process.answer import format_answer
from shared.process.date import date_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.transports.sockjs.session import XhrSession
    from shared.process.edge import Edge
    from shared.process.head import Header

STREAM_BYTES = 128 * 1024  # of one streaming answer
PRELUDE = b"h" * 2048 + b"\n"  # some browsers show a stream only after this many bytes
_MAX_AHEAD = 16 * 1024  # bytes that a client may send before it is answered
_BETWEEN = re.compile(rb"\]\na\[")

HEADERS: list[Header] = [
    (b"content-type", b"application/javascript; charset=UTF-8"),
    (b"cache-control", b"no-store, no-cache, no-transform, must-revalidate, max-age=0"),
    (b"x-accel-buffering", b"no"),
]


class _Taken(asyncio.Protocol):
    """A socket that was taken over for a session."""

    __slots__ = ("_ahead", "_done", "_session", "_transport")

    def __init__(self, session: XhrSession) -> None:
        self._session = session
        self._ahead = b""
        self._done = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's don't subclass it

    def data_received(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _MAX_AHEAD:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has aborted the receiver, and messages of the session may have been lost with it."""
        if not self._done:
            self._done = True
            self._session.vanish("closed by the client")


class XhrReceiver(_Taken):
    __slots__ = ("_edge", "_headers")

    def __init__(self, session: XhrSession, edge: Edge, headers: Sequence[Header]) -> None:
        super().__init__(session)
        self._edge = edge
        self._headers = headers

    @property
    def may_take(self) -> bool:
        return True

    @property
    def unsent(self) -> int:
        return 0

    def take(self, messages: bytes) -> bool:
        self._answer(_BETWEEN.sub(b",", messages))  # joined into one frame if possible
        return False

    def end(self) -> None:
        if not self._done:
            self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self._done = True
        ending = [(b"connection", b"close")] if self._edge.ends_after_answer else []
        answer = format_answer(200, [*HEADERS, *self._headers, *ending], body)
        self._edge.take_back(answer, self._ahead)


class StreamReceiver(_Taken):
    __slots__ = ("_headers", "_sent", "may_take")

    def __init__(self, session: XhrSession, headers: Sequence[Header]) -> None:
        super().__init__(session)
        self._headers = headers
        self._sent = 0
        self.may_take = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport.set_write_buffer_limits(high=0)
        headers = (date_now(), *HEADERS, *self._headers, (b"connection", b"close"))
        lines = [name + b": " + value for name, value in headers]
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + PRELUDE)

    @property
    def unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    def take(self, messages: bytes) -> bool:
        self._transport.write(messages)
        self._sent += len(messages)
        if self._sent < STREAM_BYTES and not self._session.closed:
            return True
        self.end()
        return False

    def end(self) -> None:
        self._done = True
        self._transport.close()

    def pause_writing(self) -> None:
        self.may_take = False

    def resume_writing(self) -> None:
        self.may_take = True
        if not self._done:
            self._session.carriage.flush()
