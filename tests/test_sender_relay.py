"""The relay and a real Redis: the four answers; a Redis that is away, frozen, emptied, or knows more."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import delete, insert, select, update
from structlog.testing import capture_logs

from sender import generation as generation_module
from sender import history
from sender.database.errors import DatabaseUnavailable
from sender.database.sqlite import SqliteDatabase
from sender.database.tables import channels, events
from sender.database.tables import outbox as table
from sender.generation import begin_epoch, current_epoch
from sender.publishing.pace import Pace
from sender.publishing.relay import Relay
from sender.retention import Pace as RetentionPace
from sender.retention import Retention
from shared.channels import Channel
from shared.cursors import Place
from shared.redis.channel_log import LogWriter, PublishAnswer
from shared.redis.server import connect_server
from shared.redis.wire import Pipelines
from tests.claims import claim
from tests.postgres_servers import fresh_database
from tests.relays import Bench, MarkFails, nothing_waits, open_bench, running, seqs_are
from tests.senders import postgres_is_long
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from redis.asyncio import Redis
    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

T = TypeVar("T")

ALICE = Channel("customer:alice")
BOB = Channel("customer:bob")
CAROL = Channel("customer:carol")


async def test_recorded_events_are_published_in_order_and_leave_the_outbox(bench: Bench) -> None:
    await bench.record(ALICE, BOB, ALICE, ALICE)
    await bench.relay_once()
    assert await bench.logged(ALICE) == [1, 2, 3]
    assert await bench.logged(BOB) == [1]
    assert await bench.waiting() == 0


async def test_commit_wakes_the_relay(sqlite_bench: Bench) -> None:
    sqlite_bench.pace = Pace(poll_seconds=60)
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay._woken._waiters)
        await sqlite_bench.record(ALICE)
        relay.wake()
        await await_until(lambda: sqlite_bench.logged(ALICE))


async def test_what_nobody_woke_it_for_is_found_by_polling(sqlite_bench: Bench) -> None:
    sqlite_bench.pace = Pace(poll_seconds=0.05)
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay._woken._waiters)
        await sqlite_bench.record(ALICE)  # as if by another sender, which died
        with claim("what nobody woke it for is found"):
            await await_until(lambda: sqlite_bench.logged(ALICE))


async def test_more_than_a_batch_is_published_without_waiting(sqlite_bench: Bench) -> None:
    sqlite_bench.pace = Pace(batch=4)
    await sqlite_bench.record(*[ALICE, BOB] * 10)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == list(range(1, 11))
    assert await sqlite_bench.waiting() == 0


class Away:
    """A database that can't be read until it is back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.back = False
        self.write, self.write_together = database.write, database.write_together
        self.write_when_idle = database.write_when_idle
        self.hurry, self.abandon = database.hurry, database.abandon
        self.check, self.return_space, self.pool = database.check, database.return_space, database.pool

    async def read(self, work: Callable[[Connection], T]) -> T:
        if not self.back:
            raise DatabaseUnavailable("away")
        return await self._database.read(work)


async def test_a_commit_ends_the_wait_for_a_database_that_was_away(bench: Bench) -> None:
    bench.pace = Pace(first_backoff_seconds=3600, max_backoff_seconds=3600)
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
    sqlite_bench: Bench,
) -> None:
    sqlite_bench.pace = Pace(mark_seconds=0.3)

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
            await await_until(lambda seq=seq: seqs_are(sqlite_bench, ALICE, list(range(1, seq + 1))))  # type: ignore[misc]
        await await_until(lambda: nothing_waits(sqlite_bench))
    assert database.writes <= 3
    assert (sqlite_bench.count("OK"), sqlite_bench.count("DUP")) == (5, 0)


@pytest.mark.postgres
async def test_row_that_somebody_holds_keeps_no_other_from_being_published_and_marked(
    postgres_url: str, redis: Redis, key_prefix: str
) -> None:
    with fresh_database(postgres_url) as url:
        async with open_bench(url, redis, key_prefix) as bench:
            await bench.record(ALICE, BOB)
            other = await asyncpg.connect(url.replace("+asyncpg", ""))
            transaction = other.transaction()
            await transaction.start()
            await other.execute(
                "SELECT FROM orderbell.outbox JOIN orderbell.events USING (position)"
                " WHERE channel = $1 FOR UPDATE",
                str(ALICE),
            )
            async with running(bench.relay(pace=Pace(poll_seconds=0.1))) as relay:
                for count in range(1, 4):
                    await bench.record(BOB, CAROL)
                    relay.wake()
                    await await_until(partial(seqs_are, bench, CAROL, list(range(1, count + 1))), timeout=2)
                    await await_until(partial(only_waits, bench, 1), timeout=2)
                assert await bench.logged(ALICE) == [1]
                await transaction.rollback()
                await await_until(lambda: nothing_waits(bench))
            await other.close()
        assert bench.count("DUP") == 0


async def only_waits(bench: Bench, count: int) -> bool:
    return await bench.waiting() == count


@postgres_is_long
async def test_what_redis_lost_is_refilled_from_the_database_before_the_new(bench: Bench) -> None:
    await bench.record(*[ALICE] * 5, BOB)
    await bench.relay_once()
    await bench.forget(ALICE)
    await bench.record(ALICE)
    await bench.relay_once()
    assert bench.count("GAP") == 1
    assert await bench.logged(ALICE) == [1, 2, 3, 4, 5, 6]
    assert await bench.waiting() == 0


@postgres_is_long
async def test_lost_tail_is_refilled_too(bench: Bench) -> None:
    """As after a fail-over to a replica that lacks the last writes."""
    await bench.record(*[ALICE] * 5)
    await bench.relay_once()
    await bench.redis.xtrim(bench.names.log(ALICE), maxlen=0)
    await bench.redis.delete(bench.names.log(ALICE))
    await bench.redis.hset(bench.names.head(ALICE), "seq", "3")
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.logged(ALICE) == [4, 5, 6]


async def test_large_hole_is_refilled_with_the_newest(sqlite_bench: Bench) -> None:
    sqlite_bench.pace = Pace(refill_length=10)
    await sqlite_bench.record(*[ALICE] * 30)
    await sqlite_bench.relay_once()
    await sqlite_bench.forget(ALICE)
    await sqlite_bench.record(ALICE)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == list(range(22, 32))
    assert await sqlite_bench.waiting() == 0


async def test_large_refill_comes_in_several_parts(sqlite_bench: Bench) -> None:
    sqlite_bench.pace = Pace(refill_at_once=7)
    await sqlite_bench.record(*[ALICE] * 20)
    await sqlite_bench.relay_once()
    await sqlite_bench.forget(ALICE)
    await sqlite_bench.record(ALICE)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == list(range(1, 22))


class ReadsSome:
    """Counts the reads of events to be published again; during the first, something happens."""

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


@postgres_is_long
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
    sqlite_bench: Bench,
) -> None:
    bench = sqlite_bench
    bench.pace = Pace(refill_at_once=3)
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


async def test_refill_in_the_midst_of_which_an_epoch_begins_is_not_taken_for_all_of_it(
    sqlite_bench: Bench,
) -> None:
    """Nothing more is found in the epoch in which it began."""
    sqlite_bench.pace = Pace(refill_at_once=3)  # so that it has several parts
    await sqlite_bench.record(*[ALICE] * 7)
    await sqlite_bench.relay_once()
    await sqlite_bench.forget(ALICE)

    async def begin_another() -> None:
        await sqlite_bench.database.write(partial(begin_epoch, after=1))

    relay = sqlite_bench.relay(ReadsSome(sqlite_bench.database, begin_another))  # type: ignore[arg-type]
    answers = await relay._publisher._refill({ALICE: Place(1, 0)}, {ALICE: Place(1, 7)})
    assert answers == {ALICE: (PublishAnswer.GAP, Place(1, 3))}


async def test_relay_that_has_much_to_publish_is_alive_with_each_answer(sqlite_bench: Bench) -> None:
    await sqlite_bench.record(ALICE)
    relay = sqlite_bench.relay()
    waiting = await relay._read_outbox()
    relay._last_turn -= 2 * Pace().dead_seconds
    assert not relay.alive
    await relay._search.publish(waiting)
    assert relay.alive


async def test_14_racing_relays_publish_each_event_once(bench: Bench) -> None:
    bench.pace = Pace(batch=3)
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


@postgres_is_long
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
@postgres_is_long
async def test_stale_relay_of_several_only_reads_again(bench: Bench, known: int) -> None:
    """Epoch 3 began between its read and its publish, so no other must begin.

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
    assert bench.counted("orderbell_epoch_changes_total") == 0


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
                await bench.redis.delete(bench.names.newest())
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


@postgres_is_long
async def test_redis_ahead_of_the_database_begins_a_new_epoch(bench: Bench) -> None:
    """A backup was restored: new events would look like those published before."""
    await bench.record(*[ALICE] * 5)
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        connection.execute(events.delete().where(events.c.seq > 3))
        connection.execute(update(channels).values(seq=3))

    await bench.database.write(restore)
    await bench.redis.delete(bench.names.newest())  # this key alone is lost, as can happen in a cluster
    await bench.record(ALICE)
    await bench.relay_once()
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(2, 4)
    assert await bench.logged(ALICE) == [4]
    assert await bench.waiting() == 0
    assert bench.counted("orderbell_epoch_changes_total") == 1


@postgres_is_long
async def test_database_that_went_back_is_found_before_anything_is_published(bench: Bench) -> None:
    """If it could catch up, its next seqs would hide behind those published before."""
    await bench.record(*[BOB] * 2, *[ALICE] * 5)
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        connection.execute(events.delete().where(events.c.seq > 2))
        connection.execute(update(channels).values(seq=2))

    await bench.database.write(restore)
    await bench.relay_once()
    assert await bench.redis.hget(bench.names.newest(), "epoch") == b"2"
    await bench.record(*[ALICE] * 9)
    await bench.relay_once()
    assert await bench.logged(ALICE) == list(range(3, 12))
    assert await bench.head(ALICE) == Place(2, 11)
    assert bench.counted("orderbell_epoch_changes_total") == 1


@postgres_is_long
async def test_restored_database_has_its_new_epoch_after_the_relays_first_turn(bench: Bench) -> None:
    await bench.record(*[ALICE] * 3)
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        connection.execute(events.delete().where(events.c.seq > 2))
        connection.execute(update(channels).values(seq=2))

    await bench.database.write(restore)
    async with running(bench.relay()) as relay:
        await relay.wait_for_first_turn(60)
        assert await bench.database.read(current_epoch) == 2


@postgres_is_long
async def test_first_turn_is_not_waited_for_longer_than_said(bench: Bench) -> None:
    relay = bench.relay()  # it does not run
    async with asyncio.timeout(5):
        await relay.wait_for_first_turn(0.01)


async def test_database_that_went_back_and_caught_up_is_known_by_its_newest_event(bench: Bench) -> None:
    """It has an event at each place that Redis knows, but different ones."""
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
    assert bench.counted("orderbell_epoch_changes_total") == 1


async def test_database_that_lacks_what_was_published_last_is_noticed_before_redis_has_a_note_of_it(
    bench: Bench,
) -> None:
    """A fail-over lost the last commit; the next event has its place, and would be a repetition of it."""
    relay = bench.relay(pace=Pace(mark_seconds=60, poll_seconds=60))  # it looks when it is woken
    async with running(relay):
        await bench.record(ALICE, ALICE)
        relay.wake()
        await await_until(lambda: seqs_are(bench, ALICE, [1, 2]))

        def restore(connection: Connection) -> None:
            last = connection.execute(select(events.c.position).where(events.c.seq == 2)).scalar_one()
            connection.execute(events.delete().where(events.c.position == last))
            connection.execute(table.delete().where(table.c.position == last))
            connection.execute(update(channels).values(seq=1))

        await bench.database.write(restore)
        await bench.record(ALICE)
        relay._compared = False  # as after any failure of the database
        relay.wake()

        async def is_published() -> bool:
            return await bench.head(ALICE) == Place(2, 2)

        await await_until(is_published)
        assert await bench.logged(ALICE) == [2]
        assert bench.counted("orderbell_epoch_changes_total") == 1


@pytest.mark.postgres
async def test_database_that_went_back_behind_a_pooler_is_noticed_without_an_error(
    redis: Redis, key_prefix: str, postgres_url: str
) -> None:
    with fresh_database(postgres_url) as url:
        async with open_bench(url, redis, key_prefix) as bench:
            async with running(bench.relay(pace=Pace(poll_seconds=0.05))) as relay:
                await bench.record(ALICE, ALICE)
                await await_until(lambda: bench.redis.hexists(bench.names.newest(), "position"))
                await await_until(lambda: relay.floor.now.position)

                def restore(connection: Connection) -> None:
                    connection.execute(events.delete().where(events.c.seq == 2))
                    connection.execute(update(channels).values(seq=1))

                await bench.database.write(restore)
                # A new file for the table, as every restored one has.
                other = await asyncpg.connect(url.replace("+asyncpg", ""))
                await other.execute("VACUUM FULL orderbell.events")
                await other.close()

                async def is_noticed() -> bool:
                    return await bench.database.read(current_epoch) == 2

                await await_until(is_noticed)


async def test_what_waited_in_the_backup_and_was_published_before_is_not_published_again(
    bench: Bench,
) -> None:
    await bench.record(ALICE, BOB)
    await bench.relay_once()
    await bench.record(ALICE, ALICE, BOB)  # these wait in the backup
    backup = await bench.database.read(lambda connection: connection.execute(select(table)).all())
    await bench.relay_once()
    await bench.record(CAROL, ALICE)  # these are not in it
    await bench.relay_once()

    def restore(connection: Connection) -> None:
        last = max(row.position for row in backup)
        connection.execute(events.delete().where(events.c.position > last))
        connection.execute(update(channels).where(channels.c.channel == ALICE).values(seq=3))
        connection.execute(delete(channels).where(channels.c.channel == CAROL))
        connection.execute(insert(table), [row._asdict() for row in backup])

    await bench.database.write(restore)
    # Recorded before the relay notices; Alice's and Carol's events have places of published ones.
    await bench.record(ALICE, CAROL)
    await bench.relay_once()
    await bench.relay_once()
    assert await bench.waiting() == 0
    assert await bench.logged(ALICE) == [4]
    assert await bench.head(ALICE) == Place(2, 4)
    assert await bench.logged(CAROL) == [1]
    assert await bench.head(CAROL) == Place(2, 1)
    assert await bench.head(BOB) == Place(1, 2)  # nothing new of it


async def test_what_redis_no_longer_has_of_the_backups_outbox_is_published(bench: Bench) -> None:
    await bench.record(ALICE, ALICE)
    await bench.redis.hset(bench.names.newest(), mapping={"epoch": 1, "position": 1000, "identity": "x"})
    await bench.relay_once()
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(2, 2)
    assert await bench.logged(ALICE) == [1, 2]


@postgres_is_long
async def test_new_database_beside_an_old_redis_begins_a_new_epoch(bench: Bench) -> None:
    await bench.redis.hset(bench.names.newest(), mapping={"epoch": 4, "position": 1000})
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(5, 1)


@postgres_is_long
async def test_redis_knows_the_newest_event_published(bench: Bench) -> None:
    await bench.record(ALICE, BOB, ALICE)
    await bench.relay_once()
    newest = await bench.database.read(generation_module.newest)
    installation = await bench.database.write(generation_module.mint_installation)
    assert await bench.redis.hgetall(bench.names.newest()) == {
        b"installation": installation.encode(),
        b"epoch": b"1",
        b"position": str(newest.position).encode(),
        b"identity": newest.identity.encode(),
    }
    await bench.relay_once()
    assert bench.counted("orderbell_epoch_changes_total") == 0


@pytest.mark.parametrize(
    ("policy", "acl", "warned"),
    [("allkeys-lru", "+info", 1), ("noeviction", "+info", 0), ("allkeys-lru", "-info", 0)],
)
async def test_redis_that_may_evict_is_warned_of_once_if_it_says_so(
    sqlite_bench: Bench, redis_server: EmbeddedServer, policy: str, acl: str, warned: int
) -> None:
    async with connect_server(redis_server.url) as redis, Pipelines(redis) as pipelines:
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
    trusting = RetentionPace(doubt_seconds=0)
    retention = Retention(bench.database, bench.clock, history_days=7, pace=trusting)
    await retention.sweep()
    await bench.relay_once()
    await bench.record(ALICE)
    await bench.relay_once()
    assert await bench.head(ALICE) == Place(1, 3)


async def test_while_redis_is_down_events_wait_and_are_published_when_it_is_back(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    async with (
        connect_server(redis_server.url, retries=0) as redis,
        open_bench(f"sqlite:///{tmp_path / 'orderbell.db'}", redis, key_prefix) as bench,
    ):
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
            await await_until(lambda: seqs_are(bench, ALICE, [1, 2, 3]))


async def test_frozen_redis_is_noticed_and_costs_no_connections(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    database_url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    async with (
        connect_server(redis_server.url, retries=0, max_connections=2) as redis,
        open_bench(database_url, redis, key_prefix, reply_seconds=0.1) as bench,
    ):
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
            await await_until(lambda: seqs_are(bench, ALICE, [1, 2]))


async def test_redis_that_refuses_writes_publishes_nothing_and_loses_nothing(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    """Redis is out of memory, loses its scripts, and recovers."""
    async with (
        connect_server(redis_server.url, retries=0) as redis,
        open_bench(f"sqlite:///{tmp_path / 'orderbell.db'}", redis, key_prefix) as bench,
    ):
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


@postgres_is_long
async def test_published_in_an_epoch_that_is_over_is_not_marked_in_the_new_one(bench: Bench) -> None:
    """A has published it but not marked it; B begins the next epoch, into which it moves; then A marks it."""

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
    sqlite_bench: Bench,
) -> None:
    """Gateways rely on it, and hours may pass between two events."""
    sqlite_bench.pace = Pace(poll_seconds=0.05)
    await sqlite_bench.record(ALICE, BOB)
    newest = await sqlite_bench.database.read(generation_module.newest)
    key = sqlite_bench.names.newest()
    async with running(sqlite_bench.relay()) as relay:
        await await_until(lambda: relay.newest == newest)
        await sqlite_bench.redis.delete(key)
        await await_until(lambda: is_noted(sqlite_bench, newest.position))


async def is_noted(bench: Bench, position: int) -> bool:
    noted = await bench.redis.hget(bench.names.newest(), "position")
    return noted == str(position).encode()


async def test_event_that_waits_for_redis_longer_than_a_second_should_be_there(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    async with (
        connect_server(redis_server.url, retries=0) as redis,
        open_bench(f"sqlite:///{tmp_path / 'orderbell.db'}", redis, key_prefix) as bench,
    ):
        async with running(bench.relay(pace=Pace(late_seconds=0.2))) as relay:
            await bench.record(ALICE)
            await await_until(lambda: relay.newest.position == 1)
            redis_server.kill()
            await bench.record(ALICE)
            relay.wake()
            await await_until(lambda: relay.newest.position == 2)
            assert relay.redis_up is False
            redis_server.start()
            await await_until(lambda: seqs_are(bench, ALICE, [1, 2]))
            await await_until(lambda: not relay._due._recorded)
            await await_until(lambda: relay.newest.position == 2)


async def test_backlog_that_takes_longer_than_a_second_should_be_there_to_its_end(
    sqlite_bench: Bench,
) -> None:
    """As after an outage: Redis takes events continuously, the newest last."""
    told: list[int] = []

    class Watched(LogWriter):
        async def publish(self, *args: Any, **kwargs: Any) -> Any:
            told.append(relay.newest.position)
            return await super().publish(*args, **kwargs)

    await sqlite_bench.record(*[ALICE] * 10)
    log = Watched(sqlite_bench.pipelines, sqlite_bench.names)
    pace = Pace(late_seconds=0.0, batch=3)
    relay = Relay(sqlite_bench.database, log, sqlite_bench.clock, pace)
    relay.stop()
    await relay.run()
    assert told == [10] * 4


async def test_unexpected_death_of_the_relay_is_its_owners_to_see(sqlite_bench: Bench) -> None:
    class Broken(SqliteDatabase):
        def __init__(self) -> None: ...

        async def read(self, work: Callable[[Connection], T]) -> T:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sqlite_bench.relay(Broken()).run()
