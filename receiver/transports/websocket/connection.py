"""One WebSocket after its handshake: a socket, the feeds it is in, and a few flags.

Nothing runs for an idle connection and nothing is kept for it but this object. Frames from the browser
are rare (seen, pong, close); the websockets library parses and checks them, with a parser that is made
when bytes come and dropped when they end between two frames.

What is sent goes straight to the kernel, past the transport, while the kernel takes it: the hub uses
`socket` for that. What it does not take waits in the transport's buffer, and `paused` says that something
does; so everything leaves in the order in which it was written.

Backpressure is that buffer. It is bounded in bytes (`MAX_BUFFER`) and in time (`MAX_STALL_SECONDS`,
receiver/connections/clock.py); beyond either the connection is closed with 4408. Dropping one event instead
would leave a gap; closing makes the browser come back with its cursor.
"""

from __future__ import annotations

import asyncio
import socket
from types import GeneratorType
from typing import TYPE_CHECKING, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER
from websockets.protocol import Protocol as Parser

from receiver.feeds.hub import Close
from receiver.transports.websocket.frames import PING, close_frame, text_frame

if TYPE_CHECKING:
    from receiver.access.identity import Identity
    from receiver.feeds.hub import Feed

MAX_MESSAGE_BYTES = 16 * 1024  # of one message from a browser: room for a token
MAX_BUFFER = 256 * 1024  # bytes that wait for one browser
STALL_BUFFER = 64 * 1024  # from here on the stall clock runs
MAX_STALL_SECONDS = 5.0
LINGER_SECONDS = 2.0  # for the browser to answer our close frame
_VANISHED: tuple[int, str] = (1006, "")
_EMPTY_PONG = b"\x8a\x80"  # before its mask of four bytes, which masks nothing
_EMPTY_PONG_BYTES = 6
FRAMES_PER_HEARTBEAT = 400  # from one browser, control frames included, then 4429


class Listener(Protocol):
    """Who is told what a connection hears; one for all connections of a gateway."""

    def receive(self, connection: Connection, message: bytes) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def stalled(self, connection: Connection) -> None: ...
    def closing(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """A `receiver.feeds.hub.Subscriber` on a WebSocket."""

    __slots__ = (
        "_close_sent",
        "_fragments",
        "_listener",
        "_parser",
        "_waiter",
        "closed",
        "feeds",
        "frames_left",
        "heard",
        "identity",
        "opened_at",
        "paused",
        "reason",
        "since",
        "socket",
        "writer",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.writer: asyncio.Transport
        self.socket: socket.SocketType  # the transport's own; for the hub to send by while nothing waits
        self._parser: Parser | None = None
        self._fragments: list[bytes] | None = None  # of a message that is not whole yet
        self._waiter: asyncio.Future[None] | None = None  # of the one task that catches up
        self._close_sent = False
        self.opened_at = asyncio.get_running_loop().time()
        self.closed = False  # nothing is sent any more
        self.reason = _VANISHED  # of the end, for the log
        self.identity: Identity | None = None
        self.feeds: tuple[Feed, ...] = ()
        self.paused = False  # something waits in the transport's buffer
        self.since = 0.0  # when it fell behind, or began to close; loop time
        self.heard = True  # any bytes since the last heartbeat
        self.frames_left = FRAMES_PER_HEARTBEAT

    # The hub's side: nothing here waits.

    @property
    def behind(self) -> bool:
        """So much waits for the browser that it can't go on for long."""
        return self.paused and self.writer.get_write_buffer_size() > STALL_BUFFER

    def tell(self, *texts: bytes) -> None:
        """Send messages to this browser alone, all in one write."""
        self.write(b"".join(map(text_frame, texts)))

    def write(self, frame: bytes) -> None:
        if not self.closed:
            self.writer.write(frame)
            if self.paused and self.writer.get_write_buffer_size() > MAX_BUFFER:
                self.close(Close.SLOW, "too slow")

    def ping(self) -> None:
        if not self.closed:
            self.writer.write(PING)

    def close(self, code: Close, reason: str) -> None:
        """Send a close frame and nothing more. The first reason wins."""
        if not self.closed:
            self.writer.write(close_frame(code, reason))
            self._close_sent = True
            self._end(code, reason)

    def abort(self, code: int, reason: str) -> None:
        """End at once, without a word to a browser that does not listen."""
        if not self.closed:
            self._end(code, reason)
        self.writer.abort()

    async def wait_writable(self) -> None:
        """Until nothing waits in the buffer or the connection has ended. For one task at a time."""
        if self.paused and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.writer = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self.writer.set_write_buffer_limits(high=0)  # `paused` tells of every byte that waits
        self.socket = _socket_of(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.socket.detach()  # its file is the transport's, which closes it now
        self._parser = None
        self._wake()
        self._listener.lost(self)

    def pause_writing(self) -> None:
        self.paused = True
        if not self.closed:
            self.since = asyncio.get_running_loop().time()
            self._listener.stalled(self)

    def resume_writing(self) -> None:
        self.paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._parser is None and len(data) == _EMPTY_PONG_BYTES and data.startswith(_EMPTY_PONG):
            self._count_frame()  # answers our ping; parsers for that were a fifth of an idle gateway's time
            return
        parser = self._parser or Parser(SERVER, max_size=MAX_MESSAGE_BYTES)
        parser.receive_data(data)
        for frame in parser.events_received():
            assert isinstance(frame, Frame)
            self._take(frame)
        if self._flush(parser):
            self._parser = None if _between_frames(parser) else parser

    def _count_frame(self) -> bool:
        """Whether it is not one too many."""
        self.frames_left -= 1
        if self.frames_left < 0:
            self.close(Close.TOO_FAST, "too many frames")
        return self.frames_left >= 0

    def _take(self, frame: Frame) -> None:
        if not self._count_frame():
            return
        if frame.opcode is Opcode.CLOSE:
            code = int.from_bytes(frame.data[:2], "big") if frame.data else 1005
            self._end(code, "closed by the browser")
        elif frame.opcode is Opcode.BINARY:
            self.close(Close.UNSUPPORTED_DATA, "text only")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT) and not self.closed:
            self._take_text(bytes(frame.data), final=frame.fin)

    def _take_text(self, text: bytes, *, final: bool) -> None:
        if self._fragments is not None or not final:
            self._fragments = [*(self._fragments or ()), text]
            text = b"".join(self._fragments)
        if final:
            self._fragments = None
            self._listener.receive(self, text)

    def _flush(self, parser: Parser) -> bool:
        """Send what the parser answers: pongs, a close. False once the connection ends."""
        answer = b"".join(parser.data_to_send())
        if self._close_sent:  # what counts now is only the browser's answer to it
            answer = b""
        if parser.parser_exc is not None:
            self._end(parser.close_sent.code if parser.close_sent else 1006, str(parser.parser_exc))
        if answer and self.behind:  # pings from one that does not read
            self.abort(Close.SLOW, "answers pile up")
            return False
        if answer:
            self.writer.write(answer)
        if parser.close_expected():
            self.writer.close()
            return False
        return True

    def _end(self, code: int, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.reason = (int(code), reason)
            self.since = asyncio.get_running_loop().time()
            self._wake()
            self._listener.closing(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None


def _socket_of(transport: asyncio.BaseTransport) -> socket.SocketType:
    """The transport's own file, as a socket that can send. To be detached before the transport closes it.

    To send costs the kernel a tenth less than to write, which is what uvloop does: a socket is no file.
    """
    assert transport.get_extra_info("sslcontext") is None  # what goes past TLS would leave in the clear
    of = transport.get_extra_info("socket")
    return socket.SocketType(of.family, of.type, of.proto, of.fileno())


def _between_frames(parser: Parser) -> bool:
    """Whether the parser waits for the first byte of a message, so that a new one would do as well."""
    assert isinstance(parser.parser, GeneratorType)
    waiting_in = parser.parser.gi_yieldfrom
    between = isinstance(waiting_in, GeneratorType) and waiting_in.__name__ == "at_eof"
    return between and parser.current_size is None
