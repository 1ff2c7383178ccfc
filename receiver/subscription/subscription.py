"""The gateway's one connection that hears Redis, and the shortest way from there to the browsers.

It is a `shared.redis.wire.Wire`, which takes many messages in one read and shows what redis-py's Pub/Sub
hides: every loss of the connection and every confirmation. Commands of one moment leave in one write.

A message that is its feed's next event, as nearly all are, goes into a burst for all live connections; all of
one read leaves together. Every other message goes to the hearer.

Two things make silence visible. A subscription counts only when Redis has confirmed it. And the gateway
publishes a probe to itself over another connection, and must hear it here: so a Redis that is frozen, cut
off, or was demoted while this connection stayed open is noticed within `Pace.silence_seconds`.

One task owns the connection. It never ends by itself; its owner cancels it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import uuid
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from redis.exceptions import RedisError

from receiver import metrics
from receiver.feeds.batch import CROWD_SECONDS
from receiver.feeds.burst import Burst
from receiver.subscription.age import Ages
from shared.process.ways import ways
from shared.redis.channel_log import AnotherInstallation
from shared.redis.signatures import NO_SIGNATURES, Kind
from shared.redis.wire import Command, NotPrimary, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.asyncio import Redis

    from receiver.feeds.feed import Feed
    from receiver.subscription.belonging import Belonging
    from shared.redis.connect import AnyPipelines
    from shared.redis.keys import Names
    from shared.redis.signatures import Signatures

_GATHER_SECONDS = 0.01  # under load, for commands to leave in one write
_MAX_BACKOFF_SECONDS = 2.0
_PROBES = 8  # under way at a time

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    """How soon silence is noticed."""

    probe_seconds: float = 1.5
    silence_seconds: float = 4.5  # three probes


USUAL = Pace()


class Hearer(Protocol):
    """Takes what the subscription hears."""

    def hear(self, feed: Feed, message: bytes) -> None:
        """Called with a message that is not the feed's next event. Everything heard before it has been
        written.
        """

    def confirmed(self, feed: Feed) -> None: ...
    def hearing_changed(self) -> None: ...


@dataclass(frozen=True)
class Subscriber:
    """The gateway as it subscribes, to one server or to each primary of a cluster."""

    gateway: str
    pipelines: AnyPipelines
    names: Names
    hearer: Hearer
    pace: Pace = USUAL
    belonging: Belonging | None = None
    # Called with live messages once they have left; they are traced if it is given.
    delivered: Callable[[Iterable[bytes]], None] | None = None
    signatures: Signatures = NO_SIGNATURES


class Subscription:
    _subscribe_command = b"SUBSCRIBE"
    _unsubscribe_command = b"UNSUBSCRIBE"
    _channels_per_command = 500

    def __init__(self, redis: Redis, subscriber: Subscriber) -> None:
        self._redis = redis
        self._pipelines = subscriber.pipelines
        self._names = subscriber.names
        self._hearer = subscriber.hearer
        self._pace = subscriber.pace
        self._belonging = subscriber.belonging
        self._delivered = subscriber.delivered
        signatures = subscriber.signatures
        self._open_signed = signatures.opener(Kind.LIVE) if signatures else None
        self._name = subscriber.gateway
        self._gateway = f"{subscriber.gateway}:{uuid.uuid4().hex}"  # unique among gateways
        self._probe = self._names.probe(self._gateway).encode()
        self._feeds: dict[bytes, Feed] = {}  # subscribed or to be subscribed, by the channel's name in Redis
        self._unconfirmed: Counter[bytes] = Counter()  # commands sent, confirmations not yet come
        self._wire: Wire | None = None
        self._unsent: list[tuple[bytes, bytes]] = []  # command and channel
        self._flushed_at = -CROWD_SECONDS
        self._loop: asyncio.AbstractEventLoop  # kept: to ask for the running one is a system call
        self._lost: asyncio.Future[str]
        self._confirmed = asyncio.Event()  # the probe's channel is subscribed
        self._heard_at = 0.0  # loop time of the last probe
        # Probes published and not heard yet. They are random, so no other publisher can imitate Redis.
        self._sent_probes: deque[bytes] = deque(maxlen=_PROBES)
        self._hears = False
        self._burst = Burst()
        self._ages = Ages()
        self._logged: set[str] = set()  # kinds of reasons, since it was last heard
        self._logger = logger

    @property
    def hears(self) -> bool:
        """Whether a probe has come back, and the last one recently enough."""
        return self._hears

    def subscribe(self, feed: Feed) -> None:
        """Want its channel from now on; the hearer is notified when Redis has confirmed it."""
        name = self._names.live(feed.channel).encode()
        self._feeds[name] = feed
        self._send_subscribe(name)

    def unsubscribe(self, feeds: Iterable[Feed]) -> None:
        for feed in feeds:
            name = self._names.live(feed.channel).encode()
            self._feeds.pop(name, None)
            self._send(self._unsubscribe_command, name)

    async def run(self) -> None:
        """Run until cancelled: connect again after every loss."""
        attempt = 0
        while True:
            try:
                heard_at = self._heard_at
                await self._run_once()
            except (RedisError, OSError, TimeoutError) as error:
                self._log_loss(f"{type(error).__name__}: {error}")
            attempt = 0 if self._heard_at > heard_at else attempt + 1
            # Full jitter, so that gateways which lost the same Redis don't come back in step.
            await asyncio.sleep(random.uniform(0, min(_MAX_BACKOFF_SECONDS, 0.1 * 2 ** min(attempt, 10))))

    async def _run_once(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lost = self._loop.create_future()
        self._wire = await Wire.open(self._redis, self._take, self._lose)
        try:
            if self._belonging is not None:
                await self._belonging.check()
            self._begin()
            async with asyncio.TaskGroup() as tasks:
                probing = tasks.create_task(self._publish_probes())
                self._log_loss(await self._wait_until_silent())
                probing.cancel()
        finally:
            self._wire.abort()
            self._wire = None
            self._note_hearing(hears=False)

    def _begin(self) -> None:
        self._confirmed.clear()
        self._unconfirmed.clear()
        self._unsent.clear()
        self._heard_at = self._loop.time()
        for name in (self._probe, *self._feeds):
            self._send_subscribe(name)

    async def _wait_until_silent(self) -> str:
        """Returns the reason once the connection is lost or the last probe is too old."""
        while (left := self._heard_at + self._pace.silence_seconds - self._loop.time()) > 0:
            await asyncio.wait([self._lost], timeout=left)
            if self._lost.done():
                return self._lost.result()
        return f"no probe heard for {self._pace.silence_seconds} s"

    async def _publish_probes(self) -> None:
        await self._confirmed.wait()
        while True:
            try:
                self._sent_probes.append(probe := secrets.token_hex(8).encode())
                await self._pipelines.probe(self._probe, probe)
                if self._belonging is not None:
                    await self._belonging.check()
            except (NotPrimary, AnotherInstallation) as error:
                self._lose(str(error))
            except (RedisError, OSError, TimeoutError):
                pass  # the missing probe will be noticed
            await asyncio.sleep(self._pace.probe_seconds)

    def _log_loss(self, reason: str) -> None:
        """Log each kind of reason once a loss, however many attempts it takes to reconnect."""
        if not self._logged:
            metrics.subscription_losses.inc()
        kind = reason.partition(":")[0]
        if kind not in self._logged:
            self._logger.warning("redis is not heard", reason=reason)
        self._logged.add(kind)
        self._note_hearing(hears=False)

    def _note_hearing(self, *, hears: bool) -> None:
        if self._hears is not hears:
            self._hears = hears
            self._hearer.hearing_changed()

    def _send_subscribe(self, name: bytes) -> None:
        if self._wire is not None:
            self._unconfirmed[name] += 1
            self._send(self._subscribe_command, name)

    def _send(self, command: bytes, name: bytes) -> None:
        if self._wire is None:
            return  # once reconnected, everything is subscribed anew
        if not self._unsent:
            crowd = self._loop.time() - self._flushed_at < CROWD_SECONDS
            self._loop.call_later(_GATHER_SECONDS if crowd else 0, self._flush)
        self._unsent.append((command, name))

    def _flush(self) -> None:
        """Send the commands in their order: a channel may be subscribed, left and subscribed again in one
        turn.
        """
        commands: list[Command] = []
        for command, group in itertools.groupby(self._unsent, key=lambda pair: pair[0]):
            names = [name for _, name in group]
            starts = range(0, len(names), self._channels_per_command)
            commands += [(command, *names[start : start + self._channels_per_command]) for start in starts]
        self._unsent.clear()
        self._flushed_at = self._loop.time()
        if self._wire is not None and commands:
            self._wire.send(commands)

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)

    def _take(self, replies: list[Any]) -> None:
        """Take all replies of one read."""
        try:
            strange = self._take_each(replies)
        finally:  # events of the burst must leave even after a failure: their feeds have moved past them
            self._burst.write()
        if strange:  # neither ages nor traces may show what was forged
            ids = set(map(id, strange))
            replies = [reply for reply in replies if id(reply) not in ids]
        if (now := self._loop.time()) >= self._ages.due:
            messages = ((reply[1], reply[2]) for reply in replies if _is_message(reply))
            self._ages.look(messages, self._feeds, now)
        if ways.noted:
            self._note_ways(replies)
        if self._delivered is not None:
            self._delivered(reply[2] for reply in replies if _is_message(reply))

    def _note_ways(self, replies: list[Any]) -> None:
        for _, name, message in filter(_is_message, replies):
            feed = self._feeds.get(name)
            if feed is not None and feed.live:
                ways.note("event handed over", message, connections=len(feed.live), gateway=self._name)

    def _take_each(self, replies: list[Any]) -> list[Any]:
        """Collects in the burst what is to be written. One loop, because one more call for each message would
        be costly. Returns the messages that belong to no feed, or whose signature is missing or wrong.
        """
        feeds, burst = self._feeds, self._burst
        open_signed = self._open_signed
        strange: list[Any] = []
        for reply in replies:
            try:
                kind, name, value = reply
            except (TypeError, ValueError):  # an error, or something that Redis never sends here
                self._take_refusal(reply)
                continue
            if kind == b"message" or kind == b"smessage":
                feed = feeds.get(name)
                if feed is None:
                    strange.append(reply)
                    if name == self._probe:
                        self._take_probe(value)
                    continue
                if open_signed is not None and (value := open_signed(name, value)) is None:
                    strange.append(reply)
                    continue
                if not feed.take_next(value, burst):
                    burst.write()  # what follows may write at once and must not overtake the burst
                    self._hearer.hear(feed, value)
            elif kind in (b"subscribe", b"ssubscribe"):
                self._take_confirmation(name)
            elif kind == b"sunsubscribe":
                self._take_end(name)
        return strange

    def _take_refusal(self, reply: Any) -> None:
        self._lose(f"redis refuses: {reply}")

    def _take_end(self, name: bytes) -> None:
        """A sharded subscription has ended. (A classic one ends only if we unsubscribe.)"""

    def _take_probe(self, message: bytes) -> None:
        if message not in self._sent_probes:
            metrics.foreign.inc()
            return
        self._sent_probes.remove(message)
        self._heard_at = self._loop.time()
        metrics.probe_heard.set_to_current_time()
        if not self._hears:
            self._logger.info("redis is heard", channels=len(self._feeds))
        self._note_hearing(hears=True)
        self._logged.clear()

    def _take_confirmation(self, name: bytes) -> None:
        if name not in self._unconfirmed:
            return  # it was left meanwhile
        self._unconfirmed[name] -= 1
        if self._unconfirmed[name] > 0:
            return  # it was left and subscribed again: the later command is on its way
        del self._unconfirmed[name]
        if name == self._probe:
            self._confirmed.set()
        elif name in self._feeds:
            self._hearer.confirmed(self._feeds[name])


def _is_message(reply: Any) -> bool:
    return isinstance(reply, list) and len(reply) == 3 and reply[0] in (b"message", b"smessage")
