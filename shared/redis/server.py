"""Connecting to one server, with deadlines that notice a peer that stopped answering.

The URL names the server, or sentinels do: then each new connection goes to the current primary, once that
server has confirmed its role. An open connection must ask the sentinels again (shared/redis/wire.py does),
because a replaced primary may not know it yet and still answers. Clusters are in shared/redis/cluster.py.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.redis.url import InvalidRedisUrl, Kind, RedisUrl, parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

CONNECT_SECONDS = 2
REPLY_SECONDS = 3
SENTINEL_SECONDS = 1  # for all of them to answer; late ones are not waited for

_KEEPALIVE: dict[str, int] = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 3,
    "TCP_KEEPCNT": 3,
    # While a write is unacknowledged, Linux sends no keepalive probes, and waits for some 15 minutes.
    "TCP_USER_TIMEOUT": 10_000,
}


class _EndsWhenCancelled:
    """Sends commands as redis-py does, but lets cancellations through, and reports a loss as one.

    redis-py sends with `asyncio.wait_for`. Python 3.11's swallows the cancellation if the sending finishes in
    the moment in which it is cancelled. A task that loops over commands then never ends, and the process
    hangs in its shutdown. The reply is left unread, so the connection is closed.

    uvloop raises RuntimeError if a socket was closed meanwhile. Neither redis-py nor the code that waits for
    Redis to come back expects it.
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


class _AtPrimary:
    """Trusts the sentinels only if the server confirms: either may be behind."""

    async def connect_to(self, address: tuple[str, int]) -> None:
        await super().connect_to(address)  # type: ignore[misc] # a mixin
        await self.send_command("ROLE")  # type: ignore[attr-defined]
        role = await self.read_response()  # type: ignore[attr-defined]
        if role[0] != b"master":
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise RedisConnectionError(f"{address[0]}:{address[1]} is not the primary yet, or no longer")


class _SentinelTcp(_EndsWhenCancelled, _AtPrimary, SentinelManagedConnection):
    pass


class _SentinelTls(_EndsWhenCancelled, _AtPrimary, SentinelManagedSSLConnection):
    pass


class _Sentinels(Sentinel):
    """Trusts the sentinel with the newest configuration, where redis-py trusts the first that answers.

    A sentinel that is cut off together with the old primary knows no other.
    """

    def __init__(self, sentinels: Sequence[Redis]) -> None:
        super().__init__([])  # type: ignore[no-untyped-call] # redis-py would make them without our deadlines
        self.sentinels = list(sentinels)

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Raises `MasterNotFoundError`, a `ConnectionError`."""
        asking = [sentinel.sentinel_masters() for sentinel in self.sentinels]
        return _newest(service_name, await answers_within(SENTINEL_SECONDS, asking))


async def answers_within(seconds: float, asking: Sequence[Awaitable[Any]]) -> list[Any]:
    """What each sentinel answers or raises; late ones are not waited for."""
    tasks = [asyncio.ensure_future(one) for one in asking]
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        for task in tasks:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    return answers


def _newest(service: str, answers: Sequence[Any]) -> tuple[str, int]:
    errors = [str(answer) or "no answer in time" for answer in answers if isinstance(answer, BaseException)]
    states = [answer[service] for answer in answers if isinstance(answer, dict) and service in answer]
    if len(errors) == len(answers):
        raise MasterNotFoundError(f"no sentinel answers: {'; '.join(errors)}")
    if not states:
        raise MasterNotFoundError(f"the sentinels know no service {service!r}")
    newest = max(state["config-epoch"] for state in states)
    for state in states:
        if state["config-epoch"] == newest and not (state["is_sdown"] or state["is_odown"]):
            return state["ip"], state["port"]
    raise MasterNotFoundError(f"the primary of {service!r} is down, and no other was elected yet")


class _SentinelClient(Redis):
    """Closes its sentinels' connections with its own."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        if isinstance(self.connection_pool, SentinelConnectionPool):
            await self.connection_pool.sentinel_manager.aclose()


_CLASSES = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def connect_server(url: str, *, retries: int = 2, max_connections: int = 50) -> Redis:
    """A client with its own pool; nothing is sent before the first command.

    Commands are repeated after a lost connection, so send only those that may run twice. Raises
    `InvalidRedisUrl`.
    """
    parsed = parse_redis_url(url)
    if parsed.kind is Kind.CLUSTER:
        raise InvalidRedisUrl("a cluster is not a single server: shared/redis/cluster.py connects to it")
    options = _options(retries, max_connections)
    if parsed.credentials:
        # Our users need no rights to PING and CLIENT SETINFO, so these are left out. Without credentials they
        # are sent: the PING on connecting reveals, before any command, that the server requires credentials.
        options |= {"driver_info": None, "health_check_interval": 0}
    if parsed.kind is Kind.SENTINEL:
        return _connect_through_sentinels(parsed, options)
    client = Redis.from_url(parsed.server(), **options)
    pool = client.connection_pool
    pool.connection_class = _CLASSES[pool.connection_class]  # by the URL's scheme
    return client


def _connect_through_sentinels(url: RedisUrl, options: dict[str, Any]) -> Redis:
    sentinels = [connect_server(url.sentinel(address), retries=0) for address in url.addresses]
    of_servers: dict[str, Any] = {**parse_url(url.server(url.addresses[0]))}
    for name in ("host", "port", "connection_class"):
        of_servers.pop(name, None)
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        url.service,
        _Sentinels(sentinels),
        connection_class=_SentinelTls if url.tls else _SentinelTcp,
        **of_servers,
        **options,
    )
    return _SentinelClient.from_pool(pool)


def _options(retries: int, max_connections: int) -> dict[str, Any]:
    return {
        "protocol": 2,  # RESP3 costs redis-py more for each reply and has no advantage here
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries),
        "max_connections": max_connections,
        "socket_timeout": REPLY_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "socket_keepalive_options": keepalive_options(),
        "health_check_interval": 15,
    }


def keepalive_options() -> Mapping[int, int]:
    """The options that this system has; macOS lacks some."""
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
