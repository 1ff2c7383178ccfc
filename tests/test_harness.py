"""The fixtures themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.redis import connect
from tests.waiting import await_until, wait_until

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio


async def test_redis_is_real_and_the_prefix_is_fresh(redis: Redis, key_prefix: str) -> None:
    assert await redis.incr(f"{key_prefix}:count") == 1


async def test_killed_server_comes_back_empty_on_its_port(redis_server: EmbeddedServer) -> None:
    async with connect(redis_server.url, retries=0) as client:
        await client.set("a", "b")
        redis_server.kill()
        with pytest.raises(RedisConnectionError):
            await client.get("a")
        redis_server.start()
        assert await client.get("a") is None


async def test_stopped_server_is_silent_until_it_resumes(redis_server: EmbeddedServer) -> None:
    async with connect(redis_server.url, retries=0) as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
        await client.ping()
        redis_server.stop()
        with pytest.raises(RedisTimeoutError):
            await client.ping()
        redis_server.resume()
        assert await client.ping()


async def test_databases_are_fresh(database_url: str) -> None:
    engine = create_async_engine(database_url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id integer)"))
    finally:
        await engine.dispose()


def test_waiting_ends_with_the_first_true_value() -> None:
    values = iter(["", 0, "now"])
    assert wait_until(lambda: next(values)) == "now"


async def test_waiting_in_vain_names_the_condition() -> None:
    def pigs_fly() -> bool:
        return False

    with pytest.raises(TimeoutError, match="pigs_fly"):
        await await_until(pigs_fly, timeout=0.02)
