"""Two installations on one Redis: neither's customers see anything of the other's."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import pytest

from sender.publishing.pace import Pace
from shared.channels import customer_channel
from shared.cursors import Place
from shared.redis.server import connect_server
from tests.failures.conftest import QUICK
from tests.gateways import run_gateway
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from tests.gateways import RunningGateway
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")
# As usual, but sooner.
HASTE = Pace(
    poll_seconds=0.1, claim_seconds=2, hold_seconds=0.2, succeed_seconds=2.0, max_backoff_seconds=0.2
)


@dataclass
class Shop:
    sender: RunningSender
    gateway: RunningGateway
    orders: int = 0

    async def complete(self, customer: str = "alice") -> None:
        self.orders += 1
        await self.sender.place(str(self.orders), customer)
        answer = await self.sender.complete(str(self.orders), json={"data": {"shop": str(id(self))}})
        assert answer.status_code == 200, answer.text

    async def is_contested(self) -> bool:
        answer = await self.sender.client.get("/readyz")
        assert answer.status_code in (200, 503)
        return answer.status_code == 503 and "another installation" in answer.json()["redis"]


@asynccontextmanager
async def run_shop(
    directory: Path, name: str, url: str, prefix: str, *, hears: bool = True
) -> AsyncIterator[Shop]:
    async with (
        run_sender(f"sqlite:///{directory / name}.db", url, prefix, pace=HASTE) as sender,
        run_gateway(sender.client, url, prefix, hears=hears, hearing_pace=QUICK) as gateway,
    ):
        yield Shop(sender, gateway)


async def has_published(shop: Shop, place: Place) -> bool:
    head = await shop.sender.redis.hmget(shop.sender.names.head(ALICE), ["epoch", "seq"])
    return head == [b"%d" % number for number in place]


def shops_of(events: list[dict[str, object]]) -> list[object]:
    return [event["data"]["shop"] for event in events]  # type: ignore[index]


async def test_different_database_numbers_never_mix(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    """The same prefix, and customers of the same names."""
    base = redis_server.url.removesuffix("/0")
    async with (
        run_shop(tmp_path, "production", f"{base}/0", key_prefix) as production,
        run_shop(tmp_path, "staging", f"{base}/1", key_prefix) as staging,
        production.gateway.connected() as hers,
        staging.gateway.connected() as theirs,
    ):
        for _ in range(3):
            await staging.complete()
            await production.complete()
        await hers.wait_seqs([1, 2, 3])
        await theirs.wait_seqs([1, 2, 3])
        assert shops_of(hers.events) == [str(id(production))] * 3
        assert shops_of(theirs.events) == [str(id(staging))] * 3


async def test_second_installation_with_the_same_names_publishes_nothing_and_says_so(
    redis_server: EmbeddedServer,
    key_prefix: str,
    tmp_path: Path,
    anyio_backend: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(run_shop(tmp_path, "first", redis_server.url, key_prefix))
        hers = await stack.enter_async_context(first.gateway.connected())
        await first.complete()
        await hers.wait_seqs([1])
        second = await stack.enter_async_context(
            run_shop(tmp_path, "second", redis_server.url, key_prefix, hears=False)
        )
        await await_until(second.is_contested)
        theirs = await stack.enter_async_context(second.gateway.connected())
        await second.complete()
        await second.complete()
        await theirs.wait_seqs([1, 2])  # pulled from its own sender
        await first.complete()
        await hers.wait_seqs([1, 2])
        await await_until(lambda: has_published(first, Place(1, 2)))
        assert shops_of(theirs.events) == [str(id(second))] * 2
        assert shops_of(hers.events) == [str(id(first))] * 2
        assert hers.resets == theirs.resets == []
        assert not second.gateway.hears
        assert not await first.is_contested()
        logged: list[str] = []

        def said() -> bool:
            logged.extend(capsys.readouterr().out.splitlines())
            return any("another installation uses the same redis" in line for line in logged)

        await await_until(said)
        await second.complete()
        await theirs.wait_seqs([1, 2, 3])
        said()
        for line in ("another installation uses the same redis", "redis takes no events"):
            assert sum(line in entry for entry in logged) == 1, line


async def test_gateway_that_started_before_its_sender_leaves_a_foreign_redis(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    """It hears Redis until it learns whose it is, and then leaves it."""
    async with (
        run_shop(tmp_path, "first", redis_server.url, key_prefix) as first,
        run_sender(f"sqlite:///{tmp_path / 'second'}.db", redis_server.url, key_prefix, pace=HASTE) as sender,
    ):
        await await_until(lambda: sender.relay.contested)
        door = Door(sender)
        client = httpx2.AsyncClient(
            transport=door, base_url="http://127.0.0.1", headers=sender.client.headers
        )
        async with run_gateway(
            client, redis_server.url, key_prefix, hears=False, hearing_pace=QUICK
        ) as gateway:
            await await_until(lambda: gateway.hears)
            door.shut = False
            await await_until(lambda: not gateway.hears)
        assert not await first.is_contested()


async def test_new_database_beside_an_old_redis_waits_for_the_claim_of_the_dead_and_begins_an_epoch(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    async with run_shop(tmp_path, "old", redis_server.url, key_prefix) as old:
        await old.complete()
        await old.complete()
        await await_until(lambda: has_published(old, Place(1, 2)))
        owner = await old.sender.relay.installation()
        names = old.sender.names
    async with connect_server(redis_server.url) as redis:
        await redis.set(names.owner(), owner, ex=1)  # as after a kill -9, which releases nothing
    async with (
        run_shop(tmp_path, "new", redis_server.url, key_prefix) as new,
        new.gateway.connected() as browser,
    ):
        await new.complete()
        await browser.wait_seqs([1])
        await await_until(lambda: has_published(new, Place(2, 1)))
        assert not await new.is_contested()


def knows_that_another_lives(shop: Shop) -> bool:
    other = shop.sender.relay._ownership._other
    return other is not None and other._lives


def copy_database(directory: Path, name: str, copy: str) -> None:
    for path in directory.glob(f"{name}.db*"):
        (directory / path.name.replace(name, copy)).write_bytes(path.read_bytes())


class Door(httpx2.AsyncBaseTransport):
    """A way to a sender that can be shut."""

    def __init__(self, sender: RunningSender) -> None:
        self.shut = True
        self._inner = sender.client._transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.shut:
            raise httpx2.ConnectError("shut")
        return await self._inner.handle_async_request(request)


async def test_first_installation_that_was_away_finds_its_names_kept_for_it(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    """An outage shorter than `succeed_seconds` does not hand them to the misconfigured one."""
    url = redis_server.url
    async with AsyncExitStack() as stack:
        async with run_shop(tmp_path, "first", url, key_prefix) as first:
            await first.complete()
            await await_until(lambda: has_published(first, Place(1, 1)))
            second = await stack.enter_async_context(
                run_shop(tmp_path, "second", url, key_prefix, hears=False)
            )
            await second.complete()
            await await_until(lambda: knows_that_another_lives(second))
        async with run_shop(tmp_path, "first", url, key_prefix) as first:
            first.orders = 1
            await first.complete()
            await await_until(lambda: has_published(first, Place(1, 2)))
            assert await second.is_contested()
        await await_until(lambda: has_published(second, Place(2, 1)))  # the first does not come back
        assert not await second.is_contested()


async def test_restored_database_is_the_same_installation(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    async with run_shop(tmp_path, "first", redis_server.url, key_prefix) as first:
        await first.complete()
        await await_until(lambda: has_published(first, Place(1, 1)))
        installation = await first.sender.relay.installation()
        copy_database(tmp_path, "first", "restored")
    async with run_sender(f"sqlite:///{tmp_path / 'restored'}.db", redis_server.url, key_prefix) as restored:
        await await_until(lambda: restored.relay.publishes)
        assert await restored.relay.installation() == installation
        assert not restored.relay.contested
