"""The gateway's ears in a cluster: one at each primary, each channel at the one that has its slot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from receiver.feeds.feed import Feed
from receiver.subscription.shards import Shards, subscription_to
from receiver.subscription.subscription import Pace, Subscriber
from shared.channels import customer_channel
from shared.redis.cluster import Cluster, ClusterPipelines, slot_of_key
from shared.redis.connect import connect
from shared.redis.keys import Names
from tests.hearer import Hearer
from tests.redis_servers import ClusterServers, binaries
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

ALICE = Feed(customer_channel("alice"))
PACE = Pace(silence_seconds=2.5)
SLOT = slot_of_key(b"{customer:alice}")  # the first primary's, at the beginning


class World:
    def __init__(
        self, servers: ClusterServers, cluster: Cluster, pipelines: ClusterPipelines, key_prefix: str
    ) -> None:
        self.servers = servers
        self.cluster = cluster
        self.pipelines = pipelines
        self.names = Names(key_prefix)
        self.hearer = Hearer()
        found = subscription_to(cluster, Subscriber("test", pipelines, self.names, self.hearer, PACE))
        assert isinstance(found, Shards)
        self.shards = found

    async def publish(self, feed: Feed, message: bytes) -> None:
        await self.pipelines.execute([("SPUBLISH", self.names.live(feed.channel), message)])

    async def wait_confirmations(self, count: int) -> None:
        """Wait for so many confirmations, all of them of Alice's channel."""
        await await_until(lambda: self.hearer.confirmations == [ALICE] * count)

    def heard_at(self, feed: Feed) -> list[int]:
        """The number of subscribers of its channel at each node."""
        return [
            reply[1] for reply in self.servers.ask_all("PUBSUB", "SHARDNUMSUB", self.names.live(feed.channel))
        ]

    def connections(self) -> set[bytes]:
        """Connections with subscriptions, at the primaries."""
        lists = [
            self.servers.ask(node, "CLIENT", "LIST", "TYPE", "pubsub") for node in self.servers.primaries
        ]
        return {line.split()[0] + b"@%d" % n for n, text in enumerate(lists) for line in text.splitlines()}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, process_group: int) -> Iterator[ClusterServers]:
    """Shared by all tests here: slots move and come back, a node is frozen, none dies."""
    directory = tmp_path_factory.mktemp("cluster")
    with ClusterServers.run(binaries()[-1], directory, process_group, SLOT) as servers:
        yield servers


@pytest.fixture
async def world(servers: ClusterServers, key_prefix: str, anyio_backend: object) -> AsyncIterator[World]:
    redis = connect(servers.url)
    assert isinstance(redis, Cluster)
    async with redis as cluster, ClusterPipelines(cluster) as pipelines:
        world = World(servers, cluster, pipelines, key_prefix)
        task = asyncio.create_task(world.shards.run())
        await await_until(lambda: world.shards.hears)
        yield world
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_channel_is_subscribed_at_its_node_and_costs_no_other(world: World) -> None:
    feeds = [Feed(customer_channel(str(n))) for n in range(40)]
    for feed in feeds:
        world.shards.subscribe(feed)
    await await_until(lambda: len(world.hearer.confirmations) == 40)
    assert set(world.hearer.confirmations) == set(feeds)
    where = [world.heard_at(feed) for feed in feeds]
    assert all(sorted(counts) == [0, 0, 0, 1] for counts in where)
    assert {counts.index(1) for counts in where} == {0, 1, 2}
    for feed in feeds:
        await world.publish(feed, feed.channel.encode())
    await await_until(lambda: len(world.hearer.messages) == 40)
    assert set(world.hearer.messages) == {(feed, feed.channel.encode()) for feed in feeds}


async def test_channel_that_was_left_is_heard_no_more(world: World) -> None:
    world.shards.subscribe(ALICE)
    await await_until(lambda: world.hearer.confirmations == [ALICE])
    world.shards.unsubscribe([ALICE])
    await await_until(lambda: world.heard_at(ALICE) == [0, 0, 0, 0])
    world.shards.subscribe(ALICE)
    await await_until(lambda: world.hearer.confirmations == [ALICE, ALICE])


async def test_one_node_that_is_not_heard_makes_the_gateway_deaf(
    world: World,
) -> None:
    """The others answer as before. It has no replica, so no other takes its place."""
    frozen = world.servers.primaries[2]
    frozen.stop()
    changes = world.hearer.changes
    try:
        await await_until(lambda: not world.shards.hears)
        assert world.hearer.changes > changes
    finally:
        frozen.resume()
    await await_until(lambda: world.shards.hears)


async def test_channel_is_heard_wherever_its_slot_moves_and_no_connection_is_lost(world: World) -> None:
    """Its node ends the subscription, and each new one is confirmed, so that the gateway catches up."""
    source, target, _ = world.servers.primaries
    connections = world.connections()
    world.shards.subscribe(ALICE)
    await await_until(lambda: world.hearer.confirmations == [ALICE])
    for n, (here, there) in enumerate([(source, target), (target, source)], 2):
        world.servers.move(SLOT, here, there)
        await world.wait_confirmations(n)
        await world.publish(ALICE, b"%d" % n)
    await await_until(lambda: world.hearer.messages == [(ALICE, b"2"), (ALICE, b"3")])
    assert world.connections() == connections


async def test_channel_wanted_by_a_map_of_yesterday_is_subscribed_where_the_node_says(world: World) -> None:
    source, target, _ = world.servers.primaries
    connections = world.connections()
    world.servers.move(SLOT, source, target)
    try:
        world.shards.subscribe(ALICE)
        await await_until(lambda: world.hearer.confirmations == [ALICE])
        assert world.heard_at(ALICE)[:3] == [0, 1, 0]
        assert world.connections() == connections
    finally:
        world.servers.move(SLOT, target, source)


async def test_probe_whose_slot_moved_is_replaced_by_one_of_the_nodes_own(world: World) -> None:
    source, target, _ = world.servers.primaries
    [shard] = [shard for address, shard in world.shards._shards.items() if address.port == source.port]
    probe, connections = shard._probe, world.connections()
    slot = slot_of_key(probe)
    world.servers.move(slot, source, target)
    try:
        await await_until(lambda: shard._probe != probe)
        assert world.cluster.owner(slot_of_key(shard._probe)) == shard._address
        heard_at = shard._heard_at
        await await_until(lambda: shard._heard_at > heard_at)
        assert world.connections() == connections
    finally:
        world.servers.move(slot, target, source)
