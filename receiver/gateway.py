"""One gateway: its parts, put together, and the life of a connection in it.

A connection's life: accepted, authenticated, a member of its channels' feeds, told where it starts
(hello), caught up and live in each feed, ended. The waiting parts run in the task that accepted it;
once it is live no task belongs to it.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec
import structlog

from receiver import metrics
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.connections import notices
from receiver.connections.clock import Heartbeat
from receiver.feeds.catch_up import CatchUp, Unavailable
from receiver.feeds.hub import Close, Hub
from receiver.feeds.repair import Repair
from receiver.feeds.seen import SeenReports
from receiver.subscription.shards import subscription_to
from shared.channels import is_private
from shared.cursors import InvalidCursor, parse_cursors
from shared.redis.channel_log import Entry, LogReader, SeenNotice, parse_live
from shared.redis.keys import Names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from receiver.access.authentication import Authentication
    from receiver.access.identity import Identity
    from receiver.feeds.history import History
    from receiver.feeds.hub import Feed
    from receiver.subscription.subscription import Pace
    from receiver.transports.websocket.connection import Connection
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.redis.cluster import Cluster
    from shared.redis.connect import AnyPipelines
    from shared.settings import ReceiverSettings

ESTABLISH_SECONDS = 10.0  # for a channel's first subscription, or its place from the sender

logger = structlog.get_logger(__name__)


class _Data(msgspec.Struct):
    cursor: str = ""
    token: str = ""
    ticket: str = ""


class _Message(msgspec.Struct):
    """What a browser sends: a CloudEvent, of which these two matter."""

    type: str
    data: _Data = msgspec.field(default_factory=_Data)


_decode_message = msgspec.json.Decoder(_Message).decode


class BadMessage(ValueError):
    """A browser sent what no client of ours sends."""


class Gateway:
    def __init__(
        self,
        redis: Redis | Cluster,
        pipelines: AnyPipelines,
        history: History,
        authentication: Authentication,
        settings: ReceiverSettings,
        *,
        name: str,
        hearing_pace: Pace | None = None,
    ) -> None:
        names = Names.of(settings.redis_url, settings.key_prefix)
        log = LogReader(pipelines, names)
        self.name = name
        self.draining = False
        self.heartbeat = Heartbeat(settings.heartbeat_seconds)
        self._settings = settings
        self._authentication = authentication
        self.subscription = subscription_to(redis, pipelines, names, self, gateway=name, pace=hearing_pace)
        self.hub = Hub(self.subscription.subscribe, self.subscription.unsubscribe)
        self.catch_up = CatchUp(log, history, self._hears)
        self._repair = Repair(self.hub, self.catch_up, log, self._hears)
        self._seen = SeenReports(history)
        self._authenticating: dict[Connection, asyncio.Future[Identity]] = {}
        self._entering: dict[Connection, asyncio.Event] = {}  # those that wait for a feed's place
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Everything that runs beside the connections; it ends only by being cancelled, or by a defect."""
        async with asyncio.TaskGroup() as self._tasks:
            for part in (self.subscription, self.catch_up, self._repair, self._seen, self.heartbeat):
                self._tasks.create_task(part.run(), name=type(part).__name__)

    @property
    def ready(self) -> bool:
        return self.subscription.hears and not self.draining

    @property
    def full(self) -> bool:
        return self.heartbeat.count >= self._settings.max_connections

    def _hears(self) -> bool:
        return self.subscription.hears

    # The life of a connection.

    def open(self, connection: Connection) -> None:
        """It is accepted; from now on `lost` will be called for it, once."""
        self.heartbeat.add(connection)
        metrics.websocket_connections.inc()

    def authenticate(self, connection: Connection) -> asyncio.Future[Identity]:
        """Expect `orderbell.auth` as its first message."""
        future: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
        self._authenticating[connection] = future
        return future

    async def serve(
        self, connection: Connection, identity: Identity, cursors: Mapping[Channel, Place]
    ) -> None:
        """Bring an authenticated connection into its feeds. Closes it where that fails."""
        channels = identity.channels
        foreign = [channel for channel in cursors if channel not in channels]
        if foreign:
            connection.close(Close.FORBIDDEN, f"the token does not name {foreign[0]}")
        if connection.closed:
            return
        connection.identity = identity
        connection.feeds = tuple(map(self.hub.enter, channels))
        metrics.websocket_opened.inc()
        own = connection.feeds[0]
        if own.members > self._settings.max_connections_per_customer:
            connection.close(Close.TOO_MANY_CONNECTIONS, "too many connections of one customer")
            return
        try:
            async with asyncio.timeout(ESTABLISH_SECONDS):
                await self._wait_established(connection)
            await self._bring_in(connection, cursors)
        except (Unavailable, TimeoutError) as error:
            logger.warning("a connection could not be brought in", why=str(error) or "no answer in time")
            connection.close(Close.TRY_AGAIN_LATER, "events can't be read now")

    async def _wait_established(self, connection: Connection) -> None:
        """Until the places of all its feeds are known, or it has ended."""
        for feed in connection.feeds:
            if feed.place is None and not connection.closed:
                established = self._entering[connection] = asyncio.Event()
                feed.when_established(established.set)
                try:
                    await established.wait()
                finally:
                    feed.wait_no_more(established.set)
                    self._entering.pop(connection, None)

    async def _bring_in(self, connection: Connection, cursors: Mapping[Channel, Place]) -> None:
        starts = {
            feed.channel: await self.catch_up.start(feed, cursors.get(feed.channel))
            for feed in connection.feeds
        }
        connection.tell(
            notices.hello(starts, heartbeat_seconds=self._settings.heartbeat_seconds, gateway=self.name)
        )
        for feed in connection.feeds:
            start = starts[feed.channel]
            if feed.seen is not None and feed.seen > start:
                # Another device has shown what this one is about to get: no pop-up for that.
                connection.tell(notices.seen(feed.channel, feed.seen))
            await self.catch_up.join(connection, feed, start)

    # What connections tell: receiver.connection.Listener.

    def receive(self, connection: Connection, message: bytes) -> None:
        try:
            self._take(connection, message)
        except BadMessage as error:
            connection.close(Close.BAD_MESSAGE, str(error))

    def stalled(self, connection: Connection) -> None:
        self.heartbeat.stalled(connection)

    def closing(self, connection: Connection) -> None:
        """It gets nothing any more: leave its feeds now, not when its socket is gone."""
        feeds, connection.feeds = connection.feeds, ()
        for feed in feeds:
            self.hub.leave(feed, connection)
        if waiting := self._entering.get(connection):
            waiting.set()
        self.heartbeat.closing(connection)

    def lost(self, connection: Connection) -> None:
        self.closing(connection)
        self.heartbeat.discard(connection)
        if future := self._authenticating.pop(connection, None):
            future.cancel()
        code, reason = connection.reason
        metrics.websocket_connections.dec()
        metrics.closed.labels(str(code)).inc()
        logger.info(
            "connection closed",
            transport="websocket",
            topics=len(connection.identity.topics) if connection.identity else 0,
            seconds=round(asyncio.get_running_loop().time() - connection.opened_at, 3),
            code=code,
            reason=reason,
        )

    def _take(self, connection: Connection, text: bytes) -> None:
        try:
            message = _decode_message(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadMessage("not a CloudEvent that a gateway knows") from None
        if message.type == "orderbell.auth":
            self._tasks.create_task(self._verify(connection, message.data))
        elif message.type != "orderbell.seen":
            raise BadMessage(f"unknown type {message.type[:40]!r}")
        elif connection.identity is None:
            connection.close(Close.UNAUTHENTICATED, "authenticate first")
        else:
            self._take_seen(connection, message.data.cursor)

    def _take_seen(self, connection: Connection, text: str) -> None:
        """Only places up to its feed's own count: nobody has seen what was not handed over."""
        try:
            places = parse_cursors(text)
        except InvalidCursor as error:
            raise BadMessage(str(error)) from None
        by_channel = {feed.channel: feed for feed in connection.feeds if is_private(feed.channel)}
        for channel, place in places.items():
            feed = by_channel.get(channel)
            if feed is not None and feed.place is not None and place <= feed.place:
                self._seen.report(channel, place)

    async def _verify(self, connection: Connection, data: _Data) -> None:
        """An `orderbell.auth`: the first makes it a customer's connection, later ones renew its end."""
        try:
            identity = await self._authentication.verify(token=data.token, ticket=data.ticket)
        except ForbiddenToken as error:
            connection.close(Close.FORBIDDEN, str(error))
            return
        except InvalidToken as error:
            connection.close(Close.UNAUTHENTICATED, str(error))
            return
        except KeysUnavailable as error:
            connection.close(Close.TRY_AGAIN_LATER, str(error))
            return
        except Exception:  # of one token: all other connections hang on the same tasks
            logger.exception("a token could not be verified")
            connection.close(Close.INTERNAL_ERROR, "internal error")
            return
        waiting = self._authenticating.pop(connection, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(identity)
        elif connection.identity is not None and connection.identity.channels != identity.channels:
            connection.close(Close.FORBIDDEN, "the new token names other channels")
        elif connection.identity is not None:
            connection.identity = identity

    # What the subscription tells: receiver.subscription.subscription.Hearer.

    def hear(self, feed: Feed, message: bytes) -> None:
        said = parse_live(message)
        if isinstance(said, Entry):
            if not feed.hear(said):
                self._repair.request(feed, "gap")
        elif isinstance(said, SeenNotice):
            if not feed.see(said.place, notices.seen(feed.channel, said.place)):
                self._repair.request(feed, "seen")
        else:
            metrics.foreign.inc()

    def confirmed(self, feed: Feed) -> None:
        """Redis has subscribed us: what was published before is in the log, what comes now is heard."""
        feed.seen = None  # what other devices said meanwhile was missed
        self._repair.request(feed, "subscribed")

    def hearing_changed(self) -> None:
        self._repair.wake()

    # The end.

    async def drain(self, seconds: float) -> None:
        """Say goodbye to everyone, spread over that time, and close them with 1012."""
        self.draining = True
        connections = self.heartbeat.connections
        random.shuffle(connections)
        started = asyncio.get_running_loop().time()
        for n, connection in enumerate(connections):
            due = started + seconds * n / len(connections)
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            connection.tell(notices.bye(random.randint(0, 2_000)))
            connection.close(Close.RESTART, "going away, come back")
        await self.heartbeat.wait_empty()
