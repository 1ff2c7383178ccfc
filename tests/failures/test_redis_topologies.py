"""Redis is more than one server, and the primary changes: 26 and 33."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from shared.channels import customer_channel
from shared.commands.doctor.findings import Verdict
from shared.commands.doctor.redis import Where, look
from shared.redis.cluster import slot_of_key
from tests.chaos.without import SAFEGUARDS
from tests.claims import claim
from tests.failures.conftest import QUICK
from tests.failures.proof import fails
from tests.gateways import run_gateway
from tests.redis_servers import USER, ClusterServers, Service, binaries
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.gateways import RunningGateway
    from tests.redis_servers import ClusterNode
    from tests.senders import RunningSender

# Alone: servers that look at each other every second take one that is late for one that has died.
pytestmark = [pytest.mark.anyio, pytest.mark.long, pytest.mark.alone]

ALICE = customer_channel("alice")
SLOT = slot_of_key(b"{customer:alice}")
SECRET = f"{USER}:{USER}@"
FAIL_OVER_SECONDS = 20.0  # mostly for servers that look at each other every second


@dataclass
class Shop:
    """A sender and a gateway, on whatever Redis."""

    sender: RunningSender
    gateway: RunningGateway
    orders: int = 0

    async def complete(self, *customers: str) -> None:
        for customer in customers:
            self.orders += 1
            await self.sender.place(str(self.orders), customer)
            answer = await self.sender.complete(str(self.orders))
            assert answer.status_code == 200, answer.text


@asynccontextmanager
async def run_shop(url: str, key_prefix: str, directory: Path) -> AsyncIterator[Shop]:
    database_url = f"sqlite:///{directory / 'orderbell.db'}"
    async with (
        run_sender(database_url, url, key_prefix) as sender,
        run_gateway(sender.client, url, key_prefix, hearing_pace=QUICK) as gateway,
    ):
        yield Shop(sender, gateway)


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path, process_group: int) -> Iterator[Service]:
    with Service.run(getattr(request, "param", binaries()[-1]), tmp_path, process_group) as service:
        yield service


@pytest.fixture
async def shop(
    service: Service, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> AsyncIterator[Shop]:
    async with run_shop(service.url, key_prefix, tmp_path) as shop:
        yield shop


def replicated(service: Service, shop: Shop, seq: int) -> bool:
    """Whether the original replica has Alice's event."""
    head: bytes = service.ask(service.replica, "HGET", shop.sender.names.head(ALICE), "seq")
    return head == b"%d" % seq


def published_at(service: Service, shop: Shop, seq: int) -> bool:
    """Whether it has the event, as a primary."""
    (role, *_) = service.ask(service.replica, "ROLE")
    return role == b"master" and replicated(service, shop, seq)


@pytest.mark.parametrize("service", binaries(), indirect=True, ids=lambda path: path.name)
async def test_26_primary_that_is_killed_is_left_for_the_one_that_the_sentinels_choose(
    service: Service, shop: Shop
) -> None:
    async with shop.gateway.connected() as browser:
        await shop.complete("alice")
        await browser.wait_seqs([1])
        service.primary.kill()
        await await_until(lambda: not shop.gateway.gateway.hears)
        await shop.complete("alice", "alice")
        await browser.wait_seqs([1, 2, 3])  # pulled
        await await_until(lambda: shop.gateway.gateway.hears, FAIL_OVER_SECONDS)
        await shop.complete("alice")
        await browser.wait_seqs([1, 2, 3, 4])
        await await_until(lambda: published_at(service, shop, 4))


async def test_26_primary_that_wakes_after_it_was_replaced_gets_nobody_back(
    service: Service, shop: Shop
) -> None:
    """It still believes that it is the primary, and its connections were never closed."""
    async with shop.gateway.connected() as browser:
        await shop.complete("alice")
        await browser.wait_seqs([1])
        service.primary.stop()
        try:
            await await_until(lambda: not shop.gateway.hears)
            await await_until(lambda: shop.gateway.hears, FAIL_OVER_SECONDS)
        finally:
            service.primary.resume()
        await shop.complete("alice", "alice")
        await browser.wait_seqs([1, 2, 3])
        await await_until(lambda: service.ask(service.primary, "ROLE")[0] == b"slave", FAIL_OVER_SECONDS)
        await shop.complete("alice")  # with it comes what the old primary took before it was demoted
        await browser.wait_seqs([1, 2, 3, 4])
        await await_until(lambda: published_at(service, shop, 4))


async def test_26_primary_that_was_replaced_and_goes_on_answering_is_left(
    service: Service, shop: Shop
) -> None:
    """Only the sentinels can't reach it; sender and gateway can, and probes come back as before."""
    async with shop.gateway.connected() as browser:
        await shop.complete("alice")
        await browser.wait_seqs([1])
        # Nothing of a channel that it does not know need be published again: the history is asked.
        await await_until(lambda: replicated(service, shop, 1))
        service.shut_out_sentinels()
        await await_until(
            lambda: service.chosen(service.sentinels[0]) == service.replica.port, FAIL_OVER_SECONDS
        )
        assert service.ask(service.primary, "ROLE")[0] == b"master"
        with claim("a primary that was replaced is left though it answers"):
            await await_until(lambda: not subscribers(service))
        await shop.complete("alice", "alice")
        await browser.wait_seqs([1, 2, 3])
        await await_until(lambda: shop.gateway.hears)
        await await_until(lambda: published_at(service, shop, 3))


def subscribers(service: Service) -> int:
    return len(service.ask(service.primary, "CLIENT", "LIST", "TYPE", "pubsub").splitlines())


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, process_group: int) -> Iterator[ClusterServers]:
    path = getattr(request, "param", binaries()[-1])
    with ClusterServers.run(path, tmp_path, process_group, SLOT) as cluster:
        yield cluster


@pytest.fixture
async def cluster_shop(
    cluster: ClusterServers, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> AsyncIterator[Shop]:
    async with run_shop(cluster.url, key_prefix, tmp_path) as shop:
        yield shop


on_each_server = pytest.mark.parametrize("cluster", binaries(), indirect=True, ids=lambda path: path.name)


@on_each_server
async def test_33_slot_that_moves_takes_its_customers_with_it(
    cluster: ClusterServers, cluster_shop: Shop
) -> None:
    source, target, _ = cluster.primaries
    async with cluster_shop.gateway.connected() as browser:
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1])
        cluster.begin_move(SLOT, source, target)
        await cluster_shop.complete("alice")  # its keys are here
        await browser.wait_seqs([1, 2])
        cluster.move_keys(SLOT, source, target)
        await cluster_shop.complete("alice")  # its keys are there, its subscribers here
        await browser.wait_seqs([1, 2, 3])
        cluster.end_move(SLOT, target)
        await cluster_shop.complete("alice", "bob")
        await browser.wait_seqs([1, 2, 3, 4])
        with claim("a channel is heard where its slot went"):
            await await_until(lambda: heard_at(cluster, cluster_shop, target))
        await await_until(lambda: cluster_shop.gateway.hears)
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1, 2, 3, 4, 5])
        assert browser.resets == []


def logged_at(cluster: ClusterServers, shop: Shop, node: ClusterNode) -> int:
    """The seq of Alice's newest event there; the sender must have found the node, too."""
    return int(cluster.ask(node, "HGET", shop.sender.names.head(ALICE), "seq") or 0)


def heard_at(cluster: ClusterServers, shop: Shop, node: ClusterNode) -> bool:
    """Whether a gateway has subscribed to Alice's channel there."""
    live = shop.sender.names.live(ALICE)
    return bool(cluster.ask(node, "PUBSUB", "SHARDNUMSUB", live)[1] == 1)


@on_each_server
async def test_33_primary_that_dies_is_left_for_its_replica(
    cluster: ClusterServers, cluster_shop: Shop
) -> None:
    async with cluster_shop.gateway.connected() as browser:
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1])
        cluster.primaries[0].kill()
        await await_until(lambda: not cluster_shop.gateway.gateway.hears)
        await cluster_shop.complete("alice", "alice")
        await browser.wait_seqs([1, 2, 3])  # pulled
        await await_until(lambda: cluster_shop.gateway.gateway.hears, FAIL_OVER_SECONDS)
        await await_until(lambda: heard_at(cluster, cluster_shop, cluster.replica))
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1, 2, 3, 4])
        await await_until(lambda: logged_at(cluster, cluster_shop, cluster.replica) == 4)


async def test_33_primary_that_becomes_a_replica_is_left_though_its_connections_stay(
    cluster: ClusterServers, cluster_shop: Shop
) -> None:
    async with cluster_shop.gateway.connected() as browser:
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1])
        cluster.ask(cluster.replica, "CLUSTER", "FAILOVER")
        await await_until(lambda: cluster.role(cluster.replica) == b"master")
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1, 2])
        await await_until(lambda: heard_at(cluster, cluster_shop, cluster.replica))
        await await_until(lambda: cluster_shop.gateway.hears)
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1, 2, 3])


async def test_33_primary_that_wakes_after_it_was_replaced_gets_nobody_back(
    cluster: ClusterServers, cluster_shop: Shop
) -> None:
    async with cluster_shop.gateway.connected() as browser:
        await cluster_shop.complete("alice")
        await browser.wait_seqs([1])
        cluster.primaries[0].stop()
        try:
            await await_until(lambda: not cluster_shop.gateway.hears)
            await cluster_shop.complete("alice")
            await browser.wait_seqs([1, 2])
            await await_until(lambda: cluster_shop.gateway.hears, FAIL_OVER_SECONDS)
        finally:
            cluster.primaries[0].resume()
        await cluster_shop.complete("alice", "alice")
        await browser.wait_seqs([1, 2, 3, 4])
        await await_until(lambda: heard_at(cluster, cluster_shop, cluster.replica))


async def test_without_watching_the_sentinels_a_replaced_primary_that_answers_is_kept(
    service: Service, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAFEGUARDS["sentinel-watch"](monkeypatch.setattr)
    async with run_shop(service.url, key_prefix, tmp_path) as shop:
        test = test_26_primary_that_was_replaced_and_goes_on_answering_is_left(service, shop)
        await fails(test, "a primary that was replaced is left though it answers")


async def test_without_following_its_slot_a_channel_is_heard_where_it_was(
    cluster: ClusterServers, cluster_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAFEGUARDS["slot-moves"](monkeypatch.setattr)
    test = test_33_slot_that_moves_takes_its_customers_with_it(cluster, cluster_shop)
    await fails(test, "a channel is heard where its slot went")


async def test_doctor_names_the_nodes_that_answer(cluster: ClusterServers) -> None:
    findings = await look(Where(cluster.url, "ob"), None, publishes=True)
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert all(f"127.0.0.1:{node.port}" in findings[0].says for node in cluster.primaries)
    assert sum(finding.what == "redis version" for finding in findings) == 3


async def test_doctor_names_the_primary_that_the_sentinels_name(service: Service) -> None:
    findings = await look(Where(service.url, "ob"), None, publishes=True)
    assert f"primary is 127.0.0.1:{service.primary.port}" in findings[0].says
    assert all(SECRET not in finding.says for finding in findings)
