"""Fixtures for tests of failures: a proxy that misbehaves, and everything on a Redis of the test's own."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from receiver.feeds import pace
from receiver.subscription.subscription import Pace
from shared.commands.embedded import EmbeddedServer
from tests import postgres_servers
from tests.chaos.proxy import Proxy
from tests.failures.pair import Pair
from tests.gateways import run_gateway
from tests.redis_servers import binary
from tests.senders import run_sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.gateways import RunningGateway
    from tests.senders import RunningSender


# Silence is noticed sooner here; how soon it must be noticed is held in test_subscription.py.
QUICK = Pace(probe_seconds=0.2, silence_seconds=1.0)
HASTE = pace.Pace(check_seconds=0.5, pull_seconds=0.2)


@pytest.fixture(scope="session")
def proxy(process_group: int) -> Iterator[Proxy]:
    with Proxy(process_group) as proxy:
        yield proxy


@pytest.fixture
def postgres_database_url(postgres_url: str) -> Iterator[str]:
    with postgres_servers.fresh_database(postgres_url) as url:
        yield url


@dataclass
class World:
    """A sender and gateways in this process, on one Redis; each reaches it through an edge of the proxy."""

    redis_server: EmbeddedServer  # where the edges lead
    proxy: Proxy
    key_prefix: str
    sender: RunningSender
    stack: AsyncExitStack
    edges: list[str] = field(default_factory=list)  # the edges to Redis that were opened
    orders: int = 0

    @property
    def redis(self) -> Redis:
        """The sender's own client."""
        return self.sender.redis

    async def complete(self, *customers: str) -> None:
        """Complete an order of each customer; all are answered when this returns."""
        for customer in customers:
            self.orders += 1
            await self.sender.place(str(self.orders), customer)
            answer = await self.sender.complete(str(self.orders))
            assert answer.status_code == 200, answer.text

    def edge(self, name: str) -> str:
        """The test's own name for an edge; the proxy's edges are shared by the whole session."""
        return f"{self.key_prefix}:{name}"

    def redis_url(self, name: str) -> str:
        """Redis, through a new edge of that name."""
        self.edges.append(self.edge(name))
        return f"redis://127.0.0.1:{self.proxy.open(self.edge(name), self.redis_server.port)}/0"

    async def gateway(self, name: str = "gateway", *, hears: bool = True) -> RunningGateway:
        return await self.stack.enter_async_context(
            run_gateway(
                self.sender.client,
                self.redis_url(name),
                self.key_prefix,
                hears=hears,
                pace=HASTE,
                hearing_pace=QUICK,
            )
        )


@asynccontextmanager
async def run_world(
    redis_server: EmbeddedServer,
    proxy: Proxy,
    key_prefix: str,
    database_url: str,
    *,
    relaying: bool = True,
) -> AsyncIterator[World]:
    sender_url = f"redis://127.0.0.1:{proxy.open(f'{key_prefix}:sender', redis_server.port)}/0"
    running = run_sender(database_url, sender_url, key_prefix, relaying=relaying)
    async with running as sender, AsyncExitStack() as stack:
        yield World(redis_server, proxy, key_prefix, sender, stack, [f"{key_prefix}:sender"])


@pytest.fixture
async def world(
    redis_server: EmbeddedServer, proxy: Proxy, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> AsyncIterator[World]:
    database_url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    async with run_world(redis_server, proxy, key_prefix, database_url) as world:
        yield world


@pytest.fixture
def pair(world: World, tmp_path: Path, process_group: int) -> Iterator[Pair]:
    path = binary()
    assert path is not None
    replica = EmbeddedServer(path.path, tmp_path, process_group=process_group)
    replica.start()
    yield Pair(world, replica)
    replica.kill()
