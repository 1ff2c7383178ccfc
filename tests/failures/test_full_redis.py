"""A Redis whose memory is full: noeviction, as it should be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from shared.channels import customer_channel
from shared.cursors import Place
from shared.events import Entry
from shared.redis.channel_log import LogWriter
from shared.redis.keys import Names
from shared.redis.server import connect_server
from shared.redis.wire import CommandRefused, Pipelines
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

TEXT = b'{"data":"%s"}' % (b"x" * 300)


async def used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def fill(redis: Redis, spare: int) -> int:
    """Fill the memory but for `spare`; returns the limit."""
    limit = await used(redis) + spare
    await redis.config_set("maxmemory", limit)
    await redis.config_set("maxmemory-policy", "noeviction")
    return limit


@pytest.mark.parametrize("restart", [False, True])
async def test_new_channels_do_not_pass_the_limit(
    redis_server: EmbeddedServer, key_prefix: str, *, restart: bool, anyio_backend: object
) -> None:
    """Some thousand customers get their first event, or a log that begins anew, while nothing fits."""
    names = Names(key_prefix)
    async with connect_server(redis_server.url) as redis, Pipelines(redis) as pipelines:
        writer = LogWriter(pipelines, names)
        limit = await fill(redis, spare=2_000_000)
        taken = 0
        with pytest.raises(CommandRefused, match="OOM"):  # noqa: PT012 - how many are taken matters
            for n in range(4_000):
                entry = Entry(Place(1, 7 if restart else 1), TEXT)
                await writer.publish([(customer_channel(str(n)), [entry])], restart=restart)
                taken += 1
        assert 100 < taken < 1_000
        entry = Entry(Place(1, 7 if restart else 1), TEXT)
        for n in range(5_000, 6_000):
            with contextlib.suppress(CommandRefused):  # some bytes may be free again
                await writer.publish([(customer_channel(str(n)), [entry])], restart=restart)
                taken += 1
        assert taken < 1_000
        assert await used(redis) < limit * 1.05


@pytest.mark.parametrize("of", ["log", "head"])
async def test_known_channels_do_not_pass_the_limit_by_an_epoch_or_a_gap(
    redis_server: EmbeddedServer, key_prefix: str, of: str, anyio_backend: object
) -> None:
    """Their old log is deleted, and its replacement is no larger."""
    names = Names(key_prefix)
    channels = [customer_channel(str(n)) for n in range(500)]
    async with connect_server(redis_server.url) as redis, Pipelines(redis) as pipelines:
        writer = LogWriter(pipelines, names)
        entries = [Entry(Place(1, seq), TEXT) for seq in (1, 2)]
        await writer.publish([(channel, entries) for channel in channels])
        for channel in channels:
            await redis.delete(names.log(channel) if of == "log" else names.head(channel))
        limit = await fill(redis, spare=0)
        more = [Entry(Place(2, seq), TEXT) for seq in range(50, 80)]
        for channel in channels:
            with contextlib.suppress(CommandRefused):
                await writer.publish([(channel, more)], restart=True)
        assert await used(redis) < limit * 1.05


async def test_full_redis_is_reported_once_and_its_end_once(
    redis_server: EmbeddedServer,
    key_prefix: str,
    tmp_path: Path,
    anyio_backend: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each try is refused, and nothing is logged between two tries."""
    lines: list[str] = []

    def told(text: str) -> int:
        lines.extend(capsys.readouterr().out.splitlines())
        return sum(text in line for line in lines)

    async with (
        connect_server(redis_server.url) as redis,
        run_sender(f"sqlite:///{tmp_path / 'o'}.db", redis_server.url, key_prefix) as sender,
    ):
        await await_until(lambda: sender.relay.redis_up)
        await fill(redis, spare=-100_000)
        await sender.place("1")
        assert (await sender.complete("1")).status_code == 200
        await await_until(lambda: sender.relay.redis_up is False)
        await await_until(lambda: sender.relay._failures >= 5)
        assert sender.relay.alive
        assert told("redis takes no events") == 1
        assert "OOM" in "".join(lines)
        await redis.config_set("maxmemory", 0)
        await await_until(lambda: sender.relay.redis_up)
        await await_until(lambda: redis.exists(sender.names.log(customer_channel("alice"))))
        assert (told("redis takes no events"), told("redis takes events")) == (1, 2)  # the first at its start
