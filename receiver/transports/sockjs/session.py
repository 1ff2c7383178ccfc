"""One SockJS session without a WebSocket: its messages wait for the client's requests, `receivers`.

https://github.com/sockjs/sockjs-protocol, 0.3.3. A session begins with its first receiver. One receiver at a
time gets the messages; a second one is refused. The session ends if its receiver is aborted, or if no
receiver comes for some seconds; once it is closed, each receiver gets the same farewell.

For the STOMP connection this is a transport with a buffer, whose size in bytes and time that connection
limits.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

from receiver.connections.connection import End
from receiver.transports.stomp.connection import LIMITS, SockJsConnection
from receiver.transports.stomp.envelope import SOCKJS
from receiver.transports.websocket.close_codes import Close
from receiver.transports.websocket.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from receiver.access.identity import Identity
    from receiver.connections.life import Life
    from receiver.transports.limits import WebSocketLimits
    from receiver.transports.stomp.spring import Spring

# More may wait than for a socket: messages collect between two receivers and while an answer is put together.
XHR_BUFFER_BYTES = 1024 * 1024
AWAY_SECONDS = 15.0  # that a session lives without a receiver; other servers' 5 are too few on slow networks
SECOND_RECEIVER = b'c[2010,"Another connection still open"]\n'


class Receiver(Protocol):
    """A request of the client, to be answered with messages."""

    @property
    def may_take(self) -> bool:
        """Whether the client reads what it is sent."""

    @property
    def unsent(self) -> int:
        """Bytes that wait in its socket."""

    def take(self, messages: bytes) -> bool:
        """Send messages. Returns whether it takes more."""

    def end(self) -> None:
        """Called when nothing more comes."""


class Carriage:
    """Takes the place of a connection's asyncio transport."""

    def __init__(self, session: XhrSession, away_seconds: float) -> None:
        self._session = session
        self._away_seconds = away_seconds
        self._waiting: list[bytes] = []
        self._size = 0
        self._due = False
        self._receiver: Receiver | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lost = False
        self.farewell = b""  # the last message, sent to every later receiver

    # What the connection calls.

    def write(self, data: bytes) -> None:
        if data:
            self._waiting.append(data)
            self._size += len(data)
            self._note_what_waits()
            self._flush_soon()

    def get_write_buffer_size(self) -> int:
        return self._size + (self._receiver.unsent if self._receiver is not None else 0)

    def is_closing(self) -> bool:
        return self._lost

    def pause_reading(self) -> None:
        """Does nothing: each request is checked by itself."""

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._lost:
            self._lost = True
            self._set_timer(None)
            if self._receiver is not None:
                self._receiver.end()
                self._receiver = None
            asyncio.get_running_loop().call_soon(self._session.connection_lost, None)

    # What receivers call.

    def wait_receiver(self) -> None:
        """Wait for the first receiver: its request may have failed after it began the session."""
        self._set_timer(self._away_seconds)

    @property
    def has_receiver(self) -> bool:
        return self._receiver is not None

    def attach(self, receiver: Receiver) -> None:
        self._set_timer(None)
        self._receiver = receiver
        if not self._waiting and self.farewell:
            self.write(self.farewell)
        self.flush()

    def detach(self, receiver: Receiver) -> None:
        """The receiver takes no more; wait for another one."""
        if self._receiver is receiver:
            self._receiver = None
            self.wait_receiver()
            self._note_what_waits()

    def flush(self) -> None:
        """Hand over what waits."""
        self._due = False
        receiver = self._receiver
        if self._waiting and receiver is not None and receiver.may_take:
            messages, self._waiting, self._size = b"".join(self._waiting), [], 0
            if not receiver.take(messages):
                self.detach(receiver)
        self._note_what_waits()

    def _flush_soon(self) -> None:
        """Sends in the next turn of the loop, so that messages heard together leave in one answer."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def _note_what_waits(self) -> None:
        waits = bool(self._waiting) or (self._receiver is not None and not self._receiver.may_take)
        if waits and not self._session.paused:
            self._session.pause_writing()
        elif not waits and self._session.paused:
            self._session.resume_writing()

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._session.vanish, "no receiver") if seconds else None


class XhrSession(SockJsConnection):
    __slots__ = ("_forget", "carriage", "proof")

    transport = "sockjs-xhr"

    def __init__(
        self,
        life: Life,
        identify: Callable[[str], Awaitable[Identity]],
        forget: Callable[[], None],
        *,
        limits: WebSocketLimits = LIMITS,
        spring: Spring | None = None,
        away_seconds: float = AWAY_SECONDS,
    ) -> None:
        """`forget` is called at its end."""
        limits = replace(limits, buffer_bytes=XHR_BUFFER_BYTES)
        super().__init__(life, SOCKJS, identify, limits, spring=spring)
        self.carriage = Carriage(self, away_seconds)
        self.writer = cast("asyncio.Transport", self.carriage)  # as much of one as is used
        self._forget = forget
        self.proof = b""  # digest of the token with which it began

    @staticmethod
    def framed(message: bytes) -> bytes:
        return message + b"\n"

    def write_straight(self, data: bytes) -> None:
        """There is no socket to write to directly."""
        self.write(data)

    def received(self, text: bytes) -> None:
        """A request of the client counts as a frame, as a socket's read would."""
        if self._traffic is None:
            self._traffic = Traffic()
        self._traffic.count_frame(len(text), self.life.clock.ticks)
        if self._traffic.exceeds(self._limits.customers if self.identity else self._limits.strangers):
            self.end(End.TOO_FAST, "too many messages")
        else:
            super().received(text)

    def beat(self, now: float) -> None:
        """Its silence says nothing: a client is alive as long as its receivers come."""
        self._traffic = None
        if not self.closed and self.carriage.has_receiver:
            self._show_alive()

    def close(self, code: Close, reason: str) -> None:
        if not self.closed:
            self.carriage.farewell = self.framed(self.envelope.farewell(code, reason))
            self.carriage.write(self.carriage.farewell)
            self._end(code, reason)

    def vanish(self, reason: str) -> None:
        """Its client is gone."""
        self._end(Close.VANISHED, reason)
        self.carriage.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._forget()
        self._wake()
        self.life.lost(self)
        self._leave_all()
