"""The relay, or its Redis, is stopped half-way: 13 to 21."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sender.generation import begin_epoch
from sender.publishing.relay import Relay
from shared.channels import customer_channel
from shared.redis.channel_log import LogWriter
from shared.redis.server import connect_server
from shared.redis.wire import Pipelines
from tests.chaos.proxy import Toxics
from tests.chaos.system import BLACK_HOLE
from tests.chaos.without import SAFEGUARDS
from tests.claims import claim
from tests.failures.pair import command
from tests.failures.test_redis import logged
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from shared.channels import Channel
    from shared.commands.embedded import EmbeddedServer
    from shared.events import Entry
    from shared.redis.channel_log import Published
    from tests.failures.conftest import World
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")


class Frozen(LogWriter):
    """Stops before it publishes what it has read, until it may continue."""

    def __init__(self, pipelines: Pipelines, sender: RunningSender) -> None:
        super().__init__(pipelines, sender.names)
        self.reached, self.going_on = asyncio.Event(), asyncio.Event()
        self.answers: list[str] = []

    async def publish(
        self, batches: Sequence[tuple[Channel, Sequence[Entry]]], *, restart: bool = False
    ) -> list[Published]:
        self.reached.set()
        await self.going_on.wait()
        answers = await super().publish(batches, restart=restart)
        self.answers += [published.answer.value for published in answers]
        return answers


@asynccontextmanager
async def frozen_relay(sender: RunningSender, redis_url: str) -> AsyncIterator[tuple[Frozen, Relay]]:
    """The relay of another sender, stopped after it has read the outbox."""
    async with connect_server(redis_url, retries=0) as redis, Pipelines(redis) as pipelines:
        log = Frozen(pipelines, sender)
        relay = Relay(sender.database, log, sender.clock)
        task = asyncio.create_task(relay.run())
        await asyncio.wait_for(log.reached.wait(), 20)
        yield log, relay
        log.going_on.set()
        relay.stop()
        await asyncio.wait_for(task, 20)


async def relay_once(sender: RunningSender) -> None:
    """Publish what waits in the outbox, by a relay of this sender."""
    async with Pipelines(sender.redis) as pipelines:
        relay = Relay(sender.database, LogWriter(pipelines, sender.names), sender.clock)
        relay.stop()
        await relay.run()


@pytest.fixture
async def sender(
    redis_server: EmbeddedServer, key_prefix: str, database_url: str
) -> AsyncIterator[RunningSender]:
    """A sender whose events wait until a test relays them."""
    async with run_sender(database_url, redis_server.url, key_prefix, relaying=False) as sender:
        yield sender


async def complete(sender: RunningSender, *order_ids: str) -> None:
    for order_id in order_ids:
        await sender.place(order_id)
        assert (await sender.complete(order_id)).status_code == 200


def seqs_logged(redis_server: EmbeddedServer, sender: RunningSender) -> list[int]:
    entries = command(redis_server, "XRANGE", sender.names.log(ALICE), "-", "+")
    return [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]


async def test_15_relay_that_wakes_with_stale_work_changes_nothing(
    sender: RunningSender, redis_server: EmbeddedServer
) -> None:
    await complete(sender, "1", "2")
    async with frozen_relay(sender, redis_server.url) as (log, _):
        await relay_once(sender)
        await complete(sender, "3")
        await relay_once(sender)
        assert seqs_logged(redis_server, sender) == [1, 2, 3]
        log.going_on.set()
        await await_until(lambda: log.answers)
        assert log.answers[0] == "DUP"
        assert seqs_logged(redis_server, sender) == [1, 2, 3]


async def test_15_relay_that_wakes_in_a_new_epoch_is_stale_and_changes_nothing(
    sender: RunningSender, redis_server: EmbeddedServer
) -> None:
    await complete(sender, "1", "2")
    async with frozen_relay(sender, redis_server.url) as (log, relay):
        await sender.database.write(lambda connection: begin_epoch(connection, after=1))
        await relay_once(sender)
        log.going_on.set()
        await await_until(lambda: log.answers)
        with claim("an epoch that is over is refused"):
            assert log.answers[0] == "STALE"
        relay.wake()
        await complete(sender, "3")
        await relay_once(sender)
        assert seqs_logged(redis_server, sender) == [1, 2, 3]
        assert command(redis_server, "HGET", sender.names.head(ALICE), "epoch") == b"2"


@pytest.mark.postgres
async def test_16_relays_whose_database_connections_are_cut_publish_each_event_once(
    postgres_database_url: str, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    """There is no lease that could be lost: relays may always race."""
    async with (
        run_sender(postgres_database_url, redis_server.url, key_prefix) as one,
        run_sender(postgres_database_url, redis_server.url, key_prefix) as other,
        redis_server_heard(redis_server, one) as heard,
    ):
        for number in range(60):
            sender = one if number % 2 else other
            await sender.place(str(number))
            await await_until(partial(completed, sender, str(number)))
            if number % 20 == 10:
                await cut_database_connections(postgres_database_url)
        await await_until(lambda: len(heard) >= 60)
        assert heard == list(range(1, 61))


async def completed(sender: RunningSender, order_id: str) -> bool:
    """False for a 503, if its connection was the one that was cut."""
    return (await sender.complete(order_id)).status_code == 200


@asynccontextmanager
async def redis_server_heard(redis_server: EmbeddedServer, sender: RunningSender) -> AsyncIterator[list[int]]:
    """The seqs of Alice's live messages, as a gateway would hear them."""
    heard: list[int] = []
    async with connect_server(redis_server.url) as redis, redis.pubsub() as subscription:
        await subscription.subscribe(sender.names.live(ALICE))

        async def listen() -> None:
            while True:
                message = await subscription.get_message(timeout=60)
                if message and message["type"] == "message":
                    heard.append(int(message["data"].split(b" ")[1]))

        listening = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            listening.cancel()
            await asyncio.wait([listening])


async def cut_database_connections(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orderbell'"
    )
    await connection.close()


@contextmanager
def just_before_publishing(relay: Relay, act: Callable[[], None]) -> Iterator[None]:
    """If it was done earlier, the relay might still wait for another answer and never publish."""
    publisher, send = relay._publisher, relay._publisher._send

    async def act_and_send(*args: Any, **options: Any) -> Any:
        act()
        return await send(*args, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publisher, "_send", act_and_send)
        yield


async def test_17_reply_that_is_lost_after_the_script_ran_is_asked_for_again(world: World) -> None:
    edge = world.edge("sender")
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        with just_before_publishing(world.sender.relay, lambda: world.proxy.change(edge, down=BLACK_HOLE)):
            await world.complete("alice")
            await await_until(lambda: logged(world) == [1, 2])  # the script ran; the relay does not know
        world.proxy.cut(edge)
        world.proxy.heal(edge)
        await await_until(lambda: answers(world, "DUP") > 0)
        await world.complete("alice")
        await browser.wait_seqs([1, 2, 3])


def answers(world: World, answer: str) -> float:
    return world.sender.counted("orderbell_relay_published_total", answer=answer)


async def test_17_replies_that_break_off_in_the_middle_cost_nothing(world: World) -> None:
    edge = world.edge("sender")
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        for limit in range(1, 200, 7):
            world.proxy.change(edge, down=Toxics(reset_after_bytes=limit))
            await world.complete("alice")
        world.proxy.heal(edge)
        await browser.wait_seqs(list(range(1, world.orders + 1)))


@pytest.mark.parametrize("how", ["no memory", "no disk"])
async def test_19_and_21_redis_that_takes_no_writes_publishes_nothing_and_all_of_it_later(
    world: World, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OOM and MISCONF. A plain PUBLISH would still go through, and be live without being in the log."""
    SAFEGUARDS["pull-mode"](monkeypatch.setattr)  # unpublished events reach no browser
    server = world.redis_server
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        if how == "no memory":
            command(server, "CONFIG", "SET", "maxmemory", 1)
        else:
            await refuse_writes_for_a_failed_save(server, tmp_path)
        await world.complete("alice", "alice")
        await await_until(lambda: world.sender.relay.redis_up is False)
        assert logged(world) == [1]
        assert browser.seqs == [1]
        command(server, "CONFIG", "SET", "maxmemory", 0)
        command(server, "CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        await browser.wait_seqs([1, 2, 3])
        await await_until(lambda: logged(world) == [1, 2, 3])


async def refuse_writes_for_a_failed_save(server: EmbeddedServer, directory: Path) -> None:
    """Make a save fail, as on a full disk, after which Redis takes no more writes."""
    (directory / "dump.rdb").mkdir()
    command(server, "CONFIG", "SET", "save", "3600 1")
    command(server, "BGSAVE")
    await await_until(lambda: command(server, "INFO", "persistence")["rdb_last_bgsave_status"] == "err")


def set_reply_seconds(world: World, seconds: float) -> None:
    assert isinstance(world.sender.pipelines, Pipelines)
    world.sender.pipelines.reply_seconds = seconds


async def test_20_redis_that_pauses_answers_late_and_doubles_nothing(
    world: World,
) -> None:
    """The pause is longer than a reply may take: what was sent is sent again, and published once."""
    set_reply_seconds(world, 0.3)
    async with redis_server_heard(world.redis_server, world.sender) as heard:
        await world.complete("alice")
        await await_until(lambda: heard == [1])
        command(world.redis_server, "CLIENT", "PAUSE", 1_500, "ALL")
        await world.complete("alice", "alice")
        await await_until(lambda: world.sender.relay.redis_up is False)
        await await_until(lambda: logged(world) == [1, 2, 3])
        await world.complete("alice")
        await await_until(lambda: heard[-1] == 4)
        assert heard == [1, 2, 3, 4]


async def test_20_script_that_runs_after_its_sender_gave_it_up_makes_the_next_a_duplicate(
    world: World,
) -> None:
    set_reply_seconds(world, 1.0)  # a busy machine's pauses are shorter
    async with redis_server_heard(world.redis_server, world.sender) as heard:
        await world.complete("alice")
        await await_until(lambda: heard == [1])
        try:
            with just_before_publishing(world.sender.relay, world.redis_server.stop):
                await world.complete("alice")
                await await_until(lambda: world.sender.relay.redis_up is False)
        finally:
            world.redis_server.resume()
        await await_until(lambda: answers(world, "DUP") > 0)
        await world.complete("alice")
        await await_until(lambda: heard[-1] == 3)
        assert heard == [1, 2, 3]
