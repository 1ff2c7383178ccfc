"""Connections to Redis for the gateway's hot path: redis-py opens them, hiredis reads them.

redis-py knows URLs, TLS, passwords and Sentinels, and connects. But each of its commands costs 40 to 100
microseconds in a pipeline, and each of its Pub/Sub messages 10; hiredis alone needs half a microsecond. So
once redis-py has connected, we take its socket: a `Wire` for messages that arrive unasked
(receiver/subscription/subscription.py), `Pipelines` for commands and replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import hiredis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import NeighbourError
from shared.redis.server import REPLY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

SENTINEL_CHECK_SECONDS = 1.0

Command = tuple[str | bytes | int, ...]


class CommandRefused(NeighbourError, RedisConnectionError):
    """Redis answered, but with an error; the message is Redis' own."""


class NotPrimary(NeighbourError, RedisConnectionError):
    """A replica answered where a primary was expected. The next connection may reach another server."""


def accepted(replies: list[Any]) -> list[Any]:
    """Raises the first error among replies; one that Redis sent as `CommandRefused`."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise CommandRefused(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply
    return replies


class Wire(asyncio.Protocol):
    """One open connection. `on_replies` gets the replies of each read, errors included; `on_lost` gets
    the reason once it ends, unless `abort` ended it.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        on_replies: Callable[[list[Any]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        writer = connection._writer  # redis-py offers no other way to its socket; test_wire.py pins it
        assert writer is not None
        self._connection = connection  # kept, because it would close the socket when collected
        self._transport = cast("asyncio.Transport", writer.transport)  # uvloop's don't subclass it
        self._reader = hiredis.Reader()
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._lost = False
        self._watching: asyncio.Task[None] | None = None
        self._transport.set_protocol(self)

    @classmethod
    async def open(
        cls,
        redis: Redis,
        on_replies: Callable[[list[Any]], None],
        on_lost: Callable[[str], None],
    ) -> Wire:
        """Raises redis-py's errors."""
        pool = redis.connection_pool
        connection = pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        wire = cls(connection, on_replies, on_lost)
        if isinstance(pool, SentinelConnectionPool):
            wire._watch(pool)
        return wire

    def send(self, commands: Sequence[Command]) -> None:
        """Send all commands in one write. Commands sent on a lost wire are dropped."""
        if not self._lost:
            self._transport.write(b"".join(map(hiredis.pack_command, commands)))  # type: ignore[arg-type]

    def abort(self) -> None:
        self._lost = True
        if self._watching is not None:
            self._watching.cancel()
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call] # closes it for redis-py, too

    def data_received(self, data: bytes) -> None:
        replies: list[Any] = []
        broken = None
        next_reply = self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := next_reply()) is not False:
                replies.append(reply)
        except hiredis.HiredisError as error:
            broken = f"not a reply: {error}"
        if replies and not self._lost:
            self._on_replies(replies)
        if broken:
            self._lose(broken)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"connection closed: {exc}" if exc else "connection closed")

    def _watch(self, pool: SentinelConnectionPool) -> None:
        self._watching = asyncio.create_task(self._leave_when_replaced(pool))
        self._watching.add_done_callback(self._lose_if_failed)

    async def _leave_when_replaced(self, pool: SentinelConnectionPool) -> None:
        """Leave a replaced primary: it may not know it yet and still answer, but what it accepts is lost."""
        here = (self._connection.host, self._connection.port)  # type: ignore[attr-defined] # TCP
        while True:
            await asyncio.sleep(SENTINEL_CHECK_SECONDS)
            try:
                primary = await pool.get_master_address()  # type: ignore[no-untyped-call]
            except RedisConnectionError:
                continue  # no sentinel knows another
            if primary != here:
                self._lose(f"the sentinels have another primary: {primary[0]}:{primary[1]}")
                return

    def _lose_if_failed(self, watching: asyncio.Task[None]) -> None:
        if not watching.cancelled() and (error := watching.exception()):
            self._lose(f"the sentinels can't be watched: {error!r}")

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self.abort()
            self._on_lost(reason)


class Pipelines:
    """Commands and their replies over one wire, which is opened when it is needed and again after a loss.

    Any number may be under way at once. Nothing is repeated: after an error, any part may have run.
    """

    publish_command = "PUBLISH"

    def __init__(self, redis: Redis, *, reply_seconds: float = REPLY_SECONDS) -> None:
        self.reply_seconds = reply_seconds
        self._redis = redis
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()
        self._waiting: deque[tuple[int, list[Any], asyncio.Future[list[Any]]]] = deque()

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command, as bytes, ints, lists or None. Raises redis-py's errors and
        `TimeoutError`.
        """
        return accepted(await self.ask(commands))

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As `execute`, but a refused command's reply is its error."""
        if not commands:
            return []
        async with asyncio.timeout(self.reply_seconds):
            wire = await self._open()
            future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
            self._waiting.append((len(commands), [], future))
            wire.send(commands)
            try:
                replies = await future
            except asyncio.CancelledError:
                # A reply is missing; later replies could be taken for it.
                self._lose("no reply in time")
                raise
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if any(str(error).startswith("READONLY") for error in errors):
            self._lose("it is a replica")  # further commands would get the same answer
        return replies

    async def probe(self, name: str | bytes, message: bytes) -> None:
        """Publish a message. Raises `NotPrimary`, too."""
        _, role = await self.execute([(self.publish_command, name, message), ("ROLE",)])
        if role[0] != b"master":
            self._lose("it is a replica")
            raise NotPrimary("redis is a replica, and was a primary")

    async def __aenter__(self) -> Pipelines:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lose("closed")

    async def _open(self) -> Wire:
        async with self._opening:
            if self._wire is None:
                self._wire = await Wire.open(self._redis, self._take, self._lose)
            return self._wire

    def _take(self, replies: list[Any]) -> None:
        taken = 0
        while taken < len(replies):
            count, answered, future = self._waiting[0]
            some = replies[taken : taken + count - len(answered)]
            taken += len(some)
            answered += some
            if len(answered) == count:
                self._waiting.popleft()
                if not future.done():
                    future.set_result(answered)

    def _lose(self, reason: str) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
        waiting, self._waiting = self._waiting, deque()
        for _, _, future in waiting:
            if not future.done():
                future.set_exception(RedisConnectionError(reason))
