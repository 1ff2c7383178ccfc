"""The sender and its database: 1 to 12."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx2
import pytest
from sqlalchemy import text

from sender import outbox, recording
from sender.database.open import open_database
from sender.publishing.pace import Pace
from sender.publishing.relay import Relay
from sender.retention import Pace as RetentionPace
from sender.retention import Retention
from shared.channels import customer_channel
from shared.events import parse_event
from shared.redis.channel_log import LogWriter
from shared.redis.wire import Pipelines
from tests.chaos.proxy import Toxics
from tests.chaos.scenarios import memory
from tests.claims import claim
from tests.failures.conftest import QUICK, run_world
from tests.failures.pair import command
from tests.failures.test_redis import logged
from tests.gateways import run_gateway
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from shared.channels import Channel
    from shared.commands.embedded import EmbeddedServer
    from shared.events import Draft, Entry
    from shared.redis.channel_log import Published
    from shared.redis.keys import Names
    from tests.chaos.proxy import Proxy
    from tests.failures.conftest import World
    from tests.gateways import Browser
    from tests.processes import Processes, SenderProcess

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
LIVE_SECONDS = 2.0  # for an order while a backlog is drained, on two busy cores; draining it takes longer
DRAIN_MIB = 30.0
ALICE, BOB = customer_channel("alice"), customer_channel("bob")


def draft(channel: Channel, event_id: str) -> Draft:
    event = {"specversion": "1.0", "id": event_id, "source": "/test", "type": "t", "channel": channel}
    return parse_event(event, now=NOW)


def record(connection: Connection, *drafts: Draft) -> list[int]:
    return [recorded.place.seq for recorded in recording.record(connection, drafts, now=NOW)]


async def test_01_answer_lost_after_the_commit_is_replayed_and_shown_once(
    processes: Processes, proxy: Proxy, key_prefix: str
) -> None:
    """A caller that gets no answer asks again with its key."""
    sender = processes.start_sender()
    edge = f"{key_prefix}:caller"
    url = f"http://127.0.0.1:{proxy.open(edge, sender.port)}"
    headers = {**processes.api_headers, "Idempotency-Key": "complete-1"}
    async with (
        httpx2.AsyncClient(base_url=url, headers=processes.api_headers, trust_env=False) as caller,
        calling(sender, processes) as history,
        run_gateway(history, processes.redis_url, key_prefix, hearing_pace=QUICK) as gateway,
        gateway.connected() as browser,
    ):
        await place(caller, "1")
        proxy.change(edge, down=Toxics(reset_after_bytes=40))
        with pytest.raises(httpx2.TransportError):
            await caller.post("/orders/1/complete", json={}, headers=headers)
        proxy.heal(edge)
        again = await caller.post("/orders/1/complete", json={}, headers=headers)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
        await place(caller, "2")
        await caller.post("/orders/2/complete")
        await browser.wait_seqs([1, 2])
        assert browser.events[0] == again.json()["event"]


@asynccontextmanager
async def calling(sender: SenderProcess, processes: Processes) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller of this sender, or of the one that is started in its place."""
    headers = processes.api_headers
    async with httpx2.AsyncClient(base_url=sender.url, headers=headers, trust_env=False) as client:
        yield client


async def place(caller: httpx2.AsyncClient, order_id: str) -> None:
    answer = await caller.post("/orders", json={"order_id": order_id, "customer_id": "alice"})
    assert answer.status_code == 201, answer.text


async def died_by_kill_9(sender: SenderProcess) -> bool:
    return await asyncio.to_thread(sender.process.wait, 10) == -signal.SIGKILL


@pytest.mark.parametrize(("crash_point", "stored"), [("before-commit", 0), ("after-commit", 1)])
async def test_03_order_whose_sender_dies_around_its_commit_is_absent_or_shown_and_never_twice(
    processes: Processes, key_prefix: str, crash_point: str, stored: int
) -> None:
    """Its caller has no answer, and asks again."""
    dying = processes.start_sender(without=f"crash-{crash_point}")
    key = {"Idempotency-Key": "complete-1"}
    async with (
        calling(dying, processes) as caller,
        run_gateway(caller, processes.redis_url, key_prefix, hearing_pace=QUICK) as gateway,
        gateway.connected() as browser,
    ):
        await place(caller, "1")
        with pytest.raises(httpx2.TransportError):
            await caller.post("/orders/1/complete", json={}, headers=key)
        assert await died_by_kill_9(dying)
        assert browser.events == []
        await asyncio.to_thread(processes.start_sender, port=dying.port)
        known = (await caller.get("/channels/customer:alice/events")).json()["events"]
        assert len(known) == stored
        await browser.wait_seqs([1] * stored)  # though nobody asks again
        again = await caller.post("/orders/1/complete", json={}, headers=key)
        assert (again.status_code, "idempotency-replayed" in again.headers) == (200, bool(stored))
        await place(caller, "2")
        await caller.post("/orders/2/complete")
        await browser.wait_seqs([1, 2])


async def test_13_event_whose_sender_dies_before_it_is_marked_is_published_again_and_shown_once(
    processes: Processes, key_prefix: str
) -> None:
    dying = processes.start_sender(without="crash-before-mark")
    async with (
        calling(dying, processes) as caller,
        run_gateway(caller, processes.redis_url, key_prefix, hearing_pace=QUICK) as gateway,
        gateway.connected() as browser,
    ):
        await place(caller, "1")
        assert (await caller.post("/orders/1/complete")).status_code == 200
        await browser.wait_seqs([1])
        assert await died_by_kill_9(dying)
        await asyncio.to_thread(processes.start_sender, port=dying.port)
        await await_until(lambda: published_as_duplicate(caller))
        await place(caller, "2")
        await caller.post("/orders/2/complete")
        await browser.wait_seqs([1, 2])


async def published_as_duplicate(caller: httpx2.AsyncClient) -> bool:
    return 'orderbell_relay_published_total{answer="DUP"} 1.0' in (await caller.get("/metrics")).text


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "orderbell.db"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def back_up(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)


def reasons(browser: Browser) -> list[str]:
    return [reset["reason"] for reset in browser.resets]


async def test_07_restored_database_resets_every_client_and_leaves_none_silent(
    redis_server: EmbeddedServer,
    proxy: Proxy,
    key_prefix: str,
    database_path: Path,
    backup: Path,
    anyio_backend: object,
) -> None:
    """Also clients without further events, and those that come back later with an old cursor."""
    async with run_world(redis_server, proxy, key_prefix, url_of(database_path)) as world:
        await world.complete(*["alice", "bob"] * 5)
        back_up(database_path, backup)
        await world.complete(*["alice", "bob"] * 5)
        await await_until(lambda: logged(world) == list(range(1, 11)))
    async with run_world(redis_server, proxy, key_prefix, url_of(backup)) as world:
        world.orders = 100  # ids that the database had in neither life
        gateway = await world.gateway()
        async with (
            gateway.connected("alice", after="customer:alice=1.10") as alice,
            gateway.connected("bob", after="customer:bob=1.10") as bob,
        ):
            await world.complete("alice")  # perhaps covered by the reset, perhaps after it
            # Until the new epoch begins, the cursor is in the future.
            await await_until(lambda: reasons(alice)[-1:] == reasons(bob)[-1:] == ["epoch"])
            await world.complete("alice")
            await await_until(lambda: alice.events and alice.events[-1]["seq"] == 7)
            assert alice.events[-1]["epoch"] == 2
        async with gateway.connected("bob", after="customer:bob=1.10") as late:
            await await_until(lambda: late.resets)
            await world.complete("bob")
            await late.wait_seqs([6])


def noted(world: World) -> bytes:
    """The position of the newest event that Redis knows to be published."""
    return bytes(command(world.redis_server, "HGET", world.sender.names.newest(), "position") or b"")


async def test_07_restored_database_that_caught_up_before_redis_heard_of_it_is_noticed(
    redis_server: EmbeddedServer,
    proxy: Proxy,
    key_prefix: str,
    database_path: Path,
    backup: Path,
    anyio_backend: object,
) -> None:
    """There are more new events than were lost, so the seqs alone look as before."""
    async with run_world(redis_server, proxy, key_prefix, url_of(database_path)) as world:
        await world.complete(*["alice"] * 5)
        back_up(database_path, backup)
        await world.complete(*["alice"] * 5)
        await await_until(lambda: noted(world) == b"10")
    async with run_sender(url_of(backup), redis_server.url, key_prefix, relaying=False) as sender:
        for number in range(100, 108):
            await sender.place(str(number))
            assert (await sender.complete(str(number))).status_code == 200
    async with run_world(redis_server, proxy, key_prefix, url_of(backup)) as world:
        gateway = await world.gateway()
        async with gateway.connected("alice", after="customer:alice=1.10") as alice:
            with claim("a database that went back resets who was ahead of it"):
                await await_until(lambda: alice.resets)
            world.orders = 200
            await world.complete("alice")
            await await_until(lambda: alice.events and alice.seqs[-1] == 14)
            assert alice.events[-1]["epoch"] == 2


@pytest.mark.postgres
async def test_08_transactions_of_one_customer_commit_in_the_order_of_their_seqs(
    postgres_database_url: str,
) -> None:
    """The second transaction waits for the channel's row until the first has committed."""
    async with open_database(postgres_database_url) as database:
        committed: list[int] = []

        async def complete(number: int, *, sleeping: bool = False) -> None:
            def work(connection: Connection) -> int:
                (seq,) = record(connection, draft(ALICE, str(number)))
                if sleeping:
                    connection.execute(text("SELECT pg_sleep(0.5)"))
                return seq

            committed.append(await database.write(work))

        first = asyncio.create_task(complete(1, sleeping=True))
        await await_until(lambda: somebody_sleeps(database))
        await asyncio.gather(first, *(complete(number) for number in range(2, 6)))
        with claim("events of one channel commit in the order of their seqs"):
            assert committed == [1, 2, 3, 4, 5]


async def somebody_sleeps(database: Database) -> bool:
    sleeping = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    return int(await database.read(lambda connection: connection.execute(sleeping).scalar_one())) > 0


@pytest.mark.postgres
async def test_09_event_that_becomes_visible_behind_later_ones_is_published_all_the_same(
    postgres_database_url: str, redis_server: EmbeddedServer, proxy: Proxy, key_prefix: str
) -> None:
    """A long transaction took its row's number early and commits late."""
    async with run_world(redis_server, proxy, key_prefix, postgres_database_url) as world:
        database = world.sender.database

        def work(connection: Connection) -> None:
            record(connection, draft(BOB, "long"))
            connection.execute(text("SELECT pg_sleep(2)"))  # the others need less, also on a slow machine

        long = asyncio.create_task(database.write(work))
        await await_until(lambda: somebody_sleeps(database))
        await world.complete("alice", "alice")
        await await_until(lambda: logged(world) == [1, 2])
        assert not long.done()
        await long
        head = world.sender.names.head(BOB)
        await await_until(lambda: command(redis_server, "HGET", head, "seq") == b"1")


POISON = {  # texts as SQL
    "too-large": "'{\"data\":\"' || hex(zeroblob(1000000)) || '\"}'",
    "not-an-event": "CAST(x'7b22ff227d' AS TEXT)",  # not even UTF-8
}


async def record_poison(world: World, sql: str) -> None:
    """Record it past the API, as an import or a repair by hand may do."""

    def work(connection: Connection) -> None:
        (seq,) = record(connection, draft(ALICE, "poison"))
        connection.execute(text(f"UPDATE events SET text = {sql} WHERE seq = :seq"), {"seq": seq})

    await world.sender.database.write(work)


@pytest.mark.parametrize("reason", POISON)
async def test_10_poison_event_becomes_a_tombstone_and_blocks_nobody(
    world: World, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It blocks neither later events of its channel, nor other channels, nor readers of the history."""
    gateway = await world.gateway()
    async with gateway.connected() as alice, gateway.connected("bob") as bob:
        await world.complete("alice")
        await alice.wait_seqs([1])
        await record_poison(world, POISON[reason])
        await world.complete("bob", "alice")
        await alice.wait_seqs([1, 2, 3])
        await bob.wait_seqs([1])
        assert alice.events[1]["type"] == "orderbell.tombstone"
        assert alice.events[1]["data"] == {"reason": reason}
    (dead,) = (await world.sender.client.get("/dead-letters")).json()["dead_letters"]
    assert (dead["cursor"], dead["reason"]) == ("customer:alice=1.2", reason)
    alarms = [line for line in capsys.readouterr().out.splitlines() if "error" in line]
    assert len(alarms) == 1
    assert len(alarms[0]) < 300
    command(world.redis_server, "FLUSHALL")
    async with gateway.connected(after="customer:alice=1.0") as late:
        await late.wait_seqs([1, 2, 3])
        assert late.events == alice.events


async def test_10_history_hands_out_no_poison_that_nobody_has_judged_yet(
    redis_server: EmbeddedServer, proxy: Proxy, key_prefix: str, database_path: Path, anyio_backend: object
) -> None:
    """The relay is stopped, and gateways pull."""
    async with run_world(redis_server, proxy, key_prefix, url_of(database_path), relaying=False) as world:
        await world.complete("alice")
        await record_poison(world, POISON["too-large"])
        await world.complete("alice")
        gateway = await world.gateway()
        redis_server.kill()
        await await_until(lambda: not gateway.hears)
        async with gateway.connected(after="customer:alice=1.0") as browser:
            await browser.wait_seqs([1, 2, 3])
            assert browser.events[1]["type"] == "orderbell.tombstone"
            assert browser.close is None


class Counting(LogWriter):
    """Notes how much is published at a time, and this process's memory meanwhile."""

    def __init__(self, pipelines: Pipelines, names: Names) -> None:
        super().__init__(pipelines, names)
        self.sizes: list[int] = []
        self.channels: list[Channel] = []
        self.memory: list[float] = []
        self.begun = asyncio.Event()

    async def publish(
        self, batches: Sequence[tuple[Channel, Sequence[Entry]]], *, restart: bool = False
    ) -> list[Published]:
        self.sizes.append(sum(len(entries) for _, entries in batches))
        self.channels = [channel for channel, _ in batches]
        self.memory.append(memory(os.getpid()))
        self.begun.set()
        return await super().publish(batches, restart=restart)


async def test_11_large_backlog_is_drained_in_batches_each_customers_events_in_order(
    redis_server: EmbeddedServer, key_prefix: str, database_path: Path, anyio_backend: object
) -> None:
    """20,000 events of 50 customers have waited for Redis; 100,000 would take five times as long.

    An order that is completed meanwhile waits only for those before it: oldest first.
    """
    customers = [customer_channel(str(number)) for number in range(50)]
    async with run_sender(url_of(database_path), redis_server.url, key_prefix, relaying=False) as sender:
        drafts = [draft(customers[number % 50], str(number)) for number in range(20_000)]
        await sender.database.write(lambda connection: record(connection, *drafts))
        async with Pipelines(sender.redis) as pipelines:
            log = Counting(pipelines, sender.names)
            draining = Relay(sender.database, log, sender.clock)
            draining.stop()
            task = asyncio.create_task(draining.run())
            await log.begun.wait()
            began = asyncio.get_running_loop().time()
            await sender.place("live")
            await sender.complete("live")
            assert asyncio.get_running_loop().time() - began < LIVE_SECONDS  # it is answered at once
            await task
        assert sum(log.sizes) == 20_001
        assert max(log.sizes) <= Pace().batch
        assert ALICE in log.channels  # the last batch
        assert max(log.memory) - log.memory[0] < DRAIN_MIB
        for channel in customers:
            entries = command(redis_server, "XRANGE", sender.names.log(channel), "-", "+")
            assert [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries] == list(range(1, 401))


async def test_12_cursor_before_what_is_kept_is_reset_and_goes_on(world: World) -> None:
    sender = world.sender
    await world.complete("alice", "alice", "alice")
    await await_until(lambda: logged(world) == [1, 2, 3])
    await await_until(lambda: published(sender.database))
    sender.clock.advance(days=8)
    trusting = RetentionPace(doubt_seconds=0)
    await Retention(sender.database, sender.clock, history_days=7, pace=trusting).sweep()
    command(world.redis_server, "FLUSHALL")
    gateway = await world.gateway()
    async with gateway.connected(after="customer:alice=1.1") as browser:
        with claim("a cursor before what is kept is reset"):
            await await_until(lambda: browser.resets)
        assert browser.resets == [
            {
                "channel": "customer:alice",
                "reason": "pruned",
                "cursor": "customer:alice=1.3",
                "refetch": "/orders?customer_id=alice",
            }
        ]
        await world.complete("alice")
        await browser.wait_seqs([4])


async def published(database: Database) -> bool:
    return (await database.read(outbox.backlog)).size == 0
