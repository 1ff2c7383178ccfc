"""Feeds that missed something, or may have: checked, pulled for, reset, and never held up by each other.

These tests are about what a check or a pull does, not about when it comes: the seconds between them are so
few that no test waits for them, or so many that only what is tested can cause one.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import prometheus_client
import pytest

from receiver.connections.notices import Reset, SeenElsewhere
from shared.cursors import Cursor, Place
from shared.extents import Extent
from shared.redis.wire import CommandRefused
from tests.catch_up.world import ALICE, BOB, STILL, Browser, World, WorldHistory, WorldLog, entries, start
from tests.claims import claim
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.feeds.history import Continuation
    from shared.channels import Channel
    from shared.redis.channel_log import NewestEvent


pytestmark = pytest.mark.anyio


async def test_what_is_heard_after_the_end_starts_nothing(running: list[asyncio.Task[None]]) -> None:
    """A confirmation may come while the gateway ends: its connection is closed a moment later."""
    world = World(0)
    feed = await start(world, running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    world.catch_up.request(feed, "subscribed")
    assert not world.catch_up.is_repairing(feed)


async def test_restored_database_resets_everyone_live(running: list[asyncio.Task[None]]) -> None:
    world = World(0)
    world.database = 20
    feed = await start(world, running)
    browser = Browser(Place(1, 20))
    await world.catch_up.join(browser, feed, browser.start)
    world.epoch, world.database, world.log, world.head = 2, 11, [11], 11
    assert not feed.hear(*entries([11], 2))
    await world.catch_up.repair(feed)
    assert [notice.reason for notice in browser.notices if isinstance(notice, Reset)] == ["epoch"]
    assert feed.place == Place(2, 11)


async def test_epoch_that_is_learnt_of_resets_quiet_channels_too(running: list[asyncio.Task[None]]) -> None:
    """Redis still holds the quiet channel's log and head of the epoch before."""
    world = World(0)
    world.database = 20
    world.log, world.head = [19, 20], 20
    feed = await start(world, running)
    browser = Browser(Place(1, 20))
    await world.catch_up.join(browser, feed, browser.start)
    log_epoch, world.epoch, world.database = world.epoch, 2, 12
    world.log_epoch = log_epoch
    world.rounds.learn_epoch(2)
    with claim("a new epoch moves quiet channels too"):
        await await_until(lambda: feed.place == Place(2, 12))
    assert [notice.reason for notice in browser.notices if isinstance(notice, Reset)] == ["epoch"]


async def test_epoch_that_is_learnt_of_while_the_history_is_away_resets_once_it_is_back(
    running: list[asyncio.Task[None]],
) -> None:
    """The sender restarts after the restore. Judged by the old head in Redis, the feed would lack nothing."""
    world = World(0, replace(STILL, check_seconds=0.01))
    world.database = 20
    world.log, world.head = [19, 20], 20
    feed = await start(world, running)
    browser = Browser(Place(1, 20))
    await world.catch_up.join(browser, feed, browser.start)
    world.log_epoch, world.epoch, world.database = 1, 2, 12
    world.sender_up = False
    await await_until(lambda: world.sources.epoch == 2)
    await await_until(lambda: not world.catch_up.is_repairing(feed))
    world.sender_up = True
    await await_until(lambda: feed.place == Place(2, 12))
    assert [notice.reason for notice in browser.notices if isinstance(notice, Reset)] == ["epoch"]


async def test_redis_that_lacks_what_was_published_is_asked_no_more_until_it_has_it(
    running: list[asyncio.Task[None]],
) -> None:
    """This Redis answers that there is nothing new, because the sender uses another one."""
    world = World(0, replace(STILL, check_seconds=0.01, pull_seconds=0.01))
    world.database, world.log, world.head = 3, [1, 2, 3], 3
    world.published = world.noted = 3
    feed = await start(world, running)
    browser = Browser(Place(1, 3))
    await world.catch_up.join(browser, feed, browser.start)
    world.database = world.published = 5
    await await_until(lambda: browser.seqs == [4, 5])
    assert world.sources.behind
    world.log, world.head, world.noted = [1, 2, 3, 4, 5], 5, 5
    await await_until(lambda: not world.sources.behind)
    assert browser.seqs == [4, 5]


async def test_redis_that_has_what_was_published_at_the_last_look_is_not_behind(
    running: list[asyncio.Task[None]],
) -> None:
    """Under load, the sender has always published more by the time it is asked."""
    world = World(0, replace(STILL, check_seconds=0.001))

    class Busy(WorldLog):
        async def newest(self) -> NewestEvent:
            assert not world.sources.behind
            world.noted, world.published = world.published, world.published + 100
            return await super().newest()

    world.build(Busy(world), WorldHistory(world))
    await start(world, running)
    await await_until(lambda: world.looks > 20)


async def test_sender_that_is_away_leaves_nobody_behind(running: list[asyncio.Task[None]]) -> None:
    world = World(0, replace(STILL, check_seconds=0.01))
    world.published = world.noted = 3
    await start(world, running)
    await await_until(lambda: world.rounds._due.position == 3)
    world.sender_up = False
    await await_until(lambda: world.rounds._due.position == 0)
    world.noted, looks = 0, world.looks
    await await_until(lambda: world.looks > looks + 3)
    assert not world.sources.behind


async def test_redis_that_comes_back_empty_is_asked_no_more_until_the_sender_has_noted_its_newest(
    running: list[asyncio.Task[None]],
) -> None:
    """The gateway may be back before the relay, which then has much to publish."""
    world = World(0, replace(STILL, check_seconds=0.01, pull_seconds=0.01))
    world.published = world.noted = 3
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser, feed, browser.start)
    world.redis_up = False
    await await_until(lambda: world.sources.behind)
    world.noted, world.redis_up, looks = 0, True, world.looks
    await await_until(lambda: world.looks > looks + 3)
    world.database = 1
    await await_until(lambda: browser.seqs == [1])
    assert world.sources.behind
    world.noted = 3
    await await_until(lambda: not world.sources.behind)


async def test_pulling_begins_as_soon_as_redis_is_lost_and_not_with_the_next_check(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0, replace(STILL, check_seconds=3600, pull_seconds=3600))
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser, feed, browser.start)
    await await_until(lambda: world.looks == 1)
    world.database, world.redis_up = 1, False
    await await_until(lambda: browser.seqs == [1])
    world.redis_up = True
    await await_until(lambda: world.looks == 2)


class LostMeanwhile(WorldHistory):
    """The history of a sender during whose answer Redis is lost and an order is completed."""

    armed = False

    async def newest(self) -> NewestEvent:
        if self.armed:
            self._world.database, self._world.redis_up = 1, False
        return await super().newest()


async def test_redis_that_is_lost_in_the_midst_of_a_round_is_pulled_for_at_once(
    running: list[asyncio.Task[None]],
) -> None:
    # only a loss that was seen makes it pull in time
    world = World(0, replace(STILL, check_seconds=0.05, pull_seconds=3600))
    history = LostMeanwhile(world)
    world.build(WorldLog(world), history)
    feed = await start(world, running)
    browser = Browser(Place(1, 0))
    await world.catch_up.join(browser, feed, browser.start)
    history.armed = True
    await await_until(lambda: browser.seqs == [1])


class Refusing(WorldLog):
    """A reader of a Redis that delivers messages but refuses to be read."""

    refuses = True
    newest_too = False

    async def newest(self) -> NewestEvent:
        if self.refuses and self.newest_too:
            self._world.looks += 1
            raise CommandRefused("NOPERM this user has no permissions to run the 'hmget' command")
        return await super().newest()

    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        if not self.refuses:
            return await super().heads(channels)
        raise CommandRefused("NOPERM this user has no permissions to run the 'hmget' command")


@pytest.mark.parametrize("newest_too", [True, False])
async def test_redis_that_is_heard_and_refuses_to_be_read_is_pulled_for_until_it_does_not(
    running: list[asyncio.Task[None]], *, newest_too: bool
) -> None:
    world = World(0, replace(STILL, check_seconds=0.01, pull_seconds=0.01))
    world.database, world.log, world.head = 3, [1, 2, 3], 3
    refusing = Refusing(world)
    world.build(refusing, WorldHistory(world))
    refusing.newest_too = newest_too
    feed = await start(world, running)
    browser = Browser(Place(1, 3))
    await world.catch_up.join(browser, feed, browser.start)
    world.database = 5
    await await_until(lambda: browser.seqs == [4, 5])
    refusing.refuses = False
    await await_until(lambda: not world.sources.behind)


async def test_defect_in_the_repair_of_one_feed_ends_nobody_elses(
    running: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0, replace(STILL, check_seconds=0.01))
    world.database = 3
    read = world.sources.read

    async def read_but_bobs(channel: Channel, place: Place) -> Continuation:
        if channel == BOB:
            raise ZeroDivisionError
        return await read(channel, place)

    monkeypatch.setattr(world.sources, "read", read_but_bobs)
    alice = await start(world, running)
    bob = world.hub.enter(BOB)
    bob.establish(Place(1, 3))
    world.catch_up.request(bob, "check")
    await await_until(lambda: not world.catch_up.is_repairing(bob))
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
    with claim("what was heard and never was is forgotten"):
        assert feed.expected == feed.place == Place(1, 5)
    assert feed.hear(*entries([6]))


async def test_seen_report_of_a_missed_event_is_passed_on_once_it_is_handed_over(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    browser = Browser(Place(1, 5))
    await world.catch_up.join(browser, feed, browser.start)
    world.database, world.log, world.head = 7, [1, 2, 3, 4, 5, 6, 7], 7
    assert not feed.see(Extent(Place(1, 7)))
    world.catch_up.request(feed, "seen")
    await await_until(lambda: not world.catch_up.is_repairing(feed))
    assert (browser.seqs, feed.seen, feed.claimed) == ([6, 7], Extent(Place(1, 7)), None)
    assert browser.notices == [SeenElsewhere("customer:alice=1.7")]


async def test_seen_report_of_an_unknown_event_is_counted_and_passed_to_no_device(
    running: list[asyncio.Task[None]],
) -> None:
    """Browsers would believe that all events up to there were shown."""
    world = World(0)
    world.database = 5
    feed = await start(world, running)
    browser = Browser(Place(1, 5))
    await world.catch_up.join(browser, feed, browser.start)
    foreign = count("orderbell_messages_foreign_total")
    assert not feed.see(Extent(Place(1, 900)))
    world.catch_up.request(feed, "seen")
    await await_until(lambda: not world.catch_up.is_repairing(feed))
    assert (browser.notices, feed.seen, feed.claimed) == ([], Extent(Place(1, 0)), None)
    assert count("orderbell_messages_foreign_total") == foreign + 1


def count(name: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name) or 0.0


async def test_history_is_asked_once_for_a_channel_that_redis_knows_nothing_of(
    running: list[asyncio.Task[None]],
) -> None:
    """Nearly all channels of a crowd are like this: Redis has long dropped their events."""
    world = World(0, replace(STILL, check_seconds=0.01))
    world.database = 5
    asked: list[object] = []

    class Counting(WorldHistory):
        async def read(self, of: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Continuation]:
            asked.extend(of)
            return await super().read(of, limit=limit)

    world.build(WorldLog(world), Counting(world))
    world.run(running)
    await asyncio.sleep(0)
    feed = world.hub.enter(ALICE)
    world.catch_up.request(feed, "subscribed")
    await await_until(lambda: feed.place == Place(1, 5))
    looks = world.looks
    await await_until(lambda: world.looks > looks + 3)
    assert asked == [ALICE]
    world.database, world.log, world.head = 6, [6], 6  # what was heard of it was lost
    await await_until(lambda: feed.place == Place(1, 6))


async def test_channel_placed_by_the_history_while_redis_is_away_is_still_looked_up_in_redis(
    running: list[asyncio.Task[None]],
) -> None:
    world = World(0)
    world.database, world.redis_up = 5, False
    world.run(running)
    await asyncio.sleep(0)
    feed = world.hub.enter(ALICE)
    world.catch_up.request(feed, "subscribed")
    await await_until(lambda: feed.place == Place(1, 5))
    assert not feed.headless
