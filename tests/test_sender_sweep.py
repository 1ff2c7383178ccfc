"""The sweep and a real Redis that loses its tail, as in a fail-over."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sender import outbox
from sender.generation import begin_epoch
from sender.publishing.sweep import Pace, Sweep
from shared.channels import Channel
from shared.cursors import Place
from shared.redis.channel_log import LogReader
from shared.redis.server import connect_server
from shared.redis.wire import Pipelines
from tests.senders import postgres_is_long, run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sender.database.protocol import Database
    from shared.commands.embedded import EmbeddedServer
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

USUAL = Pace()

ALICE, BOB = Channel("customer:alice"), Channel("customer:bob")


class Bench:
    def __init__(self, sender: RunningSender, pipelines: Pipelines, pace: Pace = USUAL) -> None:
        self.sender = sender
        self.pipelines = pipelines
        self.log = LogReader(pipelines, sender.names)
        self.woken = 0
        self.orders = 0
        self.sweep = self.sweeping(pace)

    def sweeping(self, pace: Pace) -> Sweep:
        sender = self.sender
        return Sweep(sender.database, self.log, self._wake, sender.relay.floor, pace)

    def _wake(self) -> None:
        self.woken += 1
        self.sender.relay.wake()

    async def complete(self, *customers: str) -> None:
        """Complete orders and wait until they are published."""
        await self.order(*customers)
        await self.all_published()

    async def order(self, *customers: str) -> None:
        """Place orders and complete them."""
        for customer in customers:
            self.orders += 1
            await self.sender.place(str(self.orders), customer)
            assert (await self.sender.complete(str(self.orders))).status_code == 200

    async def relay_all(self) -> None:
        """For senders whose relay does not run by itself."""
        self.sender.relay.stop()
        await self.sender.relay.run()
        assert await self._nothing_waits()

    async def all_published(self) -> None:
        await await_until(self._nothing_waits)

    async def _nothing_waits(self) -> bool:
        return (await self.sender.database.read(outbox.backlog)).size == 0

    async def lose_tail(self, channel: Channel, head: Place) -> None:
        """Set Redis back to when this was the channel's newest place."""
        names, redis = self.sender.names, self.sender.redis
        last = (await self.seqs(channel))[-1]
        await redis.xdel(names.log(channel), *(f"{seq}-0" for seq in range(head.seq + 1, last + 1)))
        # XADD must take the same ids again.
        await redis.execute_command("XSETID", names.log(channel), f"{head.seq}-0")  # type: ignore[no-untyped-call]
        await redis.hset(names.head(channel), "seq", head.seq)

    async def seqs(self, channel: Channel) -> list[int]:
        (read,) = await self.log.read([(channel, 0)], limit=10_000)
        return [entry.place.seq for entry in read.entries]


@pytest.fixture
async def bench(
    database_url: str, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[Bench]:
    async with (
        run_sender(database_url, redis_url, key_prefix) as sender,
        Pipelines(sender.redis) as pipelines,
    ):
        yield Bench(sender, pipelines)


async def test_lost_tail_of_a_quiet_channel_is_published_again(bench: Bench) -> None:
    await bench.complete(*["alice"] * 5, "bob")
    await bench.lose_tail(ALICE, Place(1, 2))
    async with bench.sender.redis.pubsub() as heard:
        await heard.subscribe(bench.sender.names.live(ALICE))
        assert await bench.sweep.sweep() == 3
        await bench.all_published()
        live: list[int] = []
        while len(live) < 3:
            message = await heard.get_message(timeout=5)
            if message and message["type"] == "message":
                live.append(int(message["data"].split(b" ")[1]))
    assert live == [3, 4, 5]
    assert await bench.seqs(ALICE) == [1, 2, 3, 4, 5]
    assert await bench.log.heads([ALICE, BOB]) == [Place(1, 5), Place(1, 1)]
    assert await bench.sweep.sweep() == 0


async def test_what_another_sender_returned_and_did_not_publish_is_found_below_the_floor(
    bench: Bench,
) -> None:
    """The other sender died between returning and publishing; our relay does not look there."""
    await bench.complete(*["alice"] * 3)
    await await_until(lambda: bench.sender.relay.floor.now.position > 3)
    await bench.lose_tail(ALICE, Place(1, 1))
    tail = outbox.Tail(ALICE, 1, Place(1, 3))
    returning = partial(outbox.return_tails, tails=[tail])
    assert await bench.sender.database.write(returning) == 2
    assert await bench.sweep.sweep() == 0  # they are in the outbox already
    await bench.all_published()
    assert await bench.seqs(ALICE) == [1, 2, 3]


async def test_what_was_found_missing_before_an_epoch_began_is_not_returned_in_it(bench: Bench) -> None:
    """Its channel has moved past it: published, it would be refused as stale again and again."""
    await bench.complete(*["alice"] * 3)
    await bench.all_published()
    await bench.lose_tail(ALICE, Place(1, 1))
    tail = outbox.Tail(ALICE, 1, Place(1, 3))
    await bench.sender.database.write(partial(begin_epoch, after=1))
    assert await bench.sender.database.write(partial(outbox.return_tails, tails=[tail])) == 0
    await bench.complete("alice")
    await bench.all_published()


@postgres_is_long
async def test_redis_that_has_everything_is_left_alone(bench: Bench) -> None:
    await bench.complete("alice", "bob")
    assert await bench.sweep.sweep() == 0
    assert bench.woken == 0


@postgres_is_long
async def test_channel_without_a_head_is_left_to_the_history(bench: Bench) -> None:
    await bench.complete("alice")
    await bench.sender.redis.delete(bench.sender.names.head(ALICE), bench.sender.names.log(ALICE))
    assert await bench.sweep.sweep() == 0


async def test_long_tail_is_followed_back_to_its_beginning(bench: Bench) -> None:
    bench.sweep = bench.sweeping(Pace(window=4))
    await bench.complete(*["alice", "bob"] * 8)
    await bench.lose_tail(ALICE, Place(1, 2))
    await bench.lose_tail(BOB, Place(1, 1))
    assert await bench.sweep.sweep() == 6 + 7
    await bench.all_published()
    assert await bench.seqs(ALICE) == await bench.seqs(BOB) == list(range(1, 9))


@postgres_is_long
async def test_lost_tail_is_found_however_many_events_came_since(bench: Bench) -> None:
    bench.sweep = bench.sweeping(Pace(window=4))
    await bench.complete("bob", "bob")
    assert await bench.sweep.sweep() == 0
    await bench.lose_tail(BOB, Place(1, 1))
    await bench.complete(*["alice"] * 12)
    assert await bench.sweep.sweep() == 1
    await bench.all_published()
    assert await bench.seqs(BOB) == [1, 2]


@pytest.fixture
async def still(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[Bench]:
    """Its relay publishes on demand; Bob's second event was published and lost, Alice's 12 wait."""
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    async with (
        run_sender(url, redis_url, key_prefix, relaying=False) as sender,
        Pipelines(sender.redis) as pipelines,
    ):
        bench = Bench(sender, pipelines, Pace(window=4))
        await bench.order("bob", "bob")
        await bench.relay_all()
        await bench.order(*["alice"] * 12)
        await bench.lose_tail(BOB, Place(1, 1))
        yield bench


async def test_lost_tail_is_found_behind_all_that_waits(still: Bench) -> None:
    """Redis takes no writes but can be read."""
    assert await still.sweep.sweep() == 1


class Counted:
    """A database that counts how often it is read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.write = database.write
        self.reads = 0

    async def read(self, work: Any) -> Any:
        self.reads += 1
        return await self._database.read(work)


async def test_backlog_costs_a_sweep_nothing_however_long_it_is(still: Bench) -> None:
    """With 100,000 waiting events it read 50 windows every two seconds."""
    await still.sweep.sweep()
    still.sweep._database = counted = Counted(still.sender.database)  # type: ignore[assignment]
    await still.sweep.sweep()
    few = counted.reads
    await still.order(*["alice"] * 60)  # fifteen windows
    counted.reads = 0
    await still.sweep.sweep()
    assert counted.reads <= few + 1


class Away(LogReader):
    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        raise RedisConnectionError("away")


async def test_sender_that_starts_while_redis_is_away_finds_what_was_lost_before(
    still: Bench,
) -> None:
    """The events that wait at its start show since when Redis was away."""
    still.sweep._log = Away(still.pipelines, still.sender.names)
    with pytest.raises(RedisConnectionError):
        await still.sweep.sweep()
    await still.relay_all()
    still.sweep._log = still.log
    assert await still.sweep.sweep() == 1


async def test_events_of_an_epoch_that_is_over_stay_where_they_are(bench: Bench) -> None:
    await bench.complete("alice", "alice")
    await bench.lose_tail(ALICE, Place(1, 1))
    await bench.sender.database.write(lambda connection: begin_epoch(connection, after=1))
    assert await bench.sweep.sweep() == 0


class Counting(Sweep):
    """Counts how often a sweep began."""

    begun = 0

    async def sweep(self) -> int:
        self.begun += 1
        return await super().sweep()


@postgres_is_long
async def test_sweep_outlives_a_redis_that_is_away(
    database_url: str, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    async with (
        run_sender(database_url, redis_server.url, key_prefix) as sender,
        connect_server(redis_server.url, retries=0) as redis,
        Pipelines(redis) as pipelines,
    ):
        bench = Bench(sender, pipelines)
        await bench.complete(*["alice"] * 3)
        sweep = Counting(
            sender.database,
            bench.log,
            bench._wake,
            sender.relay.floor,
            Pace(every_seconds=0.05),
        )
        sweeping = asyncio.create_task(sweep.run())
        redis_server.kill()
        begun = sweep.begun
        await await_until(lambda: sweep.begun > begun + 1)
        redis_server.start()
        await bench.complete("alice")
        await bench.lose_tail(ALICE, Place(1, 2))
        await await_until(lambda: bench.woken > 0)
        await bench.all_published()
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping
        assert await bench.seqs(ALICE) == [1, 2, 3, 4]
