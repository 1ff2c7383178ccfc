"""The gateway's one connection that hears Redis.

redis-py connects: it knows URLs, TLS and passwords. Then the socket is ours, and hiredis parses what
comes, many messages a read; redis-py's Pub/Sub costs 20 to 30 times as much for each. We also want what
its Pub/Sub hides: every loss of the connection, and every confirmation.

Two things make silence visible. A subscription counts only when Redis has confirmed it. And the gateway
publishes a probe to itself, by another connection, and must hear it here: a Redis that is frozen, cut
off, or that was demoted while this connection stayed open, is noticed within `SILENCE_SECONDS`.

One task owns the connection. It never ends by itself; whoever runs it ends it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Protocol, cast

import hiredis
import structlog
from redis.exceptions import RedisError

from receiver import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

    from shared.channels import Channel
    from shared.log import Names

PROBE_SECONDS = 1.5
SILENCE_SECONDS = 4.5  # three probes
_CHANNELS_PER_COMMAND = 500
_MAX_BACKOFF_SECONDS = 2.0

logger = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who is told what the subscription hears."""

    def hear(self, channel: Channel, message: bytes) -> None: ...
    def confirmed(self, channel: Channel) -> None: ...


class Subscription:
    def __init__(self, redis: Redis, names: Names, listener: Listener, *, gateway: str) -> None:
        self._redis = redis
        self._listener = listener
        self._names = names
        self._probe = names.probe(f"{gateway}:{uuid.uuid4().hex}").encode()  # no other gateway's, ever
        self._channels: dict[bytes, Channel] = {}  # what is wanted, by its name in Redis
        self._unconfirmed: Counter[bytes] = Counter()  # commands sent, confirmations not yet come
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._confirmed = asyncio.Event()  # the probe's channel is subscribed
        self._heard_at = 0.0  # loop time of the last probe
        self.hears = False  # a probe came through, and the last one not too long ago
        self._loss_told = False

    def subscribe(self, channel: Channel) -> None:
        """Want a channel from now on; the listener is told when Redis has confirmed it."""
        name = self._names.live(channel).encode()
        self._channels[name] = channel
        self._send_subscribe([name])

    def unsubscribe(self, channels: Iterable[Channel]) -> None:
        names = [self._names.live(channel).encode() for channel in channels]
        for name in names:
            self._channels.pop(name, None)
        if names:
            self._send(b"UNSUBSCRIBE", names)

    async def run(self) -> None:
        """Keep hearing Redis, whatever happens to it."""
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
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
            self._take_over(connection)
            async with asyncio.TaskGroup() as tasks:
                probing = tasks.create_task(self._publish_probes())
                await self._wait_until_silent()
                probing.cancel()
        finally:
            self._close()
            await connection.disconnect(nowait=True)

    def _take_over(self, connection: AbstractConnection) -> None:
        writer = connection._writer  # redis-py has no other way to the socket; test_subscription.py pins it
        assert writer is not None
        self._transport = cast("asyncio.Transport", writer.transport)  # uvloop's are none by class
        self._lost.clear()
        self._confirmed.clear()
        self._unconfirmed.clear()
        self._transport.set_protocol(_Reader(self))
        self._heard_at = asyncio.get_running_loop().time()
        self._send_subscribe([self._probe, *self._channels])

    def _close(self) -> None:
        self.hears = False
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _wait_until_silent(self) -> None:
        """Returns when the connection is lost or the last probe is too long ago."""
        loop = asyncio.get_running_loop()
        while (left := self._heard_at + SILENCE_SECONDS - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._lost.wait()
            except TimeoutError:
                continue  # a probe may have come meanwhile
            self._log_loss("connection closed")
            return
        self._log_loss(f"no probe heard for {SILENCE_SECONDS} s")

    async def _publish_probes(self) -> None:
        await self._confirmed.wait()
        while True:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._redis.publish(self._probe, b"")
            except (RedisError, OSError, TimeoutError):
                pass  # its silence is what is noticed
            await asyncio.sleep(PROBE_SECONDS)

    def _log_loss(self, why: str) -> None:
        """Once a loss, however many attempts it takes to be back."""
        if not self._loss_told:
            logger.warning("redis is not heard", why=why)
            metrics.subscription_losses.inc()
        self._loss_told = True
        self.hears = False

    def _send_subscribe(self, names: list[bytes]) -> None:
        if self._transport is not None:
            self._unconfirmed.update(names)
            self._send(b"SUBSCRIBE", names)

    def _send(self, command: bytes, names: list[bytes]) -> None:
        if self._transport is None:
            return
        for start in range(0, len(names), _CHANNELS_PER_COMMAND):
            part = names[start : start + _CHANNELS_PER_COMMAND]
            self._transport.write(hiredis.pack_command((command, *part)))  # type: ignore[arg-type] # any length

    # What the reader below calls.

    def lost(self) -> None:
        self._lost.set()

    def take(self, reply: list[bytes | int]) -> None:
        kind, name, value = reply
        assert isinstance(name, bytes)
        if kind == b"message":
            self._take_message(name, value)
        elif kind == b"subscribe":
            self._take_confirmation(name)

    def _take_message(self, name: bytes, message: bytes | int) -> None:
        channel = self._channels.get(name)
        if channel is not None and isinstance(message, bytes):
            self._listener.hear(channel, message)
        elif name == self._probe:
            self._take_probe()

    def _take_probe(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if not self.hears:
            logger.info("redis is heard", channels=len(self._channels))
        self.hears = True
        self._loss_told = False

    def _take_confirmation(self, name: bytes) -> None:
        self._unconfirmed[name] -= 1
        if self._unconfirmed[name] > 0:
            return  # left and wanted again: the later command is on its way
        del self._unconfirmed[name]
        if name == self._probe:
            self._confirmed.set()
        elif name in self._channels:
            self._listener.confirmed(self._channels[name])


class _Reader(asyncio.Protocol):
    """Bytes to replies. A reply that cannot be parsed ends the connection."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._reader = hiredis.Reader()
        self._transport: asyncio.BaseTransport | None = None

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, list):
                    self._subscription.take(reply)
                elif isinstance(reply, Exception):
                    raise reply
        except (hiredis.HiredisError, ValueError) as error:
            logger.error("redis sent what is no message", error=str(error))
            self._subscription.lost()

    def connection_lost(self, exc: Exception | None) -> None:
        self._subscription.lost()
