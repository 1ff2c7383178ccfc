from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import msgspec
import prometheus_client
import pytest

from receiver.feeds.hub import Feed, Hub, write_all
from shared.channels import customer_channel, topic_channel
from shared.cursors import Place
from shared.redis.channel_log import Entry

if TYPE_CHECKING:
    from shared.channels import Channel

ALICE, MENU = customer_channel("alice"), topic_channel("menu")


class Recorder:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self.paused = False
        self.frames: list[bytes] = []
        self.told: list[bytes] = []

    @property
    def socket(self) -> Recorder:
        return self

    @property
    def seqs(self) -> list[int]:
        return [msgspec.json.decode(frame[2:])["seq"] for frame in self.frames]

    def send(self, frame: bytes) -> int:
        self.write(frame)
        return len(frame)

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def tell(self, text: bytes) -> None:
        self.told.append(text)


def event(seq: int, epoch: int = 1) -> Entry:
    return Entry(Place(epoch, seq), b'{"seq":%d}' % seq)


def message(seq: int, epoch: int = 1) -> bytes:
    return b"%d %d %b" % (epoch, seq, event(seq).text)


def feed_at(seq: int, *subscribers: Recorder, feed: Feed | None = None) -> Feed:
    feed = feed or Feed(ALICE)
    feed.establish(Place(1, seq))
    for subscriber in subscribers:
        feed.join(subscriber)
    return feed


def test_next_event_is_handed_to_everyone_live() -> None:
    one, other = Recorder(), Recorder()
    feed = feed_at(41, one, other)
    assert feed.hear(event(42))
    assert (one.seqs, other.seqs, feed.place) == ([42], [42], Place(1, 42))


class Slow(Recorder):
    """Leaves its feed when it is handed anything, as a connection whose buffer is full does."""

    def __init__(self, hub: Hub, feed: Feed) -> None:
        super().__init__()
        self._hub = hub
        self._feed = feed
        self.paused = True

    def write(self, frame: bytes) -> None:
        self._hub.leave(self._feed, self)

    def tell(self, text: bytes) -> None:
        self._hub.leave(self._feed, self)


@pytest.mark.parametrize("channel", [ALICE, MENU])
def test_subscriber_that_leaves_while_it_is_handed_an_event_costs_nobody_else_the_event(
    channel: Channel,
) -> None:
    hub = Hub(lambda channel: None, lambda channels: None)
    feed = feed_at(41, feed=hub.enter(channel))
    others = [Recorder() for _ in range(20)]
    for other in others:
        feed.join(Slow(hub, feed))
        feed.join(other)
    assert feed.hear(event(42))
    assert feed.live == tuple(others)
    assert all(other.seqs == [42] for other in others)
    feed.join(Slow(hub, feed))
    feed.tell(b"seen")
    assert all(other.told == [b"seen"] for other in others)


@pytest.mark.parametrize("channel", [ALICE, MENU])
def test_feed_keeps_nobody_who_has_left(channel: Channel) -> None:
    """A topic may be quiet for days after thousands have gone."""
    hub = Hub(lambda channel: None, lambda channels: None)
    one, other = Recorder(), Recorder()
    feed = feed_at(41, one, other, feed=hub.enter(channel))
    assert feed.hear(event(42))
    gone = weakref.ref(one)
    feed.leave(one)
    del one
    assert gone() is None


def repeats() -> float:
    return prometheus_client.REGISTRY.get_sample_value("orderbell_repeats_dropped_total") or 0.0


def test_repeat_is_dropped() -> None:
    subscriber, before = Recorder(), repeats()
    feed = feed_at(41, subscriber)
    for seq in (42, 42, 41, 40):
        assert feed.hear(event(seq))
    assert subscriber.seqs == [42]
    assert repeats() == before + 3


def test_event_behind_a_gap_is_not_handed_over() -> None:
    subscriber = Recorder()
    feed = feed_at(41, subscriber)
    assert not feed.hear(event(43))
    assert (subscriber.seqs, feed.place, feed.heard) == ([], Place(1, 41), Place(1, 43))


def test_event_of_a_newer_epoch_needs_a_repair_though_its_seq_is_the_next() -> None:
    subscriber = Recorder()
    feed = feed_at(41, subscriber)
    assert not feed.hear(event(42, epoch=2))
    assert subscriber.seqs == []


def test_event_of_an_older_epoch_is_dropped() -> None:
    subscriber = Recorder()
    feed = Feed(ALICE)
    feed.establish(Place(2, 3))
    feed.join(subscriber)
    assert feed.hear(event(4, epoch=1))
    assert subscriber.seqs == []


def test_seen_of_an_event_that_was_handed_over_is_told() -> None:
    subscriber = Recorder()
    feed = feed_at(41, subscriber)
    assert feed.see(Place(1, 41), b"seen")
    assert (feed.seen, subscriber.told) == (Place(1, 41), [b"seen"])


def test_seen_of_what_was_not_handed_over_waits_for_proof() -> None:
    subscriber = Recorder()
    feed = feed_at(41, subscriber)
    assert not feed.see(Place(1, 43), b"seen")
    assert not feed.see(Place(1, 42), b"seen")
    assert (feed.seen, feed.claimed, subscriber.told) == (None, Place(1, 43), [])


def test_what_was_heard_before_the_head_was_read_counts() -> None:
    feed = Feed(ALICE)
    feed.hear(event(43))
    feed.establish(Place(1, 42))
    assert feed.place == Place(1, 43)


def test_first_place_is_set_once() -> None:
    feed = feed_at(41)
    feed.establish(Place(1, 50))
    assert feed.place == Place(1, 41)


def test_those_who_wait_for_the_place_are_told_once() -> None:
    feed, calls = Feed(ALICE), []
    feed.when_established(lambda: calls.append("waited"))
    feed.establish(Place(1, 0))
    feed.establish(Place(1, 0))
    feed.when_established(lambda: calls.append("at once"))
    assert calls == ["waited", "at once"]


def test_who_waits_for_the_place_no_more_is_not_told() -> None:
    feed, calls = Feed(ALICE), []

    def call() -> None:
        calls.append("waited")

    feed.when_established(call)
    feed.wait_no_more(call)
    feed.wait_no_more(call)
    feed.establish(Place(1, 0))
    assert calls == []


def test_all_share_one_frame() -> None:
    one, other = Recorder(), Recorder()
    feed_at(41, one, other).hear(event(42))
    assert one.frames[0] is other.frames[0]


def test_message_of_the_next_event_is_handed_to_everyone_live() -> None:
    one, other = Recorder(), Recorder()
    feed = feed_at(41, one, other)
    write_all([(feed.live, frame) for seq in (42, 43) if (frame := feed.take_next(message(seq)))])
    assert (one.seqs, other.seqs, feed.place) == ([42, 43], [42, 43], Place(1, 43))
    assert one.frames[0][2:] == event(42).text


@pytest.mark.parametrize(
    "other", [message(43), message(41), message(42, epoch=2), message(420), b"1 42 []", b"seen 1 42", b""]
)
def test_message_of_anything_else_is_left_to_be_looked_at(other: bytes) -> None:
    subscriber = Recorder()
    feed = feed_at(41, subscriber)
    assert feed.take_next(other) is None
    assert (subscriber.frames, feed.place, feed.heard) == ([], Place(1, 41), None)


@pytest.mark.parametrize("first", [message(1), b"0 1 {}", b"\0", b"{}", b""])
def test_message_that_comes_before_the_place_is_known_is_left_to_be_looked_at(first: bytes) -> None:
    feed = Feed(ALICE)
    assert feed.take_next(first) is None
    assert feed.place is None


class Commands:
    """What a hub asks of its subscription."""

    def __init__(self) -> None:
        self.subscribed: list[Feed] = []
        self.unsubscribed: list[Feed] = []
        self.hub = Hub(self.subscribed.append, self.unsubscribed.extend)


def test_channel_is_subscribed_by_its_first_member_alone() -> None:
    commands = Commands()
    first, second = commands.hub.enter(ALICE), commands.hub.enter(ALICE)
    assert first is second
    assert commands.subscribed == [first]


@pytest.mark.parametrize("channel", [ALICE, MENU])
def test_channel_is_left_after_its_last_member(channel: Channel) -> None:
    commands, one, other, third = Commands(), Recorder(), Recorder(), Recorder()
    feed = commands.hub.enter(channel)
    commands.hub.enter(channel)
    commands.hub.enter(channel)
    feed.join(one)
    feed.join(other)
    assert list(feed.live) == [one, other]
    commands.hub.leave(feed, one)
    commands.hub.leave(feed, third)  # who never joined
    commands.hub.drop_empty()
    assert (commands.unsubscribed, list(feed.live)) == ([], [other])
    commands.hub.leave(feed, other)
    commands.hub.drop_empty()
    assert (commands.unsubscribed, len(commands.hub)) == ([feed], 0)


def test_page_that_reloads_finds_its_feed_in_place() -> None:
    commands = Commands()
    feed = commands.hub.enter(ALICE)
    feed.establish(Place(1, 7))
    commands.hub.leave(feed, Recorder())
    assert commands.hub.enter(ALICE) is feed
    commands.hub.drop_empty()
    assert (commands.subscribed, commands.unsubscribed) == ([feed], [])
