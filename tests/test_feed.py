from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

import prometheus_client
import pytest

from receiver.connections.connection import End
from receiver.connections.notices import SeenElsewhere
from receiver.feeds.burst import Burst
from receiver.feeds.feed import Feed, TopicFeed
from receiver.feeds.hub import Hub
from shared.channels import customer_channel, topic_channel
from shared.cursors import Place
from shared.events import Entry
from shared.extents import Extent, Range
from tests.connections import Handed, Shared

if TYPE_CHECKING:
    from receiver.connections.connection import Connection
    from receiver.connections.notices import Notice
    from shared.channels import Channel

pytestmark = pytest.mark.anyio

ALICE, MENU = customer_channel("alice"), topic_channel("menu")


def event(seq: int, epoch: int = 1) -> Entry:
    return Entry(Place(epoch, seq), b'{"seq":%d}' % seq)


def message(seq: int, epoch: int = 1) -> bytes:
    return b"%d %d %b" % (epoch, seq, event(seq).text)


def feed_at(seq: int, *subscribers: Connection, feed: Feed | None = None) -> Feed:
    feed = feed or Feed(ALICE)
    feed.establish(Place(1, seq))
    for subscriber in subscribers:
        feed.join(subscriber)
    return feed


async def test_next_event_is_handed_to_everyone_live() -> None:
    one, other = Shared(), Shared()
    feed = feed_at(41, one, other)
    assert feed.hear(event(42))
    assert (one.seqs, other.seqs, feed.place) == ([42], [42], Place(1, 42))


class Slow(Shared):
    """Leaves its feed when it is handed anything, as a connection whose buffer is full does."""

    def __init__(self, hub: Hub, feed: Feed) -> None:
        super().__init__()
        self._hub = hub
        self._feed = feed
        self.paused = True

    def write(self, data: bytes) -> None:
        self._hub.leave(self._feed, self)

    def notify(self, notice: Notice) -> None:
        self._hub.leave(self._feed, self)


@pytest.mark.parametrize("channel", [ALICE, MENU])
async def test_subscriber_that_leaves_while_it_is_handed_an_event_costs_nobody_else_the_event(
    channel: Channel,
) -> None:
    hub = Hub(lambda channel: None, lambda channels: None)
    feed = feed_at(41, feed=hub.enter(channel))
    others = [Shared() for _ in range(20)]
    for other in others:
        feed.join(Slow(hub, feed))
        feed.join(other)
    assert feed.hear(event(42))
    assert feed.live == tuple(others)
    assert all(other.seqs == [42] for other in others)
    feed.join(Slow(hub, feed))
    assert feed.see(Extent(Place(1, 42)))
    assert all(other.notices == [SeenElsewhere.of(channel, Extent(Place(1, 42)))] for other in others)


@pytest.mark.parametrize("channel", [ALICE, MENU])
async def test_feed_keeps_no_connection_that_has_left(channel: Channel) -> None:
    """A topic may be quiet for days after thousands have gone."""
    hub = Hub(lambda channel: None, lambda channels: None)
    one, other = Shared(), Shared()
    feed = feed_at(41, one, other, feed=hub.enter(channel))
    assert feed.hear(event(42))
    gone = weakref.ref(one)
    feed.leave(one)
    del one
    assert gone() is None


def repeats() -> float:
    return prometheus_client.REGISTRY.get_sample_value("orderbell_repeats_dropped_total") or 0.0


async def test_repeat_is_dropped() -> None:
    subscriber, before = Shared(), repeats()
    feed = feed_at(41, subscriber)
    for seq in (42, 42, 41, 40):
        assert feed.hear(event(seq))
    assert subscriber.seqs == [42]
    assert repeats() == before + 3


async def test_event_behind_a_gap_is_not_handed_over() -> None:
    subscriber = Shared()
    feed = feed_at(41, subscriber)
    assert not feed.hear(event(43))
    assert (subscriber.seqs, feed.place, feed.expected) == ([], Place(1, 41), Place(1, 43))


async def test_event_of_a_newer_epoch_needs_a_repair_though_its_seq_is_the_next() -> None:
    subscriber = Shared()
    feed = feed_at(41, subscriber)
    assert not feed.hear(event(42, epoch=2))
    assert subscriber.seqs == []


async def test_event_of_an_older_epoch_is_dropped() -> None:
    subscriber = Shared()
    feed = Feed(ALICE)
    feed.establish(Place(2, 3))
    feed.join(subscriber)
    assert feed.hear(event(4, epoch=1))
    assert subscriber.seqs == []


async def test_seen_report_of_an_event_that_was_handed_over_is_passed_on() -> None:
    subscriber = Shared()
    feed = feed_at(41, subscriber)
    assert feed.see(Extent(Place(1, 41)))
    assert (feed.seen, subscriber.notices) == (Extent(Place(1, 41)), [SeenElsewhere("customer:alice=1.41")])


async def test_seen_of_what_was_not_handed_over_waits_for_proof() -> None:
    subscriber = Shared()
    feed = feed_at(41, subscriber)
    assert not feed.see(Extent(Place(1, 43)))
    assert not feed.see(Extent(Place(1, 42)))
    assert (feed.seen, feed.claimed, subscriber.notices) == (None, Extent(Place(1, 43)), [])


async def test_seen_of_a_later_event_leaves_the_earlier_one_unseen() -> None:
    subscriber = Shared()
    feed = feed_at(43, subscriber)
    assert feed.see(Extent.of(Place(1, 40), [Range(43, 43)]))
    assert feed.see(Extent.of(Place(1, 0), [Range(42, 42)]))
    assert str(feed.seen) == "1.40+42-43"
    assert subscriber.notices == [
        SeenElsewhere("customer:alice=1.40", "customer:alice=1.40+43"),
        SeenElsewhere("customer:alice=1.40", "customer:alice=1.40+42-43"),
    ]
    assert feed.see(Extent(Place(1, 41)))
    assert feed.seen == Extent(Place(1, 43))


async def test_seen_beyond_what_was_handed_over_waits_for_proof() -> None:
    subscriber = Shared()
    feed = feed_at(41, subscriber)
    assert not feed.see(Extent.of(Place(1, 40), [Range(43, 43)]))
    assert (feed.seen, str(feed.claimed), subscriber.notices) == (None, "1.40+43", [])
    assert feed.is_short_of(Place(1, 42))
    feed.settle_claim()
    assert (feed.seen, feed.claimed) == (None, None)


async def test_seen_place_stays_true_when_more_may_be_missing_and_is_reported_once() -> None:
    subscriber = Shared()
    feed = feed_at(43, subscriber)
    feed.see(Extent.of(Place(1, 40), [Range(42, 42)]))
    feed.forget_seen()
    assert feed.seen is None
    feed.note_seen(Extent(Place(1, 40)))
    assert str(feed.seen) == "1.40+42"
    assert len(subscriber.notices) == 1


async def test_what_was_heard_before_the_head_was_read_counts() -> None:
    feed = Feed(ALICE)
    feed.hear(event(43))
    feed.establish(Place(1, 42))
    assert feed.place == Place(1, 43)


async def test_first_place_is_set_once() -> None:
    feed = feed_at(41)
    feed.establish(Place(1, 50))
    assert feed.place == Place(1, 41)


async def test_connection_waits_for_the_place_and_no_longer() -> None:
    feed, connection = Feed(ALICE), Shared()
    waiting = asyncio.create_task(feed.wait_established(connection))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.establish(Place(1, 0))
    await asyncio.wait_for(waiting, 20)
    await asyncio.wait_for(feed.wait_established(connection), 20)


async def test_connection_that_leaves_waits_no_more() -> None:
    feed, connection = Feed(ALICE), Shared()
    waiting = asyncio.create_task(feed.wait_established(connection))
    await asyncio.sleep(0)
    feed.leave(connection)
    await asyncio.wait_for(waiting, 20)
    assert feed.place is None


async def test_all_share_one_frame() -> None:
    one, other = Shared(), Shared()
    feed_at(41, one, other).hear(event(42))
    assert one.frames[0] is other.frames[0]


def taken(feed: Feed, *messages: bytes) -> Burst:
    burst = Burst()
    assert all(feed.take_next(one, burst) for one in messages)
    return burst


@pytest.mark.parametrize("make", [Feed, TopicFeed])
async def test_message_of_the_next_event_is_for_everyone_live(make: type[Feed]) -> None:
    one, other, handed = Shared(), Shared(), Handed()
    feed = feed_at(41, one, other, handed, feed=make(ALICE))
    taken(feed, message(42), message(43)).write()
    assert (handed.seqs, feed.place) == ([42, 43], Place(1, 43))
    assert one.frames == other.frames == [b'10 {"seq":42}10 {"seq":43}']
    assert handed.events[0] == (ALICE, Place(1, 42), b'{"seq":42}')


async def test_feed_that_only_others_are_live_in_makes_no_finished_bytes() -> None:
    handed = Handed()
    feed = feed_at(41, handed)
    assert taken(feed, message(42)).finished == []


class SharedOtherwise(Shared):
    """A connection of a transport with other finished bytes."""

    @staticmethod
    def frame(channel: Channel, epoch: int, seq: int, text: bytes) -> bytes:
        return b"size %d: " % len(text) + text


@pytest.mark.parametrize("make", [Feed, TopicFeed])
async def test_connections_that_share_other_bytes_are_handed_the_event(make: type[Feed]) -> None:
    one, other = Shared(), SharedOtherwise()
    feed = feed_at(41, one, other, feed=make(ALICE))
    taken(feed, message(42)).write()
    assert feed.hear(event(43))
    assert one.seqs == [42, 43]
    assert (other.frames, [place.seq for _, place, _ in other.events]) == ([], [42, 43])


class Broken(Handed):
    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        raise ZeroDivisionError


async def test_connection_that_fails_to_take_an_event_is_ended_and_costs_nobody_else_the_event() -> None:
    """Its feed has moved on, so its client must come back with its cursor."""
    broken, good = Broken(), Handed()
    feed = feed_at(41, broken, good)
    taken(feed, message(42)).write()
    assert (broken.ends, good.seqs) == ([End.INTERNAL_ERROR], [42])


class Unnoticed(Handed):
    def notify(self, notice: Notice) -> None:
        raise ZeroDivisionError


async def test_connection_that_fails_to_take_a_notice_is_ended_and_costs_nobody_else_the_notice() -> None:
    broken, good = Unnoticed(), Handed()
    feed_at(41, broken, good).reset(Place(2, 9), "restored")
    assert (broken.ends, len(good.notices)) == ([End.INTERNAL_ERROR], 1)


@pytest.mark.parametrize(
    "other", [message(43), message(41), message(42, epoch=2), message(420), b"1 42 []", b"seen 1 42", b""]
)
async def test_message_of_anything_else_is_left_to_be_looked_at(other: bytes) -> None:
    subscriber = Shared()
    feed = feed_at(41, subscriber)
    assert not feed.take_next(other, Burst())
    assert (subscriber.frames, feed.place, feed.expected) == ([], Place(1, 41), None)


@pytest.mark.parametrize("first", [message(1), b"0 1 {}", b"\0", b"{}", b""])
async def test_message_that_comes_before_the_place_is_known_is_left_to_be_looked_at(first: bytes) -> None:
    feed = Feed(ALICE)
    assert not feed.take_next(first, Burst())
    assert feed.place is None
