"""STOMP over a WebSocket or SockJS: handles a client's frames in order, and sends it MESSAGEs.

To feeds, each subscription is a connection of its own: it enters its channel with SUBSCRIBE, at the place it
names or after what the customer has seen, and leaves with UNSUBSCRIBE. All of them share the client's socket,
and end with it.

A reset comes on the subscription that it concerns, whether or not the client subscribes to notices, because a
hole must never be silent. An event counts as seen when it is acknowledged; with `ack:auto` that is when it is
sent, as STOMP defines it.

destinations.py, beside this, has what can be subscribed to. Clients may send to no destination. With
ORDERBELL_SPRING_COMPAT they may send to `/app/hello`, anybody may read every topic, and events of the topics
of Spring's pages come as their data alone (spring.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.connections.connection import Connection, End, Ending
from receiver.connections.notices import Reset
from receiver.transports.limits import Allowance, WebSocketLimits
from receiver.transports.stomp import session as stomp
from receiver.transports.stomp import spring as of_spring
from receiver.transports.stomp.destinations import channel_of, cursors_of
from receiver.transports.stomp.form import form_of, shared_bytes
from receiver.transports.stomp.frames import HEARTBEAT, Frame, InvalidFrame, Parser, Version
from receiver.transports.websocket.close_codes import CODES, Close
from receiver.transports.websocket.connection import WebSocketConnection
from receiver.transports.websocket.frames import text_frame
from shared.channels import is_private
from shared.cursors import Place, parse_cursor
from shared.extents import Extent, Range

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from receiver.access.identity import Identity
    from receiver.connections.life import Life
    from receiver.connections.notices import Notice
    from receiver.transports.stomp.envelope import Envelope
    from receiver.transports.stomp.spring import Spring
    from shared.channels import Channel
    from shared.events import Entry

MAX_WAITING = 200  # frames of a client that wait to be handled

# A client may acknowledge each event with a frame of its own.
LIMITS = WebSocketLimits(
    message_bytes=64 * 1024, customers=Allowance(500, 10_000, 256 * 1024, 2 * 1024 * 1024)
)


class StompConnection(WebSocketConnection):
    """The connection of the client's socket."""

    __slots__ = (
        "_connected",
        "_frames",
        "_identify",
        "_session",
        "_spring",
        "_subscribed",
        "_waiting",
        "_wants_beats",
        "_working",
        "_writable",
        "envelope",
    )

    transport = "stomp"
    takes_binary = True  # STOMP's frames are bytes: stompjs sends them so with `forceBinaryWSFrames`

    def __init__(
        self,
        life: Life,
        envelope: Envelope,
        identify: Callable[[str], Awaitable[Identity]],
        limits: WebSocketLimits = LIMITS,
        *,
        spring: Spring | None = None,
    ) -> None:
        """`identify` gets the token of CONNECT, which is empty if the handshake authenticated the client.

        It raises `InvalidToken` and `KeysUnavailable`. `spring` is given with ORDERBELL_SPRING_COMPAT alone.
        """
        super().__init__(life, limits)
        self.envelope = envelope
        self._identify = identify
        self._spring = spring
        self._frames = Parser()
        self._session = stomp.Session()
        self._subscribed: dict[str, _Subscribed] = {}
        self._waiting: deque[Frame] = deque()
        self._working = False
        self._wants_beats = False
        self._writable = asyncio.Lock()
        self._connected = asyncio.Event()

    framed = staticmethod(text_frame)  # how a message is written to the socket

    # The gateway's side.

    @property
    def parts(self) -> Iterable[Connection]:
        return self._subscribed.values()

    def notify(self, notice: Notice) -> None:
        """Sends the notice to the subscriptions to notices."""
        for subscribed in list(self._subscribed.values()):
            if subscribed.channel is None:
                subscribed.notify(notice)

    def beat(self, now: float) -> None:
        super().beat(now)
        self._show_alive()

    def _show_alive(self) -> None:
        # SockJS heartbeats do not reach the STOMP client above SockJS, which waits for those of STOMP.
        if self._wants_beats:
            self.write(self.framed(self.envelope.wrap(HEARTBEAT)))
        elif self.envelope.beat:
            self.write(self.framed(self.envelope.beat))

    def end(self, end: End, reason: str) -> None:
        # An ERROR would confuse a client that comes back at once, and never reach one that does not read.
        if end not in (End.RESTART, End.SLOW):
            self._send_last(stomp.error(stomp.FrameRefused(reason)))
        self.close(CODES[end], reason)

    def close(self, code: Close, reason: str) -> None:
        if not self.closed and (farewell := self.envelope.farewell(code, reason)):
            self.writer.write(self.framed(farewell))
        super().close(code, reason)

    def _send_last(self, frame: Frame) -> None:
        """However much waits: a check here would end a connection that is ending already."""
        if not self.closed:
            self.writer.write(self.encoded(frame))

    async def wait_connected(self) -> None:
        """Wait until the client has authenticated, for which it has some seconds, or has ended."""
        try:
            async with asyncio.timeout(self.life.terms.authenticate_seconds):
                await self._connected.wait()
        except TimeoutError:
            self.end(End.UNAUTHENTICATED, "no CONNECT in time")

    async def wait_all_writable(self) -> None:
        """As `wait_writable`, for several tasks."""
        async with self._writable:
            await self.wait_writable()

    def send(self, frame: Frame) -> None:
        """Send straight to the kernel, if it takes the bytes. Not for the answer to CONNECT."""
        self.write_straight(self.encoded(frame))

    def encoded(self, frame: Frame) -> bytes:
        """The bytes of a frame as they are written."""
        return self.framed(self.envelope.wrap(frame.encode(self._session.version)))

    @property
    def version(self) -> Version:
        return self._session.version

    # The client's side.

    def received(self, text: bytes) -> None:
        try:
            for data in self.envelope.unwrap(text):
                for frame in self._frames.feed(data):
                    self._waiting.append(frame)
        except InvalidFrame as error:
            self._refuse(error)
            return
        if len(self._waiting) > MAX_WAITING:
            self.end(End.TOO_FAST, "too many frames")
        elif self._waiting and not self._working:
            self._working = True
            self.life.start(self, self._work())

    async def _work(self) -> None:
        """Do what the client asks for, in order, until nothing more waits."""
        try:
            while self._waiting and not self.closed:
                await self._do(self._waiting.popleft())
        except ForbiddenToken as error:
            self.end(End.FORBIDDEN, str(error))
        except InvalidToken as error:
            self.end(End.UNAUTHENTICATED, str(error))
        except (KeysUnavailable, of_spring.SenderAway) as error:
            self.end(End.TRY_AGAIN_LATER, str(error))
        finally:
            self._working = False

    async def _do(self, frame: Frame) -> None:
        """Raises `InvalidToken`, `KeysUnavailable` and `SenderAway`."""
        try:
            await self._carry_out(frame)
        except stomp.FrameRefused as refusal:
            self._refuse(refusal, of=frame)

    async def _carry_out(self, frame: Frame) -> None:
        """Raises `FrameRefused`, and as `_do`."""
        match self._session.take(frame):
            case stomp.Login(token, wants_beats_ms):
                await self._log_in(token, wants_beats=wants_beats_ms > 0)
            case stomp.Subscribed(subscription):
                self._subscribe(subscription, frame)
                return  # the receipt comes when the subscription is live
            case stomp.Unsubscribed(subscription):
                self._subscribed.pop(subscription.id).leave()
            case stomp.Acknowledged(subscription, place):
                self._subscribed[subscription.id].acknowledge(place)
            case stomp.Sent() as sent:
                await self._pass_on(sent)
            case stomp.Disconnected():
                self._confirm(frame)
                self.close(Close.NORMAL, "disconnected")
                return
        self._confirm(frame)

    async def _log_in(self, token: str, *, wants_beats: bool) -> None:
        self._frames.version = self._session.version
        self.identity = identity = await self._identify(token)
        self.life.capacity.prove(self)
        self._wants_beats = wants_beats
        self._connected.set()
        beats = round(self.life.terms.heartbeat_seconds * 1000)
        self.send(
            stomp.connected(
                self._session.version,
                session=secrets.token_hex(8),
                customer=identity.customer,
                beats_ms=(beats, beats),
            )
        )

    def _subscribe(self, subscription: stomp.Subscription, frame: Frame) -> None:
        assert self.identity is not None
        channel = channel_of(subscription.destination, self.identity, open=self._spring is not None)
        subscribed = _Subscribed(self, subscription, channel)
        self._subscribed[subscription.id] = subscribed
        if channel is None:
            self._confirm(frame)
        else:
            self.life.start(self, self._serve(subscribed, channel, frame))

    async def _serve(self, subscribed: _Subscribed, channel: Channel, frame: Frame) -> None:
        assert self.identity is not None
        cursors = cursors_of(subscribed.subscription.after, channel, self.identity)
        await self.life.serve(subscribed, self.identity, cursors, channels=(channel,))
        self._confirm(frame)

    async def _pass_on(self, sent: stomp.Sent) -> None:
        """Raises `FrameRefused` and `SenderAway`."""
        if self._spring is None or sent.destination != of_spring.HELLO:
            raise stomp.FrameRefused(f"no messages can be sent to {sent.destination[:80]!r}")
        listening = {one.channel for one in self._subscribed.values() if one.channel is not None}
        await self._spring.take(sent, listening)

    @property
    def for_spring(self) -> bool:
        """Whether events of the topics of Spring's pages come as those expect them."""
        return self._spring is not None

    def _confirm(self, frame: Frame) -> None:
        if (answer := stomp.receipt(frame)) is not None:
            self.send(answer)

    def _refuse(self, fault: stomp.FrameRefused | InvalidFrame, *, of: Frame | None = None) -> None:
        self._send_last(stomp.error(fault, of=of))
        self.close(Close.PROTOCOL_ERROR, str(fault))

    def _end(self, code: int | str, reason: str) -> None:
        super()._end(code, reason)
        self._leave_all()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave_all()

    def _leave_all(self) -> None:
        subscribed, self._subscribed = self._subscribed, {}
        for one in subscribed.values():
            one.leave()
        self._waiting.clear()
        self._connected.set()


class SockJsConnection(StompConnection):
    __slots__ = ()

    transport = "sockjs"


class _Subscribed(Connection):
    """One subscription, as feeds know it. `channel` is None for the gateway's own notices."""

    __slots__ = ("_bytes_of", "_confirms", "_notices", "_parent", "channel", "subscription")

    transport = "stomp"

    def __init__(
        self, parent: StompConnection, subscription: stomp.Subscription, channel: Channel | None
    ) -> None:
        super().__init__()
        self.number = parent.number
        self._parent = parent
        self.subscription = subscription
        self.channel = channel
        self.ending = Ending("", "")
        self._bytes_of = self._writing()
        self._confirms = subscription.acknowledge is not stomp.Acknowledge.AUTO
        self._notices = 0

    def _writing(self) -> Callable[[Place, bytes], bytes]:
        """How an event becomes bytes. Chosen once: one call more costs a tenth of a delivery's Python."""
        parent = self._parent
        form = form_of(self.subscription, parent.version, parent.envelope, parent.framed)
        if self.channel is None or is_private(self.channel):
            return form.bytes_of
        if parent.for_spring and of_spring.is_spring(self.channel):
            return partial(_bytes_for_spring, parent, self.subscription)
        return partial(shared_bytes, form)

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        if not self.closed:
            self._parent.write_straight(self._bytes_of(place, text))
            if self._confirms:
                self.subscription.sent = place
            else:
                # At once, because such a client keeps no cursor: what is unreported when this gateway dies
                # comes again.
                self.acknowledge(place)

    def deliver_all(self, channel: Channel, entries: Sequence[Entry]) -> None:
        if not self.closed and entries:
            self._parent.write_straight(b"".join([self._bytes_of(*entry) for entry in entries]))
            if self._confirms:
                self.subscription.sent = entries[-1].place
            else:
                self.acknowledge(entries[-1].place)

    def acknowledge(self, place: Place) -> None:
        """Of this event, or of all up to it. What was seen is kept only for a customer's own channel."""
        if self.channel is None or not is_private(self.channel):
            return
        alone = self.subscription.acknowledge is stomp.Acknowledge.EACH
        before = Place(place.epoch, 0)
        extent = Extent.of(before, [Range(place.seq, place.seq)]) if alone else Extent(place)
        self._parent.life.note_seen(self, self.channel, extent)

    def notify(self, notice: Notice) -> None:
        if self.closed:
            return
        if isinstance(notice, Reset) and self.channel is not None:
            place = self.subscription.sent = parse_cursor(notice.cursor).place
            self._parent.send(stomp.message(self.subscription, place, notice.cloud_event))
        elif self.channel is None:
            self._notices += 1
            self._parent.send(stomp.notice(self.subscription, self._notices, notice.cloud_event))
        else:
            self._parent.notify(notice)

    def beat(self, now: float) -> None:
        """Does nothing: the socket's connection beats."""

    def end(self, end: End, reason: str) -> None:
        self._parent.end(end, reason)

    async def wait_writable(self) -> None:
        await self._parent.wait_all_writable()

    def leave(self) -> None:
        if not self.closed:
            self.closed = True
            self._parent.life.leave(self)


def _bytes_for_spring(
    parent: StompConnection, subscription: stomp.Subscription, place: Place, text: bytes
) -> bytes:
    """Empty if a page of Spring's could not read it."""
    body = of_spring.body_of(text)
    if body is None:
        return b""
    return parent.encoded(stomp.message(subscription, place, body.text, body.content_type))
