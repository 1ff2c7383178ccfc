"""Connecting, with deadlines that notice a peer that stopped answering."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.commands.embedded import free_port
from shared.redis.server import REPLY_SECONDS, connect_server, keepalive_options

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.commands.embedded import EmbeddedServer


pytestmark = pytest.mark.anyio


async def test_commands_answer_bytes(redis: Redis, key_prefix: str) -> None:
    await redis.set(f"{key_prefix}:a", "é")
    assert await redis.get(f"{key_prefix}:a") == "é".encode()


async def test_address_where_nothing_listens_is_reported_at_once() -> None:
    async with connect_server(f"redis://127.0.0.1:{free_port()}", retries=0) as client:
        with pytest.raises(RedisConnectionError):
            await client.ping()


async def test_command_is_repeated_after_a_restart(redis_server: EmbeddedServer) -> None:
    async with connect_server(redis_server.url) as client:
        await client.ping()
        redis_server.kill()
        redis_server.start()
        assert await client.ping()


async def test_frozen_peer_is_noticed(redis_server: EmbeddedServer) -> None:
    async with connect_server(redis_server.url, retries=0) as client:
        await client.ping()
        redis_server.stop()
        started = time.monotonic()
        with pytest.raises((RedisTimeoutError, RedisConnectionError)):
            await client.set("a", "b")
        assert time.monotonic() - started < REPLY_SECONDS + 10


async def test_cancellation_comes_through_wherever_a_command_is(redis: Redis, key_prefix: str) -> None:
    """With redis-py's own class, on Python 3.11, some of these tasks run for ever."""

    async def loop() -> None:
        while True:
            await redis.publish(key_prefix, b"")

    for turns in range(100):
        task = asyncio.create_task(loop())
        for _ in range(turns % 17):
            await asyncio.sleep(0)
        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=2)
        assert ended
        assert task.cancelled()


async def test_url_of_no_redis_is_refused() -> None:
    with pytest.raises(ValueError, match="redis://"):
        connect_server("http://localhost")


def test_keepalive_options_are_the_systems_own() -> None:
    with socket.socket() as opened:
        for option, value in keepalive_options().items():
            opened.setsockopt(socket.IPPROTO_TCP, option, value)


async def test_connection_that_was_closed_under_it_is_lost_and_nothing_else(redis_url: str) -> None:
    """uvloop's RuntimeError, which redis-py does not know, would end the task that waits for Redis."""
    client = connect_server(redis_url, retries=0)
    connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()
    assert connection._writer is not None
    connection._writer.transport.abort()
    for _ in range(3):  # until the transport is closed
        await asyncio.sleep(0)
    with pytest.raises(RedisConnectionError):
        await connection.send_command("PING", check_health=False)
    await client.aclose()
