"""Connecting through sentinels: to the current primary, never to a former one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.commands.embedded import free_port
from shared.redis.server import SENTINEL_SECONDS, _newest, connect_server
from shared.redis.wire import Pipelines
from tests.redis_servers import SERVICE, Service, binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, process_group: int) -> Iterator[Service]:
    """Shared by all tests here but the last, which kills its primary."""
    directory = tmp_path_factory.mktemp("service")
    with Service.run(binaries()[-1], directory, process_group, password="p@ss/word") as service:
        yield service


async def test_servers_and_sentinels_each_get_their_own_password(service: Service) -> None:
    async with connect_server(service.url, retries=0) as redis, Pipelines(redis) as pipelines:
        assert await redis.execute_command("ACL", "WHOAMI") == b"orderbell"  # type: ignore[no-untyped-call]
        assert await pipelines.execute([("ACL", "WHOAMI"), ("SET", "a", "1")]) == [b"orderbell", b"OK"]


async def test_sentinels_that_refuse_us_are_reported_with_their_words(service: Service) -> None:
    url = service.url.partition("?")[0]
    async with connect_server(url, retries=0) as redis:
        with pytest.raises(RedisConnectionError, match="Authentication required"):
            await redis.ping()


async def test_service_that_no_sentinel_knows_is_reported(service: Service) -> None:
    async with connect_server(service.url.replace(f"/{SERVICE}", "/menu"), retries=0) as redis:
        with pytest.raises(RedisConnectionError, match="know no service 'menu'"):
            await redis.ping()


async def test_sentinels_that_are_frozen_or_gone_are_not_waited_for(service: Service) -> None:
    url = service.url.replace("@", f"@127.0.0.1:{free_port()},", 1)
    service.sentinels[0].stop()
    try:
        started = time.monotonic()
        async with connect_server(url, retries=0) as redis:
            await redis.ping()
        assert time.monotonic() - started < SENTINEL_SECONDS + 1.5  # the frozen one's own time-out is three
    finally:
        service.sentinels[0].resume()


def state(port: int, epoch: int, *, down: bool = False) -> dict[str, dict[str, Any]]:
    known = {"ip": "h", "port": port, "config-epoch": epoch, "is_sdown": down, "is_odown": False}
    return {SERVICE: known}


def test_sentinel_with_the_newest_configuration_is_believed() -> None:
    """A sentinel that was cut off with the old primary answers first, and finds it healthy."""
    assert _newest(SERVICE, [state(1, 0), ConnectionError("away"), state(2, 1)]) == ("h", 2)


def test_primary_that_one_sentinel_alone_finds_down_is_taken() -> None:
    assert _newest(SERVICE, [state(1, 3, down=True), state(1, 3)]) == ("h", 1)


def test_no_older_primary_is_taken_while_the_newest_is_down() -> None:
    with pytest.raises(MasterNotFoundError, match="is down"):
        _newest(SERVICE, [state(1, 3), state(2, 4, down=True)])


def test_each_failing_sentinel_is_reported() -> None:
    with pytest.raises(MasterNotFoundError, match="no sentinel answers: away; no answer in time"):
        _newest(SERVICE, [ConnectionError("away"), TimeoutError()])


async def test_server_that_is_no_primary_is_not_used_whatever_the_sentinels_say(service: Service) -> None:
    service.ask(service.primary, "REPLICAOF", "127.0.0.1", free_port())
    async with connect_server(service.url, retries=0) as redis:
        with pytest.raises(RedisConnectionError, match="not the primary"):
            await redis.ping()
