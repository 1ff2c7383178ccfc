"""The relay against a real Redis: its four answers; a Redis that is away, frozen, emptied, or knows more."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from sqlalchemy import text as sql
from sqlalchemy import update
from structlog.testing import capture_logs

from sender import dead_letters, history, outbox
from sender import generation as generation_module
from sender import relay as relay_module
from sender.database import DatabaseUnavailable, open_database
from sender.generation import begin_epoch
from sender.metrics import Metrics
from sender.outbox import arrival
from sender.relay import Relay
from sender.retention import Retention
from sender.sqlite import SqliteDatabase
from sender.tables import channels, events
from shared import log
from shared.channels import Channel
from shared.cursors import Cursor, Place
from shared.events import parse_event
from shared.log import LogWriter, Names
from shared.redis import connect
from shared.wire import Pipelines
from tests.senders import Clock
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from redis.asyncio import Redis
    from sqlalchemy import Connection

    from sender.database import Database
    from shared.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

T = TypeVar("T")

ALICE = Channel("customer:alice")
BOB = Channel("customer:bob")
CAROL = Channel("customer:carol")


class Bench:
    """A database, a Redis and as many relays between them as a test starts."""

    def __init__(self, database: Database, redis: Redis, pipelines: Pipelines, names: Names) -> None:
        self.database = database
        self.pipelines = pipelines
        self.names = names
        self.redis = redis
        self.metrics = Metrics()
        self.clock = Clock()
        self._count = 0

    def relay(self, database: Database | None = None) -> Relay:
        writer = LogWriter(self.pipelines, self.names)
        return Relay(database or self.database, writer, self.metrics, self.clock)

    async def record(self, *channels: Channel) -> None:
        def work(connection: Connection) -> None:
            for channel in channels:
                self._count += 1
                event = {"specversion": "1.0", "id": str(self._count), "source": "/test", "type": "t"}
                draft = parse_event(event | {"channel": channel}, now=self.clock())
                outbox.record_once(connection, [arrival(draft, content="")], now=self.clock())

        await self.database.write(work)

    async def relay_once(self) -> None:
        """One relay's life: until it finds nothing more to do."""
        relay = self.relay()
        relay.stop()
        await relay.run()

    async def waiting(self) -> int:
        return (await self.database.read(outbox.backlog)).size

    async def logged(self, channel: Channel) -> list[int]:
        """Seqs in the channel's log; they must be what the head says and what the texts say."""
        async with self.redis.pipeline(transaction=True) as both:
            both.xrange(self.names.log(channel))
            both.hmget(self.names.head(channel), ["epoch", "seq"])
            entries, head = await both.execute()
        events = [json.loads(fields[b"e"]) for _, fields in entries]
        places = [Place(event["epoch"], event["seq"]) for event in events]
        assert {event["channel"] for event in events} <= {channel}
        assert [id for id, _ in entries] == [f"{place.seq}-0".encode() for place in places]
        assert head == ([str(number).encode() for number in places[-1]] if places else [None, None])
        return [place.seq for place in places]

    async def head(self, channel: Channel) -> Place | None:
        epoch, seq = await self.redis.hmget(self.names.head(channel), ["epoch", "seq"])
        return Place(int(epoch), int(seq)) if epoch and seq else None

    async def forget(self, *channels: Channel) -> None:
        """As a Redis that lost these."""
        for channel in channels:
            await self.redis.delete(self.names.log(channel), self.names.head(channel))

    def count(self, answer: str) -> float:
        return (
            self.metrics.registry.get_sample_value("orderbell_relay_published_total", {"answer": answer})
            or 0.0
        )


@pytest.fixture
async def bench(database_url: str, redis: Redis, key_prefix: str) -> AsyncIterator[Bench]:
    async with open_database(database_url) as database, Pipelines(redis) as pipelines:
        yield Bench(database, redis, pipelines, Names(key_prefix))


@pytest.fixture
async def sqlite_bench(tmp_path: Path, redis: Redis, key_prefix: str) -> AsyncIterator[Bench]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'orderbell.db'}"
    async with open_database(url) as database, Pipelines(redis) as pipelines:
        yield Bench(database, redis, pipelines, Names(key_prefix))


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_recorded_events_are_published_in_order_and_leave_the_outbox(bench: Bench) -> None:
    await bench.record(ALICE, BOB, ALICE, ALICE)
    await bench.relay_once()
    assert await bench.logged(ALICE) == [1, 2, 3]
    assert await bench.logged(BOB) == [1]
    assert await bench.waiting() == 0


async def test_commit_wakes_the_relay(sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "POLL_SECONDS", 60)
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay._woken._waiters)
        await sqlite_bench.record(ALICE)
        relay.wake()
        await await_until(lambda: sqlite_bench.logged(ALICE))


async def test_what_nobody_woke_it_for_is_found_by_polling(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "POLL_SECONDS", 0.05)
    async with running(sqlite_bench.relay()):
        await sqlite_bench.record(ALICE)  # as by another sender, which died
        await await_until(lambda: sqlite_bench.logged(ALICE))


async def test_more_than_a_batch_is_published_without_waiting(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BATCH", 4)
    await sqlite_bench.record(*[ALICE, BOB] * 10)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == list(range(1, 11))
    assert await sqlite_bench.waiting() == 0


class MarkFails:
    """A relay's database that dies between publishing and noting it, as by kill -9."""

    def __init__(self, database: Database) -> None:
        self.read = database.read

    async def write(self, work: Callable[[Connection], T]) -> T:
        raise DatabaseUnavailable("killed")


class Away:
    """A database that can't be read until it is back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.back = False
        self.write, self.write_together = database.write, database.write_together

    async def read(self, work: Callable[[Connection], T]) -> T:
        if not self.back:
            raise DatabaseUnavailable("away")
        return await self._database.read(work)


async def test_a_commit_ends_the_wait_for_a_database_that_was_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_backoff", lambda attempts: 3600.0)
    database = Away(bench.database)
    async with running(bench.relay(database)) as relay:
        await await_until(lambda: relay._woken._waiters)
        database.back = True
        await bench.record(ALICE)
        relay.wake()
        await await_until(lambda: bench.logged(ALICE))


async def test_published_and_not_marked_is_published_again_as_a_duplicate(bench: Bench) -> None:
    await bench.record(ALICE, ALICE)
    dying = bench.relay(MarkFails(bench.database))  # type: ignore[arg-type]
    dying.stop()
    await dying.run()
    assert await bench.logged(ALICE) == [1, 2]
    assert await bench.waiting() == 2
    await bench.relay_once()
    assert (bench.count("OK"), bench.count("DUP")) == (1, 1)
    assert await bench.logged(ALICE) == [1, 2]
    assert await bench.waiting() == 0


async def test_published_events_are_marked_together_and_not_published_again_before(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "MARK_SECONDS", 0.3)

    class Counted:
        def __init__(self, database: Database) -> None:
            self.read = database.read
            self.writes = 0

        async def write(self, work: Callable[[Connection], T]) -> T:
            self.writes += 1
            return await sqlite_bench.database.write(work)

    database = Counted(sqlite_bench.database)
    async with running(sqlite_bench.relay(database)) as relay:  # type: ignore[arg-type]
        for seq in range(1, 6):
            await sqlite_bench.record(ALICE)
            relay.wake()
            await await_until(lambda seq=seq: seqs_are(sqlite_bench, list(range(1, seq + 1))))  # type: ignore[misc]
        await await_until(lambda: nothing_waits(sqlite_bench))
    assert database.writes <= 3
    assert (sqlite_bench.count("OK"), sqlite_bench.count("DUP")) == (5, 0)


async def nothing_waits(bench: Bench) -> bool:
    return await bench.waiting() == 0


async def test_what_redis_lost_is_refilled_from_the_database_before_the_new(bench: Bench) -> None:
    await bench.record(*[ALICE] * 5, BOB)
    await bench.relay_once()
    await bench.forget(ALICE)
    await bench.record(ALICE)
    await bench.relay_once()
    assert bench.count("GAP") == 1
    assert await bench.logged(ALICE) == [1, 2, 3, 4, 5, 6]
    assert await bench.waiting() == 0


async def test_lost_tail_is_refilled_too(bench: Bench) -> None:
    """As by a failover to a replica that lacks the last writes."""
    await bench.record(*[ALICE] * 5)
    await bench.relay_once()
    await bench.redis.xtrim(bench.names.log(ALICE), maxlen=0)
    await bench.redis.delete(bench.names.log(ALICE))
    await bench.redis.hset(bench.names.head(ALICE), "seq", "3")
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.logged(ALICE) == [4, 5, 6]


async def test_large_hole_is_refilled_with_the_newest(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "REFILL_LENGTH", 10)
    await sqlite_bench.record(*[ALICE] * 30)
    await sqlite_bench.relay_once()
    await sqlite_bench.forget(ALICE)
    await sqlite_bench.record(ALICE)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == list(range(22, 32))
    assert await sqlite_bench.waiting() == 0


async def test_large_refill_comes_in_several_parts(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.history._ROUND", 7)
    await sqlite_bench.record(*[ALICE] * 20)
    await sqlite_bench.relay_once()
    await sqlite_bench.forget(ALICE)
    await sqlite_bench.record(ALICE)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == list(range(1, 22))


class ReadsSome:
    """Counts how often what is to be published again is read; the first time, something happens meanwhile."""

    def __init__(self, database: Database, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self._database = database
        self._meanwhile = meanwhile
        self.write = database.write
        self.reads = 0

    async def read(self, work: Callable[[Connection], T]) -> T:
        found = await self._database.read(work)
        if getattr(work, "func", None) is history.read_some:
            self.reads += 1
            if self.reads == 1 and self._meanwhile:
                await self._meanwhile()
        return found


async def test_channels_that_an_emptied_redis_lacks_are_refilled_together(bench: Bench) -> None:
    """One by one, five hundred of them took seconds."""
    names = [Channel(f"customer:{number}") for number in range(40)]
    await bench.record(*names, *names)
    await bench.relay_once()
    await bench.forget(*names)
    await bench.record(*names)
    database = ReadsSome(bench.database)
    relay = bench.relay(database)  # type: ignore[arg-type]
    relay.stop()
    await relay.run()
    assert database.reads == 1
    assert [await bench.logged(channel) for channel in names] == [[1, 2, 3]] * 40
    assert await bench.waiting() == 0


async def test_14_part_of_a_refill_that_another_relay_has_published_is_not_taken_for_all_of_it(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.history._ROUND", 3)
    bench = sqlite_bench
    await bench.record(*[ALICE] * 7)
    await bench.relay_once()
    await bench.forget(ALICE)
    await bench.record(ALICE)

    async def publish_three() -> None:
        found = await bench.database.read(partial(history.read_some, wanted={ALICE: range(3)}))
        await LogWriter(bench.pipelines, bench.names).publish([(ALICE, found[ALICE])])

    relay = bench.relay(ReadsSome(bench.database, publish_three))  # type: ignore[arg-type]
    relay.stop()
    await relay.run()
    assert bench.count("DUP") == 1
    assert await bench.logged(ALICE) == list(range(1, 9))
    assert await bench.waiting() == 0


async def test_14_racing_relays_publish_each_event_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "BATCH", 3)
    subscriber = bench.redis.pubsub()
    await subscriber.subscribe(bench.names.live(ALICE))
    await bench.record(*[ALICE] * 20)
    await asyncio.gather(*(bench.relay_once() for _ in range(3)))
    await bench.relay_once()
    assert await bench.logged(ALICE) == list(range(1, 21))
    assert await bench.waiting() == 0
    heard: list[int] = []
    while (message := await subscriber.get_message(timeout=0.3)) is not None:
        if message["type"] == "message":
            heard.append(int(message["data"].split(b" ")[1]))
    assert heard == list(range(1, 21))
    await subscriber.aclose()  # type: ignore[no-untyped-call]


async def test_redis_of_a_newer_epoch_means_that_the_database_is_an_old_copy(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.redis.hset(bench.names.head(ALICE), mapping={"epoch": 5, "seq": 40})
    await bench.record(ALICE, ALICE)
    await bench.relay_once()
    await bench.relay_once()
    assert bench.count("STALE") == 1
    assert await bench.logged(ALICE) == [1, 2]
    assert await bench.head(ALICE) == Place(6, 2)
    assert await bench.waiting() == 0


@pytest.mark.parametrize("known", [2, 3])
async def test_stale_relay_of_several_only_reads_again(bench: Bench, known: int) -> None:
    """Epoch 3 began between its read and its publish: nobody has to begin another.

    Redis may know it already, from the sender that began it, or only the one before.
    """

    class EpochGrowsMeanwhile:
        def __init__(self, database: Database) -> None:
            self.write = database.write
            self.grown = False

        async def read(self, work: Callable[[Connection], T]) -> T:
            found = await bench.database.read(work)
            if not self.grown and isinstance(found, list) and found:  # what waits in the outbox
                self.grown = True
                await bench.redis.hset(bench.names.head(ALICE), mapping={"epoch": known, "seq": 0})
                await bench.database.write(partial(begin_epoch, after=2))
            return found

    await bench.record(ALICE)
    relay = bench.relay(EpochGrowsMeanwhile(bench.database))  # type: ignore[arg-type]
    relay.stop()
    await relay.run()
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(3, 1)
    assert bench.metrics.registry.get_sample_value("orderbell_epoch_changes_total") == 0


async def test_relay_that_wakes_up_late_refills_nothing_that_is_no_longer_kept(sqlite_bench: Bench) -> None:
    """What it read was published meanwhile, in an epoch that is over, and Redis emptied."""
    bench = sqlite_bench

    class Late:
        def __init__(self, database: Database) -> None:
            self.write = database.write
            self.slept = False

        async def read(self, work: Callable[[Connection], T]) -> T:
            found = await bench.database.read(work)
            if not self.slept and isinstance(found, list) and found:  # what waits in the outbox
                self.slept = True
                await bench.relay_once()
                await bench.database.write(partial(begin_epoch, after=1))
                await bench.redis.delete(bench.names.generation())
                await bench.forget(ALICE)
            return found

    await bench.record(ALICE)
    await bench.relay_once()
    await bench.record(ALICE)
    relay = bench.relay(Late(bench.database))  # type: ignore[arg-type]
    relay._compared = True
    relay.stop()
    await relay.run()
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(2, 3)


async def test_redis_ahead_of_the_database_begins_a_new_epoch(bench: Bench) -> None:
    """A backup was restored: what is recorded now would look like what was published before."""
    await bench.record(*[ALICE] * 5)
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        connection.execute(events.delete().where(events.c.seq > 3))
        connection.execute(update(channels).values(seq=3))

    await bench.database.write(restore)
    await bench.redis.delete(bench.names.generation())  # lost alone, as keys of a cluster may be
    await bench.record(ALICE)
    await bench.relay_once()
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(2, 4)
    assert await bench.logged(ALICE) == [4]
    assert await bench.waiting() == 0
    assert bench.metrics.registry.get_sample_value("orderbell_epoch_changes_total") == 1


async def test_database_that_went_back_is_found_before_anything_is_published(bench: Bench) -> None:
    """Its next seqs would hide behind those that were published before, had it a chance to catch up."""
    await bench.record(*[BOB] * 2, *[ALICE] * 5)
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        connection.execute(events.delete().where(events.c.seq > 2))
        connection.execute(update(channels).values(seq=2))

    await bench.database.write(restore)
    await bench.relay_once()
    assert await bench.redis.hget(bench.names.generation(), "epoch") == b"2"
    await bench.record(*[ALICE] * 9)
    await bench.relay_once()
    assert await bench.logged(ALICE) == list(range(3, 12))
    assert await bench.head(ALICE) == Place(2, 11)
    assert bench.metrics.registry.get_sample_value("orderbell_epoch_changes_total") == 1


async def test_database_that_went_back_and_caught_up_is_known_by_its_newest_event(bench: Bench) -> None:
    """It has an event wherever Redis knows one, but another."""
    await bench.record(*[ALICE] * 5)
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        connection.execute(events.delete().where(events.c.seq > 2))
        connection.execute(update(channels).values(seq=2))

    await bench.database.write(restore)
    await bench.record(*[ALICE] * 9)
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(2, 11)
    assert await bench.logged(ALICE) == list(range(3, 12))
    assert bench.metrics.registry.get_sample_value("orderbell_epoch_changes_total") == 1


async def test_new_database_beside_an_old_redis_begins_a_new_epoch(bench: Bench) -> None:
    await bench.redis.hset(bench.names.generation(), mapping={"epoch": 4, "position": 1000})
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(5, 1)


async def test_redis_knows_the_newest_event_published(bench: Bench) -> None:
    await bench.record(ALICE, BOB, ALICE)
    await bench.relay_once()
    newest = await bench.database.read(generation_module.newest)
    assert await bench.redis.hgetall(bench.names.generation()) == {
        b"epoch": b"1",
        b"position": str(newest.position).encode(),
        b"identity": newest.identity.encode(),
    }
    await bench.relay_once()
    assert bench.metrics.registry.get_sample_value("orderbell_epoch_changes_total") == 0


@pytest.mark.parametrize(
    ("policy", "acl", "warned"),
    [("allkeys-lru", "+info", 1), ("noeviction", "+info", 0), ("allkeys-lru", "-info", 0)],
)
async def test_redis_that_may_evict_is_warned_of_once_if_it_says_so(
    sqlite_bench: Bench, redis_server: EmbeddedServer, policy: str, acl: str, warned: int
) -> None:
    async with connect(redis_server.url) as redis, Pipelines(redis) as pipelines:
        await redis.config_set("maxmemory-policy", policy)
        await redis.execute_command("ACL", "SETUSER", "default", acl)  # type: ignore[no-untyped-call]
        bench = Bench(sqlite_bench.database, redis, pipelines, sqlite_bench.names)
        await bench.record(ALICE)
        relay = bench.relay()
        relay.stop()
        with capture_logs() as logs:
            for _ in range(2):  # as if it had been away between
                relay._compared = False
                await relay.run()
        assert [line["policy"] for line in logs if "evict" in line["event"]] == [policy] * warned
        assert await bench.logged(ALICE) == [1]


async def test_pruning_does_not_look_like_going_back(bench: Bench) -> None:
    await bench.record(ALICE, BOB, ALICE)
    await bench.relay_once()
    bench.clock.advance(days=8)
    await Retention(bench.database, bench.metrics, bench.clock, history_days=7).sweep()
    await bench.relay_once()
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(1, 3)


async def test_while_redis_is_down_events_wait_and_are_published_when_it_is_back(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    async with (
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'orderbell.db'}") as database,
        connect(redis_server.url, retries=0) as redis,
        Pipelines(redis) as pipelines,
    ):
        bench = Bench(database, redis, pipelines, Names(key_prefix))
        async with running(bench.relay()) as relay:
            await bench.record(ALICE)
            relay.wake()
            await await_until(lambda: relay.redis_up)
            redis_server.kill()
            await bench.record(ALICE)
            relay.wake()
            await await_until(lambda: relay.redis_up is False)
            assert relay.alive
            await bench.record(ALICE)
            redis_server.start()
            await await_until(lambda: relay.redis_up)
            await await_until(lambda: seqs_are(bench, [1, 2, 3]))


async def seqs_are(bench: Bench, seqs: list[int]) -> bool:
    return await bench.logged(ALICE) == seqs


async def test_frozen_redis_is_noticed_and_costs_no_connections(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.wire.REPLY_SECONDS", 0.1)
    async with (
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'orderbell.db'}") as database,
        connect(redis_server.url, retries=0, max_connections=2) as redis,
        Pipelines(redis) as pipelines,
    ):
        bench = Bench(database, redis, pipelines, Names(key_prefix))
        async with running(bench.relay()) as relay:
            await bench.record(ALICE)
            relay.wake()
            await await_until(lambda: relay.redis_up)
            redis_server.stop()
            await bench.record(ALICE)
            relay.wake()
            await await_until(lambda: relay._failures > 3)
            redis_server.resume()
            await await_until(lambda: relay.redis_up)
            await await_until(lambda: seqs_are(bench, [1, 2]))


async def test_redis_that_refuses_writes_publishes_nothing_and_loses_nothing(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    """Out of memory, SCRIPT FLUSH, and back."""
    async with (
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'orderbell.db'}") as database,
        connect(redis_server.url, retries=0) as redis,
        Pipelines(redis) as pipelines,
    ):
        bench = Bench(database, redis, pipelines, Names(key_prefix))
        await bench.record(ALICE)
        await bench.relay_once()
        await redis.config_set("maxmemory", 1)
        await bench.record(ALICE)
        await bench.relay_once()
        await redis.config_set("maxmemory", 0)
        assert (await bench.logged(ALICE), await bench.waiting()) == ([1], 1)
        await redis.script_flush()
        await bench.relay_once()
        assert (await bench.logged(ALICE), await bench.waiting()) == ([1, 2], 0)


async def spoil(bench: Bench, channel: Channel, seq: int, text: str = "CAST(x'7bff7d' AS TEXT)") -> None:
    """As somebody does who writes past the door; `text` is SQL."""
    where = {"channel": channel, "seq": seq}
    statement = sql(f"UPDATE events SET text = {text} WHERE channel = :channel AND seq = :seq")
    await bench.database.write(lambda connection: connection.execute(statement, where))


async def types(bench: Bench, channel: Channel) -> list[str]:
    entries: list[Any] = await bench.redis.xrange(bench.names.log(channel))  # type: ignore[assignment]
    return [json.loads(fields[b"e"])["type"] for _, fields in entries]


async def given_up(bench: Bench) -> list[tuple[str, str]]:
    found = await bench.database.read(partial(dead_letters.find, before=None, limit=100))
    return [(str(Cursor(dead.row.channel, dead.row.place)), dead.reason) for dead in found.dead_letters]


@pytest.mark.parametrize("text", ["'lunch'", "'[1]'", "'{}'", "'{\"x\":\"' || REPEAT || '\"}'"])
async def test_event_with_a_fault_becomes_a_tombstone_and_what_follows_is_published(
    bench: Bench, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    large = "replace(hex(zeroblob(1000000)), '0', 'x')" if is_sqlite(bench) else "repeat('x', 2000000)"
    await bench.record(ALICE, BOB, ALICE, ALICE)
    await spoil(bench, ALICE, 2, text.replace("REPEAT", large))
    await bench.relay_once()
    assert await bench.logged(ALICE) == [1, 2, 3]
    assert await types(bench, ALICE) == ["t", "orderbell.tombstone", "t"]
    assert await bench.logged(BOB) == [1]
    assert await bench.waiting() == 0
    reason = "too-large" if "REPEAT" in text else "not-an-event"
    assert await given_up(bench) == [("customer:alice=1.2", reason)]
    count = bench.metrics.registry.get_sample_value("orderbell_dead_letters_total", {"reason": reason})
    assert count == 1


def is_sqlite(bench: Bench) -> bool:
    return isinstance(bench.database, SqliteDatabase)


async def test_text_that_is_not_utf_8_blocks_nothing(sqlite_bench: Bench) -> None:
    """Python's driver fails on it, and with it everything that is read together with it."""
    await sqlite_bench.record(ALICE, BOB, ALICE)
    await spoil(sqlite_bench, ALICE, 1)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == [1, 2]
    assert await sqlite_bench.logged(BOB) == [1]
    assert await given_up(sqlite_bench) == [("customer:alice=1.1", "not-an-event")]


async def test_event_with_a_fault_is_given_up_while_redis_is_away(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    redis_server.kill()
    async with (
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'orderbell.db'}") as database,
        connect(redis_server.url, retries=0) as redis,
        Pipelines(redis) as pipelines,
    ):
        bench = Bench(database, redis, pipelines, Names(key_prefix))
        await bench.record(ALICE)
        await spoil(bench, ALICE, 1)
        await bench.relay_once()
        assert await given_up(bench) == [("customer:alice=1.1", "not-an-event")]
        assert await bench.waiting() == 1


async def test_events_of_other_channels_go_on_where_no_dead_letter_can_be_written(
    sqlite_bench: Bench,
) -> None:
    await sqlite_bench.record(ALICE, BOB, ALICE, BOB)
    await spoil(sqlite_bench, ALICE, 2)
    relay = sqlite_bench.relay(MarkFails(sqlite_bench.database))  # type: ignore[arg-type]
    relay.stop()
    await relay.run()
    assert await sqlite_bench.logged(BOB) == [1, 2]
    assert await sqlite_bench.logged(ALICE) == [1]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes the publish script refuse, half-way, what the Lua condition holds for."""

    def refuse(condition: str, error: str) -> None:
        before = "redis.call('XADD'"
        refusal = f"if {condition} then return redis.error_reply('{error}') end {before}"
        monkeypatch.setattr(log, "_PUBLISH", log._PUBLISH.replace(before, refusal))

    monkeypatch.setattr(relay_module, "MAX_BACKOFF_SECONDS", 0.02)
    return refuse


POISON = """string.find(ARGV[i + 1], '"id":"5"', 1, true) and not string.find(ARGV[i + 1], 'tombstone')"""


async def test_event_that_only_redis_refuses_is_given_up_after_some_attempts_alone(
    bench: Bench, refusing: Callable[[str, str], None]
) -> None:
    refusing(POISON, "ERR this one never")
    await bench.record(*[ALICE, BOB] * 5, CAROL)  # the fifth is Alice's third
    async with running(bench.relay()):
        await await_until(lambda: nothing_waits(bench))
    assert await types(bench, ALICE) == ["t", "t", "orderbell.tombstone", "t", "t"]
    assert await bench.logged(BOB) == [1, 2, 3, 4, 5]
    assert await bench.logged(CAROL) == [1]
    assert await given_up(bench) == [("customer:alice=1.3", "refused")]


async def test_other_channels_are_published_while_a_refused_event_waits_for_its_next_attempt(
    sqlite_bench: Bench, refusing: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(POISON, "ERR this one never")
    monkeypatch.setattr(relay_module, "BATCH", 4)  # fewer than those that wait behind it
    monkeypatch.setattr(relay_module, "_backoff", lambda attempts: 60.0)
    await sqlite_bench.record(*[ALICE] * 20)
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: seqs_are(sqlite_bench, [1, 2, 3, 4]))
        for count in range(1, 4):
            await sqlite_bench.record(BOB)
            relay.wake()
            await await_until(lambda count=count: has_logged(sqlite_bench, BOB, count))  # type: ignore[misc]
        assert await given_up(sqlite_bench) == []


async def has_logged(bench: Bench, channel: Channel, count: int) -> bool:
    return len(await bench.logged(channel)) == count


async def test_refusal_that_ends_costs_nothing(
    bench: Bench, refusing: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = log._PUBLISH
    refusing(POISON, "ERR not now")
    await bench.record(*[ALICE, BOB] * 5)
    async with running(bench.relay()):
        await await_until(lambda: seqs_are(bench, [1, 2]))
        monkeypatch.setattr(log, "_PUBLISH", sound)
        await await_until(lambda: nothing_waits(bench))
    assert await types(bench, ALICE) == ["t"] * 5
    assert await given_up(bench) == []


STATES = [
    "OOM command not allowed when used memory > maxmemory.",
    "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
    "READONLY You can not write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script.",
    "NOSCRIPT No matching script.",
    "NOPERM this user has no permissions",
    "NOAUTH Authentication required.",
    "CLUSTERDOWN The cluster is down",
    "MOVED 3999 127.0.0.1:6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MASTERDOWN Link with MASTER is down",
    "NOREPLICAS Not enough good replicas to write.",
    "UNHEARDOF of",
    "ERR Error running script (call to f_a): @user_script:18: @user_script: 18: -OOM command not allowed",
]


@pytest.mark.parametrize("error", STATES)
async def test_state_of_the_server_makes_no_dead_letter(
    sqlite_bench: Bench, refusing: Callable[[str, str], None], error: str
) -> None:
    """Not even where it is told for one event alone."""
    refusing(POISON, error)
    await sqlite_bench.record(*[ALICE, BOB] * 5)
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay._failures > 2 * relay_module.ATTEMPTS)
    assert await given_up(sqlite_bench) == []


async def test_redis_that_refuses_everything_makes_no_dead_letter(
    sqlite_bench: Bench, refusing: Callable[[str, str], None]
) -> None:
    """Whatever it says: no event can be to blame."""
    refusing("true", "ERR unknown command")
    await sqlite_bench.record(*[ALICE, BOB] * 5)
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay._failures > 2 * relay_module.ATTEMPTS)
    assert await given_up(sqlite_bench) == []


@pytest.mark.parametrize("key", ["log", "head"])
async def test_key_that_somebody_else_wrote_is_forgotten_and_no_event_blamed(
    bench: Bench, refusing: Callable[[str, str], None], key: str
) -> None:
    await bench.record(ALICE, BOB)
    await bench.relay_once()
    await bench.redis.set(getattr(bench.names, key)(ALICE), "somebody else's")
    await bench.record(ALICE, BOB, ALICE)
    async with running(bench.relay()):
        await await_until(lambda: nothing_waits(bench))
    assert await bench.logged(ALICE) == [2, 3]
    assert await bench.logged(BOB) == [1, 2]
    assert await given_up(bench) == []


async def test_newest_that_somebody_else_wrote_holds_up_nothing_and_is_noted_anew(
    sqlite_bench: Bench,
) -> None:
    await sqlite_bench.record(ALICE)
    await sqlite_bench.redis.set(sqlite_bench.names.generation(), "text")
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == [1]
    position = await sqlite_bench.redis.hget(sqlite_bench.names.generation(), "position")
    assert position == b"1"


async def test_published_in_an_epoch_that_is_over_is_not_marked_in_the_new_one(bench: Bench) -> None:
    """A has published and not marked it; B begins the next epoch, into which it moves; then A marks."""

    class EpochGrowsBeforeTheMark:
        def __init__(self, database: Database) -> None:
            self.read = database.read
            self.grown = False

        async def write(self, work: Callable[[Connection], T]) -> T:
            if not self.grown:
                self.grown = True
                await bench.database.write(partial(begin_epoch, after=1))
            return await bench.database.write(work)

    await bench.record(ALICE, ALICE)
    relay = bench.relay(EpochGrowsBeforeTheMark(bench.database))  # type: ignore[arg-type]
    relay.stop()
    await relay.run()
    assert await bench.head(ALICE) == Place(1, 2)
    assert await bench.waiting() == 2
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(2, 2)
    assert await bench.waiting() == 0


async def test_relay_knows_the_newest_it_has_published_and_notes_it_again_where_redis_lost_it(
    sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gateways go by it; between two events there may be hours."""
    monkeypatch.setattr(relay_module, "POLL_SECONDS", 0.05)
    await sqlite_bench.record(ALICE, BOB)
    newest = await sqlite_bench.database.read(generation_module.newest)
    key = sqlite_bench.names.generation()
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay.newest == newest)
        await sqlite_bench.redis.delete(key)
        await await_until(lambda: is_noted(sqlite_bench, newest.position))


async def is_noted(bench: Bench, position: int) -> bool:
    noted = await bench.redis.hget(bench.names.generation(), "position")
    return noted == str(position).encode()


async def test_event_that_waits_for_redis_longer_than_a_second_should_be_there(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "STUCK_SECONDS", 0.2)
    async with (
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'orderbell.db'}") as database,
        connect(redis_server.url, retries=0) as redis,
        Pipelines(redis) as pipelines,
    ):
        bench = Bench(database, redis, pipelines, Names(key_prefix))
        async with running(bench.relay()) as relay:
            await bench.record(ALICE)
            await await_until(lambda: relay.newest.position == 1)
            redis_server.kill()
            await bench.record(ALICE)
            relay.wake()
            await await_until(lambda: relay.newest.position == 2)
            assert relay.redis_up is False
            redis_server.start()
            await await_until(lambda: seqs_are(bench, [1, 2]))
            await await_until(lambda: relay._stuck_since is None)
            await await_until(lambda: relay.newest.position == 2)


async def test_unexpected_death_of_the_relay_is_its_owners_to_see(sqlite_bench: Bench) -> None:
    class Broken(SqliteDatabase):
        def __init__(self) -> None: ...

        async def read(self, work: Callable[[Connection], T]) -> T:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sqlite_bench.relay(Broken()).run()
