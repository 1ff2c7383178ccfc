"""Connecting to Redis or Valkey, with deadlines that notice a peer which stopped answering."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 2
REPLY_SECONDS = 3

_KEEPALIVE: dict[str, int] = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 3,
    "TCP_KEEPCNT": 3,
    # An unanswered write stops the keepalive probes, and Linux then waits for some 15 minutes.
    "TCP_USER_TIMEOUT": 10_000,
}


class _EndsWhenCancelled:
    """Sends commands as redis-py does, and lets a cancellation through, and a loss be one.

    redis-py sends with `asyncio.wait_for`, and that of Python 3.11 returns as if nothing had happened where
    the sending is done in the moment it is cancelled. A task that loops over commands then never ends, and
    the process that waits for it hangs in its shutdown. The reply is left unread, so the connection goes.

    uvloop raises RuntimeError where something is written to a socket that has been closed meanwhile.
    redis-py does not expect it, and nobody who waits for a Redis to come back does.
    """

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().send_packed_command(*args, **kwargs)  # type: ignore[misc] # a mixin
        except RuntimeError as error:
            raise RedisConnectionError(f"closed: {error}") from error
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise asyncio.CancelledError


class _Tcp(_EndsWhenCancelled, Connection):
    pass


class _Tls(_EndsWhenCancelled, SSLConnection):
    pass


class _Unix(_EndsWhenCancelled, UnixDomainSocketConnection):
    pass


_CLASSES = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def connect(url: str, *, retries: int = 2, max_connections: int = 50) -> Redis:
    """A client with its own pool; nothing is sent before the first command.

    Commands are repeated after a lost connection, so send only what may run twice. Raises `ValueError`
    for a URL that redis-py doesn't know.
    """
    client = Redis.from_url(
        url,
        protocol=2,  # RESP3 costs redis-py more for each reply and gives us nothing
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries),
        max_connections=max_connections,
        socket_timeout=REPLY_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_keepalive=True,
        socket_keepalive_options=keepalive_options(),
        health_check_interval=15,
    )
    pool = client.connection_pool
    pool.connection_class = _CLASSES[pool.connection_class]  # by the URL's scheme
    return client


def keepalive_options() -> Mapping[int, int]:
    """What this system has of the options; macOS, for one, lacks some."""
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
