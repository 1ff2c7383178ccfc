"""Catching up, against a world that loses, delays and forgets as a seed says."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import prometheus_client
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from receiver import catch_up, repair
from receiver.catch_up import CatchUp, Unavailable, follows
from receiver.history import Found, History, HistoryRefused, HistoryUnavailable
from receiver.hub import Hub, Repairing
from receiver.repair import Repair
from shared.channels import Channel, customer_channel
from shared.cursors import Cursor, Place
from shared.log import Entry, Generation, Known, LogRead, LogReader
from shared.wire import Refused
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from receiver.connection import Connection
    from receiver.hub import Feed

pytestmark = pytest.mark.anyio

ALICE, BOB = customer_channel("alice"), customer_channel("bob")


def entries(seqs: Iterable[int], epoch: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(Place(epoch, seq), b'{"seq":%d}' % seq) for seq in seqs)


@pytest.mark.parametrize(
    ("head", "seqs", "believed"),
    [
        (Place(1, 42), [], True),  # nothing newer
        (Place(1, 44), [43, 44], True),
        (Place(1, 99), [43, 44], True),  # a first part
        (None, [], False),  # emptied
        (Place(1, 44), [44], False),  # trimmed: 43 is missing
        (Place(1, 45), [43, 45], False),  # a hole
        (Place(1, 45), [], False),  # the log expired before its head
        (Place(1, 40), [], False),  # a replica that lacks the tail
        (Place(2, 44), [43, 44], False),  # another life of the database
    ],
)
def test_log_is_believed_only_where_it_can_tell(head: Place | None, seqs: list[int], believed: bool) -> None:
    found = follows(Place(1, 42), LogRead(head, entries(seqs)))
    assert (found is not None) is believed
    if found:
        assert [entry.place.seq for entry in found.entries] == seqs


class World:
    """A database that is right, a log that may not be, and live messages that may not come."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.epoch = 1
        self.database = 0  # the newest seq that is committed
        self.pruned = 0
        self.log: list[int] = []
        self.head = 0  # 0: Redis knows none
        self.seen: Place | None = None  # by Redis; by the database, nothing is
        self.log_epoch: int | None = None  # where it is not the database's
        self.published = self.noted = 0  # what the sender says of its Redis, and what ours does
        self.looks = 0
        self._redis_up = True
        self.sender_up = True
        self.hub = Hub(lambda channel: None, lambda channels: None)
        log = WorldLog(self)
        self.catch_up = CatchUp(log, WorldHistory(self), lambda: self.redis_up)
        self.repair = Repair(self.hub, self.catch_up, log, lambda: self.redis_up)
        self._in_flight: list[Entry] = []

    @property
    def redis_up(self) -> bool:
        return self._redis_up

    @redis_up.setter
    def redis_up(self, up: bool) -> None:
        self._redis_up = up
        self.repair.wake()

    async def pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    def complete_an_order(self) -> None:
        """Commit, then publish as the relay does: in order, and refilled where the log has lost something."""
        self.database += 1
        if self.redis_up:
            self.log += range((self.head or self.database - 1) + 1, self.database + 1)
            self.head = self.database
            if self.random.random() < 0.8:  # else the live message is lost
                self._in_flight += entries([self.database], self.epoch)

    def deliver_live(self) -> None:
        messages, self._in_flight = self._in_flight, []
        for feed in self.hub.feeds:
            for message in messages:
                if not feed.hear(message):
                    self.repair.request(feed, "gap")

    def misbehave(self) -> None:
        fault = self.random.randrange(12)
        if fault == 0:
            self.log, self.head = [], 0  # FLUSHALL
        elif fault == 1:
            self.log = self.log[-2:]  # trimmed
        elif fault == 2 and self.head > 3:
            self.head -= 2  # a fail-over that lost the tail
            self.log = [seq for seq in self.log if seq <= self.head]
        elif fault == 3:
            self.redis_up = not self.redis_up
        elif fault == 4:
            self.sender_up = not self.sender_up


class WorldLog(LogReader):
    def __init__(self, world: World) -> None:
        self._world = world

    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        return [read.head for read in await self.read([(channel, 0) for channel in channels], limit=0)]

    async def known(self, channels: Sequence[Channel]) -> list[Known]:
        return [Known(head, self._world.seen) for head in await self.heads(channels)]

    async def seen(self, channels: Sequence[Channel]) -> list[Place | None]:
        return [self._world.seen for _ in channels]

    async def newest(self) -> Generation:
        self._world.looks += 1
        return Generation(self._world.epoch, self._world.noted)

    async def read(self, channels: Sequence[tuple[Channel, int]], *, limit: int) -> list[LogRead]:
        world = self._world
        await world.pause()
        if not world.redis_up:
            raise RedisConnectionError("away")
        epoch = world.log_epoch or world.epoch
        head = Place(epoch, world.head) if world.head else None
        reads = [
            LogRead(head, entries([s for s in world.log if s > after][:limit], epoch) if head else ())
            for _, after in channels
        ]
        await world.pause()
        return reads


class WorldHistory(History):
    def __init__(self, world: World) -> None:
        self._world = world

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Found]:
        world = self._world
        await world.pause()
        if not world.sender_up:
            raise HistoryUnavailable("away")
        found = [self._find(one.place if isinstance(one, Cursor) else Place(world.epoch, 0)) for one in asked]
        await world.pause()
        return found

    async def newest(self) -> Generation:
        if not self._world.sender_up:
            raise HistoryUnavailable("away")
        return Generation(self._world.epoch, self._world.published)

    def _find(self, after: Place) -> Found:
        world = self._world
        head = Place(world.epoch, world.database)
        if after.epoch != world.epoch:
            return Found(after, (), head, "epoch")
        if after.seq > world.database:
            return Found(after, (), head, "future")
        if after.seq < world.pruned:
            return Found(after, (), head, "pruned")
        last = min(world.database, after.seq + 3)
        return Found(after, entries(range(after.seq + 1, last + 1), world.epoch), head)


class Browser:
    """A connection, as catching up sees it."""

    def __init__(self, place: Place) -> None:
        self.start = place
        self.seqs: list[int] = []
        self.told: list[bytes] = []
        self.writes: list[int] = []  # how many texts each had
        self.closed = False
        self.paused = False

    @property
    def socket(self) -> Browser:
        return self

    def send(self, frame: bytes) -> int:
        self.tell(frame[2:])
        return len(frame)

    def tell(self, *texts: bytes) -> None:
        self.writes.append(len(texts))
        for text in texts:
            if text.startswith(b'{"seq":'):
                self.seqs.append(msgspec.json.decode(text)["seq"])
            else:
                self.told.append(text)

    async def wait_writable(self) -> None:
        await asyncio.sleep(0)

    async def connect(self, world: World, feed: Feed) -> None:
        """Join, as often as it takes; a real browser comes back with its cursor."""
        while True:
            place = Place(world.epoch, self.seqs[-1]) if self.seqs else self.start
            try:
                await world.catch_up.join(self.as_connection(), feed, place)
                return
            except Unavailable:
                await asyncio.sleep(0)

    def as_connection(self) -> Connection:
        return self  # type: ignore[return-value] # it has what is used of one


@pytest.fixture(autouse=True)
def time_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a clock, so that a seed is the same run each time."""
    monkeypatch.setattr(catch_up, "_GATHER_SECONDS", 0)
    monkeypatch.setattr(catch_up, "_GATHER_HISTORY_SECONDS", 0)


@pytest.fixture
async def running() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def start(world: World, running: list[asyncio.Task[None]]) -> Feed:
    running += [asyncio.create_task(world.catch_up.run()), asyncio.create_task(world.repair.run())]
    await asyncio.sleep(0)
    feed = world.hub.enter(ALICE)
    feed.establish(Place(world.epoch, world.database))
    return feed


@pytest.mark.parametrize("seed", range(200))
async def test_40_catch_up_has_no_gap_and_no_repeat(seed: int, running: list[asyncio.Task[None]]) -> None:
    world = World(seed)
    for _ in range(world.random.randrange(8)):
        world.complete_an_order()
    feed = await start(world, running)
    browsers: list[Browser] = []
    joins: list[asyncio.Task[None]] = []
    for _ in range(60):
        act = world.random.random()
        if act < 0.5:
            world.complete_an_order()
        elif act < 0.6:
            browser = Browser(Place(world.epoch, world.random.randint(0, world.database)))
            browsers.append(browser)
            joins.append(asyncio.create_task(browser.connect(world, feed)))
        elif act < 0.7:
            world.misbehave()
        else:
            world.deliver_live()
        await world.pause()

    world.redis_up = world.sender_up = True
    world.complete_an_order()  # the relay refills what Redis has lost
    async with asyncio.timeout(5):
        await asyncio.gather(*joins)
        while feed.place != Place(world.epoch, world.database):
            world.repair.request(feed, "check")
            await asyncio.sleep(0)
    assert browsers
    for browser in browsers:
        assert browser.seqs == list(range(browser.start.seq + 1, world.database + 1))
        assert browser.told == []


async def test_what_a_connection_missed_leaves_in_as_few_writes_as_its_size_allows(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "_PIECE_BYTES", 4 * len(entries([1])[0].text))  # four events are enough
    world = World(0)
    world.database = world.head = 9
    world.log = list(range(1, 10))
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert (browser.seqs, browser.writes) == (list(range(1, 10)), [4, 4, 1])


async def test_cursor_of_another_epoch_gets_a_reset_and_goes_on(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.epoch, world.database = 2, 5
    feed = await start(world, running)
    browser = Browser(Place(1, 9))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert b'"reason":"epoch"' in browser.told[0]
    assert b'"cursor":"customer:alice=2.5"' in browser.told[0]
    feed.hear(*entries([6], 2))
    assert browser.seqs == [6]


async def test_what_is_heard_after_the_end_starts_nothing(running: list[asyncio.Task[None]]) -> None:
    """A confirmation may come while the gateway ends: its connection is closed a moment later."""
    world = World(0)
    feed = await start(world, running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    world.repair.request(feed, "subscribed")
    assert feed.repair is Repairing.NO


async def test_cursor_from_the_future_gets_a_reset(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    browser = Browser(Place(1, 900))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert b'"reason":"future"' in browser.told[0]
    assert browser.as_connection() in feed.live


async def test_cursor_before_what_is_kept_gets_a_reset(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database, world.pruned = 50, 40
    feed = await start(world, running)
    browser = Browser(Place(1, 3))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert b'"reason":"pruned"' in browser.told[0]
    assert browser.seqs == []


async def test_restored_database_resets_everyone_live(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database = 20
    feed = await start(world, running)
    browser = Browser(Place(1, 20))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    world.epoch, world.database, world.log, world.head = 2, 11, [11], 11
    assert not feed.hear(*entries([11], 2))
    await world.catch_up.repair(feed)
    assert b'"reason":"epoch"' in browser.told[0]
    assert feed.place == Place(2, 11)


async def test_epoch_that_is_learnt_of_resets_quiet_channels_too(running: list[asyncio.Task[None]]) -> None:
    """Redis still holds the quiet channel's log and head of the epoch before."""
    world = World(0)
    world.database = 20
    world.log, world.head = [19, 20], 20
    feed = await start(world, running)
    browser = Browser(Place(1, 20))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    log_epoch, world.epoch, world.database = world.epoch, 2, 12
    world.log_epoch = log_epoch
    world.repair.learn_epoch(2)
    await await_until(lambda: feed.place == Place(2, 12))
    assert b'"reason":"epoch"' in browser.told[0]


async def test_epoch_that_is_learnt_of_while_the_history_is_away_resets_once_it_is_back(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender restarts after the restore; by Redis' head of before, the feed would be in place."""
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    world = World(0)
    world.database = 20
    world.log, world.head = [19, 20], 20
    feed = await start(world, running)
    browser = Browser(Place(1, 20))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    world.log_epoch, world.epoch, world.database = 1, 2, 12
    world.sender_up = False
    await await_until(lambda: world.catch_up.epoch == 2)
    await await_until(lambda: feed.repair is Repairing.NO)
    world.sender_up = True
    await await_until(lambda: feed.place == Place(2, 12))
    assert b'"reason":"epoch"' in browser.told[0]


async def test_connection_that_knows_more_than_its_feed_brings_the_feed_along(
    running: list[asyncio.Task[None]],
) -> None:
    """A fail-over lost the tail of a quiet channel: log and feed agree, and both are wrong."""
    world = World(0)
    world.database, world.log, world.head = 20, list(range(1, 11)), 10
    feed = world.hub.enter(ALICE)
    running += [asyncio.create_task(world.catch_up.run()), asyncio.create_task(world.repair.run())]
    feed.establish(Place(1, 10))
    browser = Browser(Place(1, 15))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert browser.seqs == list(range(16, 21))
    assert feed.place == Place(1, 20)


async def test_connection_that_redis_believes_to_be_at_the_end_gets_what_its_feed_has_beyond(
    running: list[asyncio.Task[None]],
) -> None:
    """A fail-over lost the tail when the feed had it already."""
    world = World(0)
    world.database, world.log, world.head = 20, list(range(1, 11)), 10
    feed = world.hub.enter(ALICE)
    running += [asyncio.create_task(world.catch_up.run())]
    feed.establish(Place(1, 20))
    browser = Browser(Place(1, 10))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert browser.seqs == list(range(11, 21))


async def test_redis_that_lacks_what_was_published_is_asked_no_more_until_it_has_it(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and says that there is nothing new: the sender's Redis is another."""
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(repair, "PULL_SECONDS", 0.01)
    world = World(0)
    world.database, world.log, world.head = 3, [1, 2, 3], 3
    world.published = world.noted = 3
    feed = await start(world, running)
    browser = Browser(Place(1, 3))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    world.database = world.published = 5
    await await_until(lambda: browser.seqs == [4, 5])
    assert world.catch_up.behind
    world.log, world.head, world.noted = [1, 2, 3, 4, 5], 5, 5
    await await_until(lambda: not world.catch_up.behind)
    assert browser.seqs == [4, 5]


async def test_redis_that_has_what_was_published_at_the_last_look_is_not_behind(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load the sender has always published more since Redis was asked."""
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.001)
    world = World(0)

    class Busy(WorldLog):
        async def newest(self) -> Generation:
            assert not world.catch_up.behind
            world.noted, world.published = world.published, world.published + 100
            return await super().newest()

    world.repair._log = Busy(world)
    await start(world, running)
    await await_until(lambda: world.looks > 20)


async def test_sender_that_is_away_leaves_nobody_behind(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    world = World(0)
    world.published = world.noted = 3
    await start(world, running)
    await await_until(lambda: world.repair._due.position == 3)
    world.sender_up = False
    await await_until(lambda: world.repair._due.position == 0)
    world.noted, looks = 0, world.looks
    await await_until(lambda: world.looks > looks + 3)
    assert not world.catch_up.behind


async def test_redis_that_comes_back_empty_is_asked_no_more_until_the_sender_has_noted_its_newest(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway may be back before the relay, and the relay has much to publish then."""
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(repair, "PULL_SECONDS", 0.01)
    world = World(0)
    world.published = world.noted = 3
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    world.redis_up = False
    await await_until(lambda: world.catch_up.behind)
    world.noted, world.redis_up, looks = 0, True, world.looks
    await await_until(lambda: world.looks > looks + 3)
    world.database = 1
    await await_until(lambda: browser.seqs == [1])
    assert world.catch_up.behind
    world.noted = 3
    await await_until(lambda: not world.catch_up.behind)


async def test_pulling_begins_as_soon_as_redis_is_lost_and_not_with_the_next_check(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "CHECK_SECONDS", 3600)
    monkeypatch.setattr(repair, "PULL_SECONDS", 3600)
    world = World(0)
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    await await_until(lambda: world.looks == 1)
    world.database, world.redis_up = 1, False
    await await_until(lambda: browser.seqs == [1])
    world.redis_up = True
    await await_until(lambda: world.looks == 2)


class LostMeanwhile(WorldHistory):
    """Of a sender during whose answer Redis goes away, and an order is completed."""

    armed = False

    async def newest(self) -> Generation:
        if self.armed:
            self._world.database, self._world.redis_up = 1, False
        return await super().newest()


async def test_redis_that_is_lost_in_the_midst_of_a_round_is_pulled_for_at_once(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(repair, "PULL_SECONDS", 3600)  # only a loss that was seen makes it pull in time
    world = World(0)
    history = LostMeanwhile(world)
    world.catch_up = CatchUp(WorldLog(world), history, lambda: world.redis_up)
    world.repair = Repair(world.hub, world.catch_up, WorldLog(world), lambda: world.redis_up)
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    history.armed = True
    await await_until(lambda: browser.seqs == [1])


class Refusing(WorldLog):
    """Of a Redis that passes messages on and refuses to be read."""

    newest_too = False

    async def newest(self) -> Generation:
        if self.newest_too:
            self._world.looks += 1
            raise Refused("NOPERM this user has no permissions to run the 'hmget' command")
        return await super().newest()

    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        raise Refused("NOPERM this user has no permissions to run the 'hmget' command")


@pytest.mark.parametrize("newest_too", [True, False])
async def test_redis_that_is_heard_and_refuses_to_be_read_is_pulled_for_until_it_does_not(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch, *, newest_too: bool
) -> None:
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(repair, "PULL_SECONDS", 0.01)
    world = World(0)
    world.database, world.log, world.head = 3, [1, 2, 3], 3
    reading = world.repair._log
    world.repair._log = refusing = Refusing(world)
    refusing.newest_too = newest_too
    feed = await start(world, running)
    browser = Browser(Place(1, 3))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    world.database = 5
    await await_until(lambda: browser.seqs == [4, 5])
    world.repair._log = reading
    await await_until(lambda: not world.catch_up.behind)


async def test_defect_in_the_repair_of_one_feed_ends_nobody_elses(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    world = World(0)
    world.database = 3
    read = world.catch_up.read

    async def read_but_bobs(channel: Channel, place: Place) -> Found:
        if channel == BOB:
            raise ZeroDivisionError
        return await read(channel, place)

    monkeypatch.setattr(world.catch_up, "read", read_but_bobs)
    alice = await start(world, running)
    bob = world.hub.enter(BOB)
    bob.establish(Place(1, 3))
    world.repair.request(bob, "check")
    await await_until(lambda: bob.repair is Repairing.NO)
    world.database, world.log, world.head = 4, [1, 2, 3, 4], 4
    await await_until(lambda: alice.place == Place(1, 4))


async def test_message_of_an_event_that_never_was_does_not_hold_a_feed_up(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    assert not feed.hear(*entries([999_999]))
    await world.catch_up.repair(feed)
    assert feed.heard == feed.place == Place(1, 5)
    assert feed.hear(*entries([6]))


class RefusingBobs(WorldHistory):
    """Of a sender to which one of the questions makes all of them a bad request."""

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Found]:
        if any(isinstance(one, Cursor) and one.channel == BOB for one in asked):
            raise HistoryRefused("400")
        return await super().read(asked, limit=limit)


async def test_question_that_the_sender_refuses_spoils_no_others_answer(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database, world.redis_up = 5, False
    world.catch_up._history = RefusingBobs(world)
    await start(world, running)
    names = [customer_channel(str(n)) for n in range(20)]
    reading = [world.catch_up.read(name, Place(1, 3)) for name in (*names[:10], BOB, *names[10:])]
    found = await asyncio.gather(*reading, return_exceptions=True)
    assert isinstance(found.pop(10), Unavailable)
    assert [one.entries for one in found if isinstance(one, Found)] == [entries([4, 5])] * 20


async def test_seen_of_an_event_that_was_missed_is_told_once_that_is_handed_over(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    browser = Browser(Place(1, 5))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    world.database, world.log, world.head = 7, [1, 2, 3, 4, 5, 6, 7], 7
    assert not feed.see(Place(1, 7), b"seen")
    world.repair.request(feed, "seen")
    await await_until(lambda: feed.repair is Repairing.NO)
    assert (browser.seqs, feed.seen, feed.claimed) == ([6, 7], Place(1, 7), None)
    assert b'"cursor":"customer:alice=1.7"' in browser.told[0]


async def test_seen_of_an_event_that_never_was_is_told_to_nobody_and_counted(
    running: list[asyncio.Task[None]],
) -> None:
    """Browsers would take all that is to come for shown."""
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    browser = Browser(Place(1, 5))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    foreign = count("orderbell_messages_foreign_total")
    assert not feed.see(Place(1, 900), b"seen")
    world.repair.request(feed, "seen")
    await await_until(lambda: feed.repair is Repairing.NO)
    assert (browser.told, feed.seen, feed.claimed) == ([], None, None)
    assert count("orderbell_messages_foreign_total") == foreign + 1


def count(name: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name) or 0.0


async def test_crowds_first_places_are_asked_for_together(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database, world.log, world.head = 5, [1, 2, 3, 4, 5], 5
    asked: list[int] = []

    class Counting(WorldLog):
        async def known(self, channels: Sequence[Channel]) -> list[Known]:
            asked.append(len(channels))
            return await super().known(channels)

    world.catch_up = CatchUp(Counting(world), WorldHistory(world), lambda: True)
    world.repair = Repair(world.hub, world.catch_up, WorldLog(world), lambda: True)
    running += [asyncio.create_task(world.catch_up.run()), asyncio.create_task(world.repair.run())]
    await asyncio.sleep(0)
    feeds = [world.hub.enter(Channel(f"customer:{number}")) for number in range(450)]
    for feed in feeds:
        world.repair.request(feed, "subscribed")
    await await_until(lambda: all(feed.place == Place(1, 5) for feed in feeds))
    assert asked == [200, 200, 50]


async def test_history_is_asked_once_for_a_channel_that_redis_knows_nothing_of(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all of a crowd's are such: what was published to them has long gone from Redis."""
    monkeypatch.setattr(repair, "CHECK_SECONDS", 0.01)
    world = World(0)
    world.database = 5
    asked: list[object] = []

    class Counting(WorldHistory):
        async def read(self, of: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Found]:
            asked.extend(of)
            return await super().read(of, limit=limit)

    world.catch_up = CatchUp(WorldLog(world), Counting(world), lambda: True)
    world.repair = Repair(world.hub, world.catch_up, WorldLog(world), lambda: True)
    running += [asyncio.create_task(world.catch_up.run()), asyncio.create_task(world.repair.run())]
    await asyncio.sleep(0)
    feed = world.hub.enter(ALICE)
    world.repair.request(feed, "subscribed")
    await await_until(lambda: feed.place == Place(1, 5))
    looks = world.looks
    await await_until(lambda: world.looks > looks + 3)
    assert asked == [ALICE]
    world.database, world.log, world.head = 6, [6], 6  # what was heard of it was lost
    await await_until(lambda: feed.place == Place(1, 6))


@pytest.mark.parametrize("established", [True, False])
async def test_seen_place_beyond_the_head_is_left_to_the_history_to_judge(
    running: list[asyncio.Task[None]], *, established: bool
) -> None:
    """A new device would start there, and show nothing of what is unseen."""
    world = World(0)
    world.database, world.log, world.head, world.seen = 5, [1, 2, 3, 4, 5], 5, Place(1, 900)
    running += [asyncio.create_task(world.catch_up.run())]
    feed = world.hub.enter(ALICE)
    if established:
        feed.establish(Place(1, 5))
    else:
        await world.catch_up.establish([feed])
    assert await world.catch_up.start(feed, None) == Place(1, 0)


async def test_seen_that_is_heard_while_redis_is_asked_counts(running: list[asyncio.Task[None]]) -> None:
    """Else a new device would show again what another has just shown."""
    world = World(0)
    world.database, world.log, world.head = 5, [1, 2, 3, 4, 5], 5

    class SeenMeanwhile(WorldLog):
        async def seen(self, channels: Sequence[Channel]) -> list[Place | None]:
            feed.see(Place(1, 5), b"seen")
            return [Place(1, 3)]

    world.catch_up = CatchUp(SeenMeanwhile(world), WorldHistory(world), lambda: True)
    feed = await start(world, running)
    assert await world.catch_up.start(feed, None) == Place(1, 5)


class Short(WorldHistory):
    """Of a sender whose answers have no room; only each of a number has events."""

    asked, of = 0, 3

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Found]:
        found = await super().read(asked, limit=limit)
        self.asked += 1
        return [replace(one, entries=()) for one in found] if self.asked % self.of else found


async def test_answer_without_room_is_asked_for_again(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender's answer ends at so many bytes; the last of 500 channels may get nothing of theirs."""
    monkeypatch.setattr(catch_up, "_AGAIN_SECONDS", 0)
    world = World(0)
    world.database, world.redis_up = 9, False
    world.catch_up._history = Short(world)
    feed = await start(world, running)
    browser = Browser(Place(1, 2))
    await world.catch_up.join(browser.as_connection(), feed, browser.start)
    assert browser.seqs == list(range(3, 10))
    world.database = 11
    await world.catch_up.repair(feed)
    assert browser.seqs == list(range(3, 12))


async def test_answer_that_never_has_room_is_not_asked_for_without_end(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "_AGAIN_SECONDS", 0)
    world = World(0)
    world.database, world.redis_up = 9, False
    world.catch_up._history = history = Short(world)
    feed = await start(world, running)
    history.of = 1_000_000
    with pytest.raises(Unavailable):
        await world.catch_up.read(feed.channel, Place(1, 2))


class Sizes(WorldLog):
    """Remembers the largest answer that it could have been asked for."""

    largest = 0

    async def read(self, channels: Sequence[tuple[Channel, int]], *, limit: int) -> list[LogRead]:
        self.largest = max(self.largest, len(channels) * limit)
        return await super().read(channels, limit=limit)


async def test_crowd_that_reads_logs_gets_a_few_events_each_at_a_time(
    running: list[asyncio.Task[None]],
) -> None:
    """Of 64 KiB each, two hundred events of two hundred channels would be 2.5 GB in one answer."""
    world = World(0)
    world.database = world.head = 300
    world.log = list(range(1, 301))
    world.catch_up._log = log = Sizes(world)
    running += [asyncio.create_task(world.catch_up.run())]
    feeds = [world.hub.enter(customer_channel(str(n))) for n in range(300)]
    browsers = [Browser(Place(1, 270)) for _ in feeds]
    for feed in feeds:
        feed.establish(Place(1, 300))
    joins = zip(feeds, browsers, strict=True)
    await asyncio.gather(*(world.catch_up.join(b.as_connection(), f, b.start) for f, b in joins))
    assert all(browser.seqs == list(range(271, 301)) for browser in browsers)
    assert log.largest <= 1_000


async def test_nothing_is_guessed_while_neither_source_answers(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database = 5
    world.redis_up = world.sender_up = False
    feed = await start(world, running)
    with pytest.raises(Unavailable):
        await world.catch_up.join(Browser(Place(1, 3)).as_connection(), feed, Place(1, 3))
    assert not feed.live
