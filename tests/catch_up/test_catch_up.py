"""Catching up, against a world that loses, delays and forgets as a seed says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from receiver.connections.notices import Reset
from receiver.feeds.catch_up import CatchUp
from receiver.feeds.history import Continuation, HistoryRefused
from receiver.feeds.sources import Unavailable
from shared.channels import Channel, customer_channel
from shared.cursors import Cursor, Place
from shared.extents import Extent
from tests.catch_up.world import ALICE, BOB, Browser, World, WorldHistory, WorldLog, entries, start
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.redis.channel_log import Known, LogRead


pytestmark = pytest.mark.anyio


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
    async with asyncio.timeout(20):
        await asyncio.gather(*joins)
        while feed.place != Place(world.epoch, world.database):
            world.catch_up.request(feed, "check")
            await asyncio.sleep(0)
    assert browsers
    for browser in browsers:
        assert browser.seqs == list(range(browser.start.seq + 1, world.database + 1))
        assert browser.notices == []


async def test_what_a_connection_missed_leaves_in_as_few_writes_as_its_size_allows(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    four_events = 4 * len(entries([1])[0].text)
    world.catch_up = CatchUp(world.sources, piece_bytes=four_events)
    world.database = world.head = 9
    world.log = list(range(1, 10))
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser, feed, browser.start)
    assert (browser.seqs, browser.writes) == (list(range(1, 10)), [4, 4, 1])


async def test_cursor_of_another_epoch_gets_a_reset_and_goes_on(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.epoch, world.database = 2, 5
    feed = await start(world, running)
    browser = Browser(Place(1, 9))
    await world.catch_up.join(browser, feed, browser.start)
    assert only_reset(browser).reason == "epoch"
    assert only_reset(browser).cursor == "customer:alice=2.5"
    feed.hear(*entries([6], 2))
    assert browser.seqs == [6]


async def test_cursor_from_the_future_gets_a_reset(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    browser = Browser(Place(1, 900))
    await world.catch_up.join(browser, feed, browser.start)
    assert only_reset(browser).reason == "future"
    assert browser in feed.live


async def test_cursor_before_what_is_kept_gets_a_reset(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database, world.pruned = 50, 40
    feed = await start(world, running)
    browser = Browser(Place(1, 3))
    await world.catch_up.join(browser, feed, browser.start)
    assert only_reset(browser).reason == "pruned"
    assert browser.seqs == []


async def test_connection_that_knows_more_than_its_feed_brings_the_feed_along(
    running: list[asyncio.Task[None]],
) -> None:
    """A fail-over lost the tail of a quiet channel: log and feed agree, and both are wrong."""
    world = World(0)
    world.database, world.log, world.head = 20, list(range(1, 11)), 10
    feed = world.hub.enter(ALICE)
    world.run(running)
    feed.establish(Place(1, 10))
    browser = Browser(Place(1, 15))
    await world.catch_up.join(browser, feed, browser.start)
    assert browser.seqs == list(range(16, 21))
    assert feed.place == Place(1, 20)


async def test_connection_that_redis_believes_to_be_at_the_end_gets_what_its_feed_has_beyond(
    running: list[asyncio.Task[None]],
) -> None:
    """A fail-over lost the tail when the feed had it already."""
    world = World(0)
    world.database, world.log, world.head = 20, list(range(1, 11)), 10
    feed = world.hub.enter(ALICE)
    world.run(running)
    feed.establish(Place(1, 20))
    browser = Browser(Place(1, 10))
    await world.catch_up.join(browser, feed, browser.start)
    assert browser.seqs == list(range(11, 21))


def only_reset(browser: Browser) -> Reset:
    [notice] = browser.notices
    assert isinstance(notice, Reset)
    return notice


class RefusingBobs(WorldHistory):
    """The history of a sender that refuses a whole request because of one of its questions."""

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Continuation]:
        if any(isinstance(one, Cursor) and one.channel == BOB for one in asked):
            raise HistoryRefused("400")
        return await super().read(asked, limit=limit)


async def test_question_that_the_sender_refuses_costs_no_other_its_answer(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database, world.redis_up = 5, False
    world.build(WorldLog(world), RefusingBobs(world))
    await start(world, running)
    names = [customer_channel(str(n)) for n in range(20)]
    reading = [world.sources.read(name, Place(1, 3)) for name in (*names[:10], BOB, *names[10:])]
    found = await asyncio.gather(*reading, return_exceptions=True)
    assert isinstance(found.pop(10), Unavailable)
    assert [one.entries for one in found if isinstance(one, Continuation)] == [entries([4, 5])] * 20


async def test_crowds_first_places_are_asked_for_together(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database, world.log, world.head = 5, [1, 2, 3, 4, 5], 5
    asked: list[int] = []

    class Counting(WorldLog):
        async def known(self, channels: Sequence[Channel]) -> list[Known]:
            asked.append(len(channels))
            return await super().known(channels)

    world.build(Counting(world), WorldHistory(world))
    world.run(running)
    await asyncio.sleep(0)
    feeds = [world.hub.enter(Channel(f"customer:{number}")) for number in range(450)]
    for feed in feeds:
        world.catch_up.request(feed, "subscribed")
    await await_until(lambda: all(feed.place == Place(1, 5) for feed in feeds))
    assert asked == [200, 200, 50]


@pytest.mark.parametrize("established", [True, False])
async def test_seen_place_beyond_the_head_is_left_to_the_history_to_judge(
    running: list[asyncio.Task[None]], *, established: bool
) -> None:
    """A new device would start there, and show nothing of what is unseen."""
    world = World(0)
    world.database, world.log, world.head, world.seen = 5, [1, 2, 3, 4, 5], 5, Extent(Place(1, 900))
    world.run(running)
    feed = world.hub.enter(ALICE)
    if established:
        feed.establish(Place(1, 5))
    else:
        await world.catch_up.establish([feed])
    start_of_new_device = world.catch_up.start_now(feed, None) or await world.catch_up.start(feed)
    assert start_of_new_device == Place(1, 0)


async def test_seen_that_is_heard_while_redis_is_asked_counts(running: list[asyncio.Task[None]]) -> None:
    """Otherwise a new device would show again what another has just shown."""
    world = World(0)
    world.database, world.log, world.head = 5, [1, 2, 3, 4, 5], 5

    class SeenMeanwhile(WorldLog):
        async def seen(self, channels: Sequence[Channel]) -> list[Extent | None]:
            feed.see(Extent(Place(1, 5)))
            return [Extent(Place(1, 3))]

    world.build(SeenMeanwhile(world), WorldHistory(world))
    feed = await start(world, running)
    assert await world.catch_up.start(feed) == Place(1, 5)


class Short(WorldHistory):
    """The history of a sender whose answers have no room: only every few answers have events."""

    asked, of = 0, 3

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Continuation]:
        found = await super().read(asked, limit=limit)
        self.asked += 1
        return [replace(one, entries=()) for one in found] if self.asked % self.of else found


async def test_answer_without_room_is_asked_for_again(running: list[asyncio.Task[None]]) -> None:
    """A sender's answer has a limit in bytes; the last of 500 channels may get no events in it."""
    world = World(0)
    world.database, world.redis_up = 9, False
    world.build(WorldLog(world), Short(world))
    feed = await start(world, running)
    browser = Browser(Place(1, 2))
    await world.catch_up.join(browser, feed, browser.start)
    assert browser.seqs == list(range(3, 10))
    world.database = 11
    await world.catch_up.repair(feed)
    assert browser.seqs == list(range(3, 12))


async def test_answer_that_never_has_room_is_not_asked_for_without_end(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database, world.redis_up = 9, False
    history = Short(world)
    world.build(WorldLog(world), history)
    feed = await start(world, running)
    history.of = 1_000_000
    with pytest.raises(Unavailable):
        await world.sources.read(feed.channel, Place(1, 2))


class Sizes(WorldLog):
    """Remembers the largest answer that was asked for."""

    largest = 0

    async def read(self, channels: Sequence[tuple[Channel, int]], *, limit: int) -> list[LogRead]:
        self.largest = max(self.largest, len(channels) * limit)
        return await super().read(channels, limit=limit)


async def test_crowd_that_reads_logs_gets_a_few_events_each_at_a_time(
    running: list[asyncio.Task[None]],
) -> None:
    """Two hundred events of 64 KiB for each of two hundred channels would be 2.5 GB in one answer."""
    world = World(0)
    world.database = world.head = 300
    world.log = list(range(1, 301))
    log = Sizes(world)
    world.build(log, WorldHistory(world))
    world.run(running)
    feeds = [world.hub.enter(customer_channel(str(n))) for n in range(300)]
    browsers = [Browser(Place(1, 270)) for _ in feeds]
    for feed in feeds:
        feed.establish(Place(1, 300))
    joins = zip(feeds, browsers, strict=True)
    await asyncio.gather(*(world.catch_up.join(b, f, b.start) for f, b in joins))
    assert all(browser.seqs == list(range(271, 301)) for browser in browsers)
    assert log.largest <= 1_000


async def test_nothing_is_guessed_while_neither_source_answers(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database = 5
    world.redis_up = world.sender_up = False
    feed = await start(world, running)
    with pytest.raises(Unavailable):
        await world.catch_up.join(Browser(Place(1, 3)), feed, Place(1, 3))
    assert not feed.live
