"""The Redis side of a channel, on a real server: publishing, reading, and what gateways hear."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from shared.channels import Channel, customer_channel, topic_channel
from shared.cursors import Place
from shared.events import Entry
from shared.extents import Extent, Seen
from shared.redis.channel_log import (
    HEAD_SECONDS,
    LOG_LENGTH,
    LOG_SECONDS,
    AnotherInstallation,
    Known,
    LogRead,
    LogReader,
    LogWriter,
    NewestEvent,
    PublishAnswer,
    Published,
    blames_what_was_sent,
)
from shared.redis.keys import Names
from shared.redis.live import SeenNotice, parse_live
from shared.redis.server import connect_server
from shared.redis.wire import CommandRefused, Pipelines
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")
BOB = customer_channel("bob")
MENU = topic_channel("menu")


@pytest.fixture
def names(key_prefix: str) -> Names:
    return Names(key_prefix)


@pytest.fixture
async def pipelines(redis: Redis) -> AsyncIterator[Pipelines]:
    async with Pipelines(redis) as pipelines:
        yield pipelines


@pytest.fixture
def writer(pipelines: Pipelines, names: Names) -> LogWriter:
    return LogWriter(pipelines, names)


@pytest.fixture
def reader(pipelines: Pipelines, names: Names) -> LogReader:
    return LogReader(pipelines, names)


@pytest.fixture
async def live(redis: Redis, names: Names) -> AsyncIterator[Live]:
    """All live messages of Alice's channel."""
    async with redis.pubsub() as subscription:
        await subscription.subscribe(names.live(ALICE))
        heard = Live(subscription)
        await await_until(heard.read)  # the answer to SUBSCRIBE
        yield heard


@dataclass
class Live:
    subscription: PubSub
    messages: list[bytes] = field(default_factory=list)

    async def read(self) -> bool:
        """Whether there was a message."""
        message = await self.subscription.get_message(timeout=0.05)
        if message and message["type"] == "message":
            self.messages.append(message["data"])
        return message is not None

    async def wait_messages(self, count: int) -> list[bytes]:
        """Wait for at least so many messages; returns all that came."""
        with anyio.fail_after(30):
            while len(self.messages) < count:
                await self.read()
        return self.messages

    async def nothing_more(self) -> bool:
        """Redis answers a connection in order, so what was published before this PING comes before its
        answer.
        """
        before = len(self.messages)
        await self.subscription.ping()
        await await_until(self.read)
        return len(self.messages) == before


def entry(seq: int, epoch: int = 1) -> Entry:
    return Entry(Place(epoch, seq), b'{"epoch":%d,"seq":%d}' % (epoch, seq))


def entries(first: int, last: int, epoch: int = 1) -> list[Entry]:
    return [entry(seq, epoch) for seq in range(first, last + 1)]


async def publish(
    writer: LogWriter, published: list[Entry], *, channel: Channel = ALICE, restart: bool = False
) -> Published:
    (answer,) = await writer.publish([(channel, published)], restart=restart)
    return answer


async def read(
    reader: LogReader, channel: Channel = ALICE, *, after: int = 0, limit: int = 10_000
) -> LogRead:
    (found,) = await reader.read([(channel, after)], limit=limit)
    return found


# --- publishing


async def test_published_events_are_in_the_log_and_live(
    writer: LogWriter, reader: LogReader, live: Live
) -> None:
    assert await publish(writer, entries(1, 3)) == (PublishAnswer.OK, Place(1, 3))
    assert await read(reader) == LogRead(Place(1, 3), tuple(entries(1, 3)))
    assert [parse_live(message) for message in await live.wait_messages(3)] == entries(1, 3)


async def test_publishing_again_changes_nothing(writer: LogWriter, reader: LogReader, live: Live) -> None:
    await publish(writer, entries(1, 3))
    assert await publish(writer, entries(1, 3)) == (PublishAnswer.DUP, Place(1, 3))
    assert await publish(writer, entries(2, 2)) == (PublishAnswer.DUP, Place(1, 3))
    assert (await read(reader)).entries == tuple(entries(1, 3))
    await live.wait_messages(3)
    assert await live.nothing_more()


async def test_overlapping_batch_publishes_what_is_new(
    writer: LogWriter, reader: LogReader, live: Live
) -> None:
    await publish(writer, entries(1, 3))
    assert await publish(writer, entries(2, 5)) == (PublishAnswer.OK, Place(1, 5))
    assert (await read(reader)).entries == tuple(entries(1, 5))
    assert [parse_live(message) for message in await live.wait_messages(5)] == entries(1, 5)


async def test_gap_is_refused_and_the_head_returned(writer: LogWriter, reader: LogReader, live: Live) -> None:
    await publish(writer, entries(1, 2))
    assert await publish(writer, entries(4, 5)) == (PublishAnswer.GAP, Place(1, 2))
    assert (await read(reader)).entries == tuple(entries(1, 2))
    await live.wait_messages(2)
    assert await live.nothing_more()


async def test_emptied_server_answers_gap_not_silence(writer: LogWriter) -> None:
    assert await publish(writer, entries(7, 7)) == (PublishAnswer.GAP, Place(1, 0))


async def test_gap_inside_a_batch_publishes_what_was_before_it(writer: LogWriter, reader: LogReader) -> None:
    assert await publish(writer, [entry(1), entry(2), entry(4)]) == (PublishAnswer.GAP, Place(1, 2))
    assert (await read(reader)).entries == tuple(entries(1, 2))


async def test_restart_begins_the_log_anew_behind_the_gap(
    writer: LogWriter, reader: LogReader, live: Live
) -> None:
    await publish(writer, entries(1, 2))
    assert await publish(writer, entries(9, 10), restart=True) == (PublishAnswer.OK, Place(1, 10))
    assert await read(reader) == LogRead(Place(1, 10), tuple(entries(9, 10)))
    assert [parse_live(message) for message in await live.wait_messages(4)] == [
        *entries(1, 2),
        *entries(9, 10),
    ]


async def test_old_epoch_is_refused_and_the_new_one_returned(writer: LogWriter, reader: LogReader) -> None:
    await publish(writer, entries(1, 2, epoch=2))
    assert await publish(writer, entries(3, 4, epoch=1)) == (PublishAnswer.STALE, Place(2, 2))
    assert await read(reader) == LogRead(Place(2, 2), tuple(entries(1, 2, epoch=2)))


async def test_new_epoch_begins_with_an_empty_log(writer: LogWriter, reader: LogReader) -> None:
    await publish(writer, entries(1, 5))
    assert await publish(writer, entries(1, 2, epoch=2)) == (PublishAnswer.OK, Place(2, 2))
    assert await read(reader) == LogRead(Place(2, 2), tuple(entries(1, 2, epoch=2)))


async def test_gap_at_the_start_of_a_new_epoch_leaves_nothing_of_the_old_to_read(
    writer: LogWriter, reader: LogReader
) -> None:
    """Otherwise a reader would take one epoch's entries for another's."""
    await publish(writer, entries(1, 5))
    assert (await publish(writer, entries(4, 4, epoch=2))).answer is PublishAnswer.GAP
    found = await read(reader)
    assert found.entries == ()


async def test_each_channel_has_its_own_answer(writer: LogWriter, reader: LogReader) -> None:
    await publish(writer, entries(1, 1), channel=BOB)
    answers = await writer.publish([(ALICE, entries(1, 2)), (BOB, entries(1, 1)), (MENU, entries(3, 3))])
    assert answers == [
        (PublishAnswer.OK, Place(1, 2)),
        (PublishAnswer.DUP, Place(1, 1)),
        (PublishAnswer.GAP, Place(1, 0)),
    ]
    assert await reader.heads([MENU, BOB, ALICE]) == [None, Place(1, 1), Place(1, 2)]


async def test_log_keeps_its_newest_events_only(writer: LogWriter, reader: LogReader) -> None:
    total = LOG_LENGTH + 500
    for first in range(1, total, 250):
        await publish(writer, entries(first, first + 249))
    found = await read(reader)
    # "MAXLEN ~" removes whole nodes of the stream's tree: a hundred entries more may stay.
    assert LOG_LENGTH <= len(found.entries) <= LOG_LENGTH + 100
    assert found.entries[-1] == entry(total)
    assert [e.place.seq for e in found.entries] == list(range(total - len(found.entries) + 1, total + 1))


async def test_log_and_head_expire_the_log_first(redis: Redis, names: Names, writer: LogWriter) -> None:
    await publish(writer, entries(1, 1))
    assert LOG_SECONDS - 60 < await redis.ttl(names.log(ALICE)) <= LOG_SECONDS
    assert HEAD_SECONDS - 60 < await redis.ttl(names.head(ALICE)) <= HEAD_SECONDS


async def test_publishing_goes_on_after_the_log_expired(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    await publish(writer, entries(1, 3))
    await redis.delete(names.log(ALICE))
    assert await publish(writer, entries(4, 4)) == (PublishAnswer.OK, Place(1, 4))
    assert await read(reader) == LogRead(Place(1, 4), (entry(4),))


async def test_publishing_goes_on_after_the_head_alone_was_lost(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    """Eviction removes single keys."""
    await publish(writer, entries(1, 3))
    await redis.delete(names.head(ALICE))
    assert await publish(writer, entries(1, 4), restart=True) == (PublishAnswer.OK, Place(1, 4))
    assert await read(reader) == LogRead(Place(1, 4), tuple(entries(1, 4)))


async def test_18_publishing_works_after_the_server_forgot_its_scripts(
    redis: Redis, writer: LogWriter
) -> None:
    await publish(writer, entries(1, 1))
    await redis.script_flush()
    assert (await publish(writer, entries(2, 2))).answer is PublishAnswer.OK


async def test_large_seqs_are_exact(writer: LogWriter, reader: LogReader, live: Live) -> None:
    """Lua's numbers are doubles, and it writes those above 1e14 with an exponent."""
    last = 2**53 - 1
    await publish(writer, entries(last - 2, last - 1, epoch=last), restart=True)
    assert await publish(writer, entries(last, last, epoch=last)) == (PublishAnswer.OK, Place(last, last))
    assert await read(reader, after=last - 1) == LogRead(Place(last, last), (entry(last, last),))
    assert parse_live((await live.wait_messages(3))[-1]) == entry(last, last)


async def test_any_bytes_pass_unchanged(writer: LogWriter, reader: LogReader, live: Live) -> None:
    text = b'{"data":"' + bytes(range(0x20, 0x100)) + b'\r\n\x00"}'
    await publish(writer, [Entry(Place(1, 1), text)])
    assert (await read(reader)).entries[0].text == text
    assert parse_live((await live.wait_messages(1))[0]) == Entry(Place(1, 1), text)


# --- reading


async def test_reading_goes_on_after_a_seq_up_to_a_limit(writer: LogWriter, reader: LogReader) -> None:
    await publish(writer, entries(1, 10))
    assert await read(reader, after=4, limit=3) == LogRead(Place(1, 10), tuple(entries(5, 7)))
    assert await read(reader, after=10) == LogRead(Place(1, 10), ())
    assert await read(reader, after=99) == LogRead(Place(1, 10), ())


async def test_unknown_channel_has_no_head_and_no_entries(reader: LogReader) -> None:
    assert await read(reader) == LogRead(None, ())
    assert await reader.heads([ALICE]) == [None]
    assert await reader.seen([ALICE]) == [None]


async def test_log_without_its_head_says_nothing(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    await publish(writer, entries(1, 3))
    await redis.delete(names.head(ALICE))
    assert await read(reader) == LogRead(None, ())


async def test_keys_of_another_kind_say_nothing_of_their_channel_and_spoil_no_other(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    await publish(writer, entries(1, 1), channel=BOB)
    for key in (names.head(ALICE), names.log(ALICE)):
        await redis.set(key, "text")
    await redis.lpush(names.seen(ALICE), "1.1")
    assert await reader.heads([ALICE, BOB]) == [None, Place(1, 1)]
    assert await reader.known([ALICE, BOB]) == [Known(None, None), Known(Place(1, 1), None)]
    assert await reader.seen([ALICE, BOB]) == [None, None]
    alice, bob = await reader.read([(ALICE, 0), (BOB, 0)], limit=10)
    assert (alice, bob.entries) == (LogRead(None, ()), (entry(1),))


async def test_log_of_another_kind_is_not_taken_for_an_empty_one(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    await publish(writer, entries(1, 3))
    await redis.set(names.log(ALICE), "text")
    assert await read(reader) == LogRead(None, ())


@pytest.mark.parametrize("number", ["x", "", "1.5", "-1", "1e3", "1_0", "+1", "é", "9" * 16, "9" * 30])
async def test_head_and_seen_and_generation_that_are_no_numbers_are_unknown(
    redis: Redis, names: Names, reader: LogReader, number: str
) -> None:
    await redis.hset(names.head(ALICE), mapping={"epoch": 1, "seq": number})
    await redis.hset(names.head(BOB), mapping={"epoch": number, "seq": 1})
    await redis.set(names.seen(ALICE), f"1.{number}")
    await redis.set(names.seen(BOB), f"{number}.1")
    await redis.hset(names.newest(), mapping={"epoch": 1, "position": number})
    assert await reader.heads([ALICE, BOB]) == [None, None]
    assert await reader.seen([ALICE, BOB]) == [None, None]
    assert await reader.newest() == NewestEvent(0, 0)


@pytest.mark.parametrize(
    ("id", "fields"),
    [("4-12", {"e": "{}"}), ("4-0", {"e": "{}", "f": "{}"}), (f"{2**64 - 1}-12", {"e": "{}"})],
)
async def test_log_with_an_entry_that_is_none_of_ours_says_nothing(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader, id: str, fields: dict[str, str]
) -> None:
    await publish(writer, entries(1, 3))
    await redis.xadd(names.log(ALICE), fields, id=id)  # type: ignore[arg-type] # dict is invariant
    assert await read(reader) == LogRead(None, ())


@pytest.mark.parametrize("number", ["x", "1" * 30, str(2**63 - 1), "inf", "nan", "-inf"])
@pytest.mark.parametrize("name", ["epoch", "position"])
async def test_generation_that_is_no_number_is_begun_anew(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader, name: str, number: str
) -> None:
    """The epoch after such a number would not fit into a database."""
    await redis.hset(names.newest(), mapping={"epoch": 1, "position": 5, "identity": "a", name: number})
    assert await writer.advance(NewestEvent(1, 7, "a")) == NewestEvent(0, 0)
    assert await reader.newest() == NewestEvent(1, 7)


async def test_identity_that_is_no_text_is_not_ours(redis: Redis, names: Names, writer: LogWriter) -> None:
    await redis.hset(names.newest(), mapping={"epoch": 1, "position": 5, "identity": b"\xff"})
    assert (await writer.advance(NewestEvent(1, 7, "a"))).identity != "a"


async def test_redis_that_refuses_reads_is_reported(
    redis_server: EmbeddedServer, names: Names, anyio_backend: object
) -> None:
    """Being refused is not the same as finding nothing."""
    async with connect_server(redis_server.url) as redis, Pipelines(redis) as pipelines:
        await redis.execute_command("ACL", "SETUSER", "default", "-hmget")  # type: ignore[no-untyped-call]
        reader = LogReader(pipelines, names)
        for reading in (reader.newest(), reader.heads([ALICE]), reader.known([ALICE])):
            with pytest.raises(CommandRefused, match="NOPERM"):
                await reading


async def test_generation_of_another_kind_is_begun_anew(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    await redis.set(names.newest(), "text")
    assert await reader.newest() == NewestEvent(0, 0)
    assert await writer.advance(NewestEvent(1, 7, "a")) == NewestEvent(0, 0)
    assert await reader.newest() == NewestEvent(1, 7)


@pytest.mark.parametrize("number", ["9007199254740992", str(2**63 - 1), "x", "inf", "nan"])
@pytest.mark.parametrize("name", ["epoch", "seq"])
async def test_head_that_no_event_had_is_refused_and_not_published_behind(
    redis: Redis, names: Names, writer: LogWriter, name: str, number: str
) -> None:
    """Otherwise it would look as if the database had gone back, and no later epoch would be possible."""
    await redis.hset(names.head(ALICE), mapping={"epoch": 1, "seq": 1, name: number})
    with pytest.raises(CommandRefused) as refused:
        await publish(writer, entries(2, 2))
    assert blames_what_was_sent(refused.value)
    await writer.forget(ALICE)
    assert await publish(writer, entries(2, 2), restart=True) == (PublishAnswer.OK, Place(1, 2))


async def test_nothing_asked_is_nothing_answered(writer: LogWriter, reader: LogReader) -> None:
    assert await reader.heads([]) == []
    assert await reader.seen([]) == []
    assert await reader.read([], limit=1) == []
    assert await writer.publish([]) == []
    await writer.see([])


# --- seen


async def test_seen_moves_forward_only(writer: LogWriter, reader: LogReader) -> None:
    for place in (Place(1, 5), Place(1, 3), Place(1, 5)):
        await writer.see([Seen(ALICE, Extent(place))])
    assert await reader.seen([ALICE, BOB]) == [Extent(Place(1, 5)), None]
    await writer.see([Seen(ALICE, Extent(Place(2, 0))), Seen(BOB, Extent(Place(1, 1)))])
    await writer.see([Seen(ALICE, Extent(Place(1, 9)))])
    assert await reader.seen([ALICE, BOB]) == [Extent(Place(2, 0)), Extent(Place(1, 1))]


@pytest.mark.parametrize("known", ["x", "1.x", "1", "", "1.9007199254740992", "9007199254740992.1"])
async def test_seen_place_that_is_none_is_replaced(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader, known: str
) -> None:
    await redis.set(names.seen(ALICE), known)
    await writer.see([Seen(ALICE, Extent(Place(1, 5)))])
    assert await reader.seen([ALICE]) == [Extent(Place(1, 5))]


async def test_other_devices_hear_of_seen_once_and_only_if_it_was_reported(
    writer: LogWriter, live: Live
) -> None:
    await writer.see([Seen(ALICE, Extent(Place(1, 2)))], notify=False)
    await writer.see([Seen(ALICE, Extent(Place(1, 5)))])
    await writer.see([Seen(ALICE, Extent(Place(1, 5)))])
    await writer.see([Seen(ALICE, Extent(Place(1, 4)))])
    assert [parse_live(message) for message in await live.wait_messages(1)] == [
        SeenNotice(Extent(Place(1, 5)))
    ]
    assert await live.nothing_more()


async def test_large_seen_places_are_exact(writer: LogWriter, reader: LogReader, live: Live) -> None:
    last = 2**53 - 1
    await writer.see([Seen(ALICE, Extent(Place(last, last)))])
    assert await reader.seen([ALICE]) == [Extent(Place(last, last))]
    assert parse_live((await live.wait_messages(1))[0]) == SeenNotice(Extent(Place(last, last)))


# --- live messages


async def test_channels_do_not_share_keys_and_keep_theirs_in_one_slot() -> None:
    names = Names("ob")
    assert names.log(ALICE) == "ob:log:{customer:alice}"
    assert names.head(ALICE) == "ob:head:{customer:alice}"
    assert names.live(ALICE) == "ob:live:{customer:alice}"
    assert names.seen(ALICE) == "ob:seen:{customer:alice}"


# --- the publish script beside a model of it


@dataclass
class Model:
    """The intended behaviour of the script, in Python."""

    epoch: int = 0
    last: int = 0
    log: list[Entry] = field(default_factory=list)
    told: list[Entry] = field(default_factory=list)

    def publish(self, batch: list[Entry], *, restart: bool) -> Published:
        epoch = batch[0].place.epoch
        if self.epoch > epoch:
            return Published(PublishAnswer.STALE, Place(self.epoch, self.last))
        if self.epoch < epoch:
            self.log = []
        log, last = self.log, self.last if self.epoch == epoch else 0
        answer = PublishAnswer.DUP
        for new in batch:
            if new.place.seq <= last:
                continue
            if new.place.seq != last + 1:
                if not restart:
                    answer = PublishAnswer.GAP
                    break
                log = []
            log = [*log, new]
            self.told.append(new)
            self.epoch, self.last, self.log = epoch, new.place.seq, log
            last = new.place.seq
            answer = PublishAnswer.OK
        return Published(answer, Place(epoch, last))

    def lose_the_log(self) -> None:
        self.log = []

    def lose_everything(self) -> None:
        self.epoch, self.last, self.log = 0, 0, []


@pytest.mark.parametrize("seed", range(40))
async def test_script_does_what_its_model_does(
    seed: int, redis: Redis, names: Names, writer: LogWriter, reader: LogReader, live: Live
) -> None:
    chance = random.Random(seed)
    model = Model()
    for _ in range(60):
        match chance.randrange(20):
            case 0:
                await redis.delete(names.log(ALICE))
                model.lose_the_log()
            case 1:
                await redis.delete(names.log(ALICE), names.head(ALICE))
                model.lose_everything()
            case _:
                epoch = max(1, model.epoch + chance.choice([-1, 0, 0, 0, 0, 0, 0, 0, 1]))
                first = max(1, model.last + chance.choice([-2, -1, 0, 1, 1, 1, 1, 2]))
                batch = entries(first, first + chance.randrange(4), epoch)
                if len(batch) > 2 and chance.random() < 0.2:
                    del batch[1]
                restart = chance.random() < 0.2
                assert await publish(writer, batch, restart=restart) == model.publish(batch, restart=restart)
        found = await read(reader)
        assert found.head == (Place(model.epoch, model.last) if model.epoch else None)
        assert found.entries == tuple(model.log)
    assert [parse_live(message) for message in await live.wait_messages(len(model.told))] == model.told
    assert await live.nothing_more()


# --- names that another installation has


async def test_writer_that_is_barred_writes_nothing(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader, live: Live
) -> None:
    """Another installation has the names, so nothing there may be changed."""
    await publish(writer, entries(1, 1))
    writer.barred = "they are another's"
    for writing in (
        publish(writer, entries(2, 2)),
        writer.see([Seen(ALICE, Extent(Place(1, 1)))]),
        writer.forget(ALICE),
        writer.erase(ALICE, end=True),
        writer.rehearse(),
    ):
        with pytest.raises(AnotherInstallation, match="another's"):
            await writing
    assert await read(reader) == LogRead(Place(1, 1), (entry(1),))
    assert await reader.seen([ALICE]) == [None]
    await live.wait_messages(1)
    assert await live.nothing_more()


async def test_names_are_claimed_by_one_installation_at_a_time(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader
) -> None:
    assert (await writer.claim("ours", 30, take=True)).owner == "ours"
    claim = await writer.claim("theirs", 30, take=True)
    assert (claim.owner, 28 < claim.left_seconds <= 30, claim.noted) == ("ours", True, "")
    await writer.claim("ours", 30, take=False, settle=True)
    assert (await writer.claim("theirs", 0, take=True)).owner == "ours"  # not theirs to release
    assert (await writer.claim("ours", 0, take=False)).owner == ""
    assert (await writer.claim("theirs", 30, take=False)).owner == ""
    assert await writer.claim("theirs", 30, take=True) == ("theirs", 30.0, "ours")
    assert await reader.owner() == ("ours", 0)  # until they have settled


async def test_owner_of_another_kind_is_begun_anew(redis: Redis, names: Names, writer: LogWriter) -> None:
    await redis.lpush(names.owner(), "text")
    assert (await writer.claim("ours", 30, take=True)).owner == "ours"
