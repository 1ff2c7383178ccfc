"""Redis without redis-py in between: pipelines that many ask at once, and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.redis.server import REPLY_SECONDS, connect_server
from shared.redis.wire import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pipelines(redis: Redis) -> AsyncIterator[Pipelines]:
    async with Pipelines(redis) as pipelines:
        yield pipelines


async def test_each_gets_the_replies_to_its_own_commands(pipelines: Pipelines) -> None:
    async def ask(n: int) -> None:
        commands = [("ECHO", f"{n}-{i}") for i in range(n % 5)]
        assert await pipelines.execute(commands) == [f"{n}-{i}".encode() for i in range(n % 5)]

    await asyncio.gather(*(ask(n) for n in range(200)))


async def test_reply_larger_than_a_read_arrives_whole(pipelines: Pipelines) -> None:
    large = b"x" * 3_000_000
    assert await pipelines.execute([("ECHO", large), ("PING",)]) == [large, b"PONG"]


async def test_command_that_is_refused_fails_alone(pipelines: Pipelines) -> None:
    other = asyncio.create_task(pipelines.execute([("PING",)]))
    with pytest.raises(RedisConnectionError, match="NONSENSE"):
        await pipelines.execute([("PING",), ("NONSENSE",)])
    assert await other == [b"PONG"]


async def test_loss_reaches_all_waiting_commands_and_the_next_one_reconnects(
    redis_server: EmbeddedServer,
) -> None:
    async with connect_server(redis_server.url, retries=0) as redis, Pipelines(redis) as pipelines:
        await pipelines.execute([("PING",)])
        redis_server.stop()
        asking = [asyncio.create_task(pipelines.execute([("PING",)])) for _ in range(3)]
        await asyncio.sleep(0)
        redis_server.kill()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(result, RedisConnectionError) for result in results)
        with pytest.raises(RedisConnectionError):
            await pipelines.execute([("PING",)])
        redis_server.start()
        assert await pipelines.execute([("PING",)]) == [b"PONG"]


async def test_reply_that_does_not_come_in_time_is_never_taken_for_the_next(
    redis_server: EmbeddedServer,
) -> None:
    async with connect_server(redis_server.url, retries=0) as redis, Pipelines(redis) as pipelines:
        await pipelines.execute([("PING",)])
        redis_server.stop()
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await pipelines.execute([("ECHO", "late")])
        assert asyncio.get_running_loop().time() - started < REPLY_SECONDS + 10
        redis_server.resume()
        assert await pipelines.execute([("ECHO", "new")]) == [b"new"]


async def test_redis_py_gives_its_socket_away_as_we_rely_on(redis: Redis) -> None:
    """Pins redis-py: a connected connection has a writer, nothing unread, and closes without waiting."""
    connection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()
    assert connection._writer is not None
    assert not connection._reader._buffer
    connection._close()
    assert connection._writer is None
