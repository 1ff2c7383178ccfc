"""A cluster: each command reaches its node, wherever its slot has moved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.channels import customer_channel
from shared.cursors import Place
from shared.events import Entry
from shared.redis.channel_log import LogReader, LogWriter, PublishAnswer
from shared.redis.cluster import Cluster, ClusterPipelines, Redirection, slot_of_key
from shared.redis.connect import connect
from shared.redis.keys import Names
from shared.redis.url import Address, parse_redis_url
from shared.redis.wire import CommandRefused
from tests.redis_servers import ClusterServers, binaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

SLOT = slot_of_key(b"{moves}")  # the first primary's, at the beginning


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, process_group: int) -> Iterator[ClusterServers]:
    """Shared by all tests here: slots move, no node dies."""
    directory = tmp_path_factory.mktemp("cluster")
    with ClusterServers.run(binaries()[-1], directory, process_group, SLOT) as servers:
        yield servers


@pytest.fixture
async def cluster(servers: ClusterServers, anyio_backend: object) -> AsyncIterator[Cluster]:
    redis = connect(servers.url)
    assert isinstance(redis, Cluster)
    async with redis as cluster:
        yield cluster


@pytest.fixture
async def pipelines(cluster: Cluster) -> AsyncIterator[ClusterPipelines]:
    async with ClusterPipelines(cluster) as pipelines:
        yield pipelines


async def test_replies_come_in_the_order_of_their_commands(
    cluster: Cluster, pipelines: ClusterPipelines, key_prefix: str
) -> None:
    keys = [f"{key_prefix}:{n}" for n in range(300)]
    await pipelines.execute([("SET", key, key) for key in keys])
    assert await pipelines.execute([("GET", key) for key in keys]) == [key.encode() for key in keys]
    assert len({cluster.owner(slot_of_key(key.encode())) for key in keys}) == 3


async def test_moved_slot_is_looked_up_once_for_all_waiting_commands(
    servers: ClusterServers, cluster: Cluster, pipelines: ClusterPipelines, key_prefix: str
) -> None:
    key = f"{key_prefix}:{{moves}}"
    await pipelines.execute([("SET", key, "0"), ("SET", f"{key_prefix}:stays", "0")])
    source, target, _ = servers.primaries
    servers.move(SLOT, source, target)
    looked = cluster.looked
    try:
        replies = await asyncio.gather(*(pipelines.execute([("INCR", key)]) for _ in range(100)))
    finally:
        servers.move(SLOT, target, source)
    assert sorted(int(reply) for [reply] in replies) == list(range(1, 101))
    assert cluster.looked - looked <= 2  # the look, and MOVED's own word where that came too early


async def test_keys_on_their_way_are_found_on_either_side(
    servers: ClusterServers, pipelines: ClusterPipelines, key_prefix: str
) -> None:
    gone, here, new = (f"{key_prefix}:{name}:{{moves}}" for name in ("gone", "here", "new"))
    await pipelines.execute([("SET", gone, "a"), ("SET", here, "b")])
    source, target, _ = servers.primaries
    servers.begin_move(SLOT, source, target)
    try:
        servers.ask(source, "MIGRATE", "127.0.0.1", target.port, gone, 0, 5000)
        commands = [("GET", gone), ("GET", here), ("SET", new, "c"), ("GET", new), ("GET", key_prefix)]
        assert await pipelines.execute(commands) == [b"a", b"b", b"OK", b"c", None]
    finally:
        servers.move_keys(SLOT, source, target)
        servers.end_move(SLOT, target)
        servers.move(SLOT, target, source)


async def test_channels_of_all_nodes_are_published_and_read_in_one_call(
    servers: ClusterServers, pipelines: ClusterPipelines, key_prefix: str
) -> None:
    writer = LogWriter(pipelines, Names(key_prefix))
    reader = LogReader(pipelines, Names(key_prefix))
    channels = [customer_channel(str(n)) for n in range(50)]
    first, second = (Entry(Place(1, seq), b'{"seq":%d}' % seq) for seq in (1, 2))
    answers = await writer.publish([(channel, [first]) for channel in channels])
    assert {answer.answer for answer in answers} == {PublishAnswer.OK}
    servers.ask(servers.primaries[1], "SCRIPT", "FLUSH")  # one of three has to be given it again
    answers = await writer.publish([(channel, [second]) for channel in channels])
    assert {answer.head for answer in answers} == {Place(1, 2)}
    found = await reader.read([(channel, 0) for channel in channels], limit=10)
    assert {read.entries for read in found} == {(first, second)}


async def test_malformed_head_hides_no_other(pipelines: ClusterPipelines, key_prefix: str) -> None:
    names = Names(key_prefix)
    channels = [customer_channel(str(n)) for n in range(50)]
    await LogWriter(pipelines, names).publish(
        [(channel, [Entry(Place(1, 1), b"{}")]) for channel in channels]
    )
    await pipelines.execute([("SET", names.head(channels[7]), "text")])
    heads = await LogReader(pipelines, names).heads(channels)
    assert [n for n, head in enumerate(heads) if head is None] == [7]


async def test_command_that_redis_refuses_is_reported_and_not_repeated(
    pipelines: ClusterPipelines, key_prefix: str
) -> None:
    await pipelines.execute([("SET", key_prefix, "text")])
    with pytest.raises(CommandRefused, match="WRONGTYPE"):
        await pipelines.execute([("APPEND", key_prefix, "!"), ("HGET", key_prefix, "field")])
    assert await pipelines.execute([("GET", key_prefix)]) == [b"text!"]


async def test_server_that_is_no_cluster_is_reported_as_such(redis_server: EmbeddedServer) -> None:
    redis = connect(f"redis+cluster://127.0.0.1:{redis_server.port}")
    assert isinstance(redis, Cluster)
    async with redis, ClusterPipelines(redis) as pipelines:
        with pytest.raises(RedisConnectionError, match="cluster support disabled"):
            await pipelines.execute([("GET", "a")])


async def test_cluster_without_sharded_messages_is_refused(servers: ClusterServers) -> None:
    async with Cluster(parse_redis_url(servers.url), oldest=99) as cluster:
        with pytest.raises(RedisConnectionError, match="Redis 99 is needed"):
            await cluster.look()


@pytest.mark.parametrize(
    ("text", "moved", "address"),
    [
        ("MOVED 7 10.0.0.1:6381", True, Address("10.0.0.1", 6381)),
        ("ASK 7 redis-2.example:6379", False, Address("redis-2.example", 6379)),
        ("MOVED 7 ::1:6381", True, Address("::1", 6381)),
    ],
)
def test_redirections(text: str, moved: bool, address: Address) -> None:
    found = Redirection.of(CommandRefused(text))
    assert found is not None
    assert (found.moved, found.slot, found.address) == (moved, 7, address)


@pytest.mark.parametrize(
    "reply", [b"MOVED 7 h:1", CommandRefused("ERR MOVED 7 h:1"), CommandRefused("MOVED 7 :6381")]
)
def test_what_leads_nowhere_is_no_redirection(reply: object) -> None:
    """Without a host it would be that of the answering node: then the slots are looked up."""
    assert Redirection.of(reply) is None
