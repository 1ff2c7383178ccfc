"""The life of every connection of a gateway, whatever its transport.

A connection is accepted (`open`) and its client identified. It enters its channels' feeds, gets hello with
the places where it starts, is caught up and goes live in each feed (`serve`). In the end it leaves them. What
waits runs in the task that accepted the connection; once it is live, no task belongs to it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from receiver import metrics
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.connections.connection import End
from receiver.connections.failing import end_failed, end_one
from receiver.connections.messages import BadMessage, Credentials, Ping, ReadReport, parse_message
from receiver.connections.notices import Bye, Hello, Pong
from receiver.connections.register import Register
from shared.channels import is_private
from shared.cursors import InvalidCursor, parse_cursors
from shared.process.sampled import Sampled

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from starlette.requests import HTTPConnection

    from receiver.access.authentication import Authentication
    from receiver.access.capacity import Capacity
    from receiver.access.identity import Identity
    from receiver.connections.clock import Clock
    from receiver.connections.connection import Connection
    from receiver.connections.messages import SeenReport
    from receiver.feeds.alerts import ReadReports
    from receiver.feeds.feed import Feed
    from receiver.feeds.keeper import Keeper
    from receiver.feeds.seen import SeenReports
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.extents import Extent

# What a reason quotes is a client's text, and may be anything: its payload, or a token in the wrong place.
_QUOTED = re.compile(r"""(?::|\s['"`]).*""", re.DOTALL)
_LINES = 200  # in ten seconds, about connections of one transport that opened, or ended with one code
_MAX_RETRY_MS = 2_000  # clients that are sent away spread their return over it
_MAX_PAUSE_SECONDS = 30.0  # beyond it, other gateways may refuse some for a moment
_SHARE = 0.7  # of the handshakes that another gateway accepts; the rest is for its own, and for chance

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Terms:
    """What a gateway promises its clients, and grants them."""

    gateway: str  # its name
    heartbeat_seconds: float
    max_connections_per_customer: int
    authenticate_seconds: float = 5.0  # for a client to authenticate with its first message


class Life:
    def __init__(
        self,
        keeper: Keeper,
        clock: Clock,
        seen: SeenReports,
        reads: ReadReports,
        authentication: Authentication,
        capacity: Capacity,
        terms: Terms,
    ) -> None:
        self._keeper = keeper
        self.clock = clock
        self._seen = seen
        self._reads = reads
        self._authentication = authentication
        self.capacity = capacity
        self._of_strangers = Sampled(logger)
        self._of_customers = Sampled(logger, lines=_LINES)
        self._of_refused = Sampled(logger)
        self.terms = terms
        self.register = Register(time.time())
        self._numbers = itertools.count(1)
        self._started = f"{int(time.time()):x}"
        self._proving: dict[Connection, tuple[HTTPConnection, asyncio.Future[Identity]]] = {}
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Runs until cancelled; messages are handled only while this runs."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()  # until it is cancelled

    def start(self, connection: Connection, work: Coroutine[Any, Any, None]) -> None:
        """Run a connection's task. Its failure ends that connection, and no other."""
        self._tasks.create_task(self._contain(connection, work))

    async def _contain(self, connection: Connection, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # all connections share the task group
            end_failed(connection, "a connection's task failed")

    def open(self, connection: Connection) -> None:
        """The connection is accepted. From now on, `lost` will be called for it once."""
        connection.number = next(self._numbers)
        self.clock.add(connection)
        self.capacity.enter(connection)
        metrics.connections_of(connection.transport).inc()

    def id_of(self, connection: Connection) -> str:
        """Distinguishes it from every other of this gateway, also from those before its last start."""
        return f"{self._started}-{connection.number}"

    def end_erased(self, feed: Feed) -> None:
        """The connection's customer was erased: it ends even if the token is still valid."""
        for connection in self.clock.connections:
            # Judged by its identity, not its feeds: STOMP's are those of its subscriptions.
            identity = connection.identity
            if identity is not None and identity.owns(feed.channel):
                end_one(connection, End.UNAUTHENTICATED, "the customer was erased")

    async def wait_proof(self, connection: Connection, request: HTTPConnection) -> Identity | None:
        """The identity that its first message proves; None if it ended first. `request` is its handshake.

        Raises `InvalidToken` if no message comes in time.
        """
        proof: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
        self._proving[connection] = request, proof
        await asyncio.wait([proof], timeout=self.terms.authenticate_seconds)
        if not proof.done():
            raise InvalidToken(f"no token within {self.terms.authenticate_seconds:g} s")
        return None if proof.cancelled() else proof.result()

    async def serve(
        self,
        connection: Connection,
        identity: Identity,
        cursors: Mapping[Channel, Place],
        *,
        channels: Sequence[Channel] = (),
    ) -> None:
        """Bring an authenticated connection into its identity's feeds, or those of the channels given.

        Ends it if that fails.
        """
        channels = channels or identity.channels
        foreign = [channel for channel in cursors if channel not in channels]
        if foreign:
            connection.end(End.FORBIDDEN, f"the token does not name {foreign[0]}")
        if connection.closed:
            return
        if self._authentication.revocations.touches(identity):  # revoked since it was verified
            connection.end(End.UNAUTHENTICATED, "the token was revoked")
            return
        connection.identity = identity
        self.capacity.prove(connection)
        self._keeper.enter(connection, channels)
        metrics.opened_of(connection.transport).inc()
        if cursors:
            metrics.resumed_of(connection.transport).inc()
        if not connection.passing:
            self._of_customers.info(
                "connection opened",
                kind=connection.transport,
                connection=self.id_of(connection),
                gateway=self.terms.gateway,
                transport=connection.transport,
                topics=len(identity.topics),
                resumed=bool(cursors),
            )
        first = connection.feeds[0]
        if is_private(first.channel) and first.member_count > self.terms.max_connections_per_customer:
            connection.end(End.TOO_MANY_CONNECTIONS, "too many connections of one customer")
            return
        starts = await self._keeper.starts(connection, cursors)
        if starts is not None:
            connection.notify(self._hello(connection, starts))
            await self._keeper.bring_in(connection, starts)

    def _hello(self, connection: Connection, starts: Mapping[Channel, Place]) -> Hello:
        terms = self.terms
        heads = {feed.channel: feed.place or starts[feed.channel] for feed in connection.feeds}
        return Hello.at(starts, heads, heartbeat_seconds=terms.heartbeat_seconds, gateway=terms.gateway)

    # What the transport reports.

    def receive(self, connection: Connection, text: bytes) -> None:
        """Handle a message of the connection's client."""
        connection.spoke_at = asyncio.get_running_loop().time()
        try:
            message = parse_message(text)
            if isinstance(message, Credentials):
                self.start(connection, self._verify(connection, message))
            elif connection.identity is None:
                connection.end(End.UNAUTHENTICATED, "authenticate first")
            elif isinstance(message, Ping):
                connection.notify(Pong())
            elif isinstance(message, ReadReport):
                self.report_read(connection, message)
            else:
                self.report_seen(connection, message)
        except BadMessage as error:
            connection.end(End.BAD_MESSAGE, str(error))

    def report_seen(self, connection: Connection, report: SeenReport) -> None:
        """Only places up to those of its feeds count: what was not handed over can't have been seen.

        Raises `BadMessage`.
        """
        try:
            seen = report.parse()
        except InvalidCursor as error:
            raise BadMessage(str(error)) from None
        for channel, extent in seen:
            self.note_seen(connection, channel, extent)

    def report_read(self, connection: Connection, report: ReadReport) -> None:
        """Only alerts of the customer's own channel count, up to its feed's place. Raises `BadMessage`."""
        try:
            places = parse_cursors(report.cursor)
        except InvalidCursor as error:
            raise BadMessage(str(error)) from None
        for feed in connection.feeds:
            if is_private(feed.channel) and feed.place is not None:
                up_to = feed.place if report.all else places.get(feed.channel)
                if report.ids or (up_to is not None and up_to <= feed.place):
                    self._reads.report(feed.channel, up_to, report.ids)

    def note_seen(self, connection: Connection, channel: Channel, extent: Extent) -> None:
        """As `report_seen`, for one channel."""
        feed = next((feed for feed in connection.feeds if feed.channel == channel), None)
        if feed is not None and is_private(channel) and feed.place is not None and extent.last <= feed.place:
            self._seen.report(channel, extent)

    def leave(self, connection: Connection) -> None:
        """Nothing is sent any more: the connection leaves its feeds now, not when its client is gone."""
        self._keeper.leave(connection)

    def lost(self, connection: Connection) -> None:
        """The connection is gone; `ending` describes how."""
        self.leave(connection)
        self.clock.discard(connection)
        self.capacity.leave(connection)
        if proving := self._proving.pop(connection, None):
            proving[1].cancel()
        code, reason = connection.ending
        lasted = asyncio.get_running_loop().time() - connection.opened_at
        self.register.note_ending(connection, self.id_of(connection), lasted=lasted, now=time.time())
        metrics.connections_of(connection.transport).dec()
        metrics.closed_with(str(code)).inc()
        fields = {
            "connection": self.id_of(connection),
            "gateway": self.terms.gateway,
            "transport": connection.transport,
            "topics": len(connection.identity.topics) if connection.identity else 0,
            "seconds": round(lasted, 3),
            "code": code,
            "reason": _QUOTED.sub("", reason),
        }
        if connection.passing:
            logger.debug("connection closed", **fields)
        elif connection.identity is not None:
            self._of_customers.info("connection closed", kind=str(code), **fields)
        else:  # any client can cause any number of these
            self._of_strangers.info("connection closed", kind=f"{connection.transport} {code}", **fields)

    async def _verify(self, connection: Connection, credentials: Credentials) -> None:
        """The first token makes it a customer's connection; later ones extend it."""
        try:
            # A ticket that renews must name the same customer, so its page does not matter.
            request, _ = self._proving.get(connection, (None, None))
            identity = await self._authentication.verify(
                token=credentials.token, ticket=credentials.ticket, request=request
            )
        except ForbiddenToken as error:
            connection.end(End.FORBIDDEN, str(error))
            return
        except InvalidToken as error:
            connection.end(End.UNAUTHENTICATED, str(error))
            return
        except KeysUnavailable as error:
            connection.end(End.TRY_AGAIN_LATER, str(error))
            return
        _, proof = self._proving.pop(connection, (None, None))
        if proof is not None and not proof.done():
            proof.set_result(identity)
        elif connection.identity is not None and connection.identity.channels != identity.channels:
            connection.end(End.FORBIDDEN, "the new token names other channels")
        elif connection.identity is not None:
            connection.identity = identity

    def note_refusal(self, kind: str, reason: str, *, transport: str = "websocket") -> None:
        """A handshake, or a request that would be a connection, was refused before it was accepted."""
        self.register.note_refusal(transport, kind, reason, now=time.time())
        # Never the reason, which may quote the client.
        self._of_refused.info(
            "handshake refused",
            kind=f"{transport} {kind}",
            gateway=self.terms.gateway,
            transport=transport,
            refusal=kind,
        )

    # The end.

    async def drain(self, seconds: float) -> None:
        """Say goodbye to everyone, spread over that time, and end them.

        They come back no faster than one other gateway with our settings lets them in.
        """
        connections = self.clock.connections
        random.shuffle(connections)
        started = asyncio.get_running_loop().time()
        pause_ms = 1000 * pause_seconds(len(connections), seconds, self.capacity.handshakes_per_second)
        for n, connection in enumerate(connections):
            share = n / len(connections)
            await asyncio.sleep(max(0.0, started + seconds * share - asyncio.get_running_loop().time()))
            try:
                self.say_goodbye(connection, round(pause_ms * share))
            except Exception:  # of one connection: the others are still to be sent away
                end_failed(connection, "a connection could not be sent away")
        await self.clock.wait_empty()

    def say_goodbye(self, connection: Connection, least_ms: int = 0) -> None:
        connection.notify(Bye(least_ms + random.randint(0, _MAX_RETRY_MS)))
        connection.end(End.RESTART, "going away, come back")


def pause_seconds(connections: int, drain_seconds: float, handshakes_per_second: int) -> float:
    """How much longer the last one of a drain stays away than the first: 0 where the drain is slow enough."""
    return max(0.0, min(connections / (_SHARE * handshakes_per_second) - drain_seconds, _MAX_PAUSE_SECONDS))
