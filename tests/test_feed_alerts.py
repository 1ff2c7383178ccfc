"""Whose unread alerts are counted, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.feeds.alerts import COUNTS_AT_ONCE, REST_ROUNDS, Counts
from receiver.feeds.burst import Burst
from receiver.feeds.history import History, HistoryUnavailable
from receiver.feeds.hub import Hub
from shared.channels import customer_channel, topic_channel
from shared.cursors import Place
from tests.connections import Shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.feeds.feed import Feed
    from shared.channels import Channel

pytestmark = pytest.mark.anyio


class Counting(History):
    """Remembers what was asked for in each request."""

    def __init__(self) -> None:
        self.asked: list[list[Channel]] = []
        self.fails = False

    async def count_unread(self, channels: Sequence[Channel]) -> list[tuple[int, str]]:
        if self.fails:
            raise HistoryUnavailable("the sender does not answer")
        self.asked.append(list(channels))
        return [(1, f"{channel}=1.1") for channel in channels]


class Gateway:
    """Feeds with a live connection each; all have moved."""

    def __init__(self, size: int) -> None:
        self.history = Counting()
        self.hub = Hub(lambda feed: None, lambda feeds: None)
        self.counts = Counts(self.hub, self.history)
        self.feeds = [self.hub.enter(customer_channel(f"customer-{n}")) for n in range(size)]
        for feed in self.feeds:
            feed.establish(Place(1, 1))
            feed.join(Shared())

    async def count(self) -> list[Channel]:
        """The channels of one round."""
        self.history.asked = [[]]
        await self.counts.count()
        return self.history.asked[-1]


def move(feed: Feed) -> None:
    assert feed.place is not None
    assert feed.take_next(b"1 %d {}" % (feed.place.seq + 1), Burst())


async def test_as_many_feeds_as_a_round_counts_are_counted_in_each_round_in_which_they_moved() -> None:
    gateway = Gateway(COUNTS_AT_ONCE)
    for _ in range(3):
        assert len(await gateway.count()) == COUNTS_AT_ONCE
        for feed in gateway.feeds:
            move(feed)


async def test_feeds_at_rest_are_not_counted_again() -> None:
    gateway = Gateway(3)
    assert len(await gateway.count()) == 3
    assert await gateway.count() == []


async def test_while_there_are_too_many_each_is_counted_once_before_any_is_counted_again() -> None:
    rounds = 3
    gateway = Gateway(rounds * COUNTS_AT_ONCE)
    counted: list[Channel] = []
    for _ in range(rounds):
        counted += await gateway.count()
        for feed in gateway.feeds:
            move(feed)
    assert sorted(counted) == sorted(feed.channel for feed in gateway.feeds)
    for _ in range(REST_ROUNDS - rounds + 1):
        assert await gateway.count() == []
    assert sorted(await gateway.count()) == sorted(counted[:COUNTS_AT_ONCE])


async def test_feed_that_waits_is_counted_as_soon_as_there_are_fewer() -> None:
    gateway = Gateway(COUNTS_AT_ONCE + 1)
    assert len(await gateway.count()) == COUNTS_AT_ONCE
    for feed in gateway.feeds[:COUNTS_AT_ONCE]:
        move(feed)
    assert await gateway.count() == [gateway.feeds[-1].channel]
    assert len(await gateway.count()) == COUNTS_AT_ONCE


async def test_feeds_that_nobody_counts_keep_no_other_from_being_counted_again() -> None:
    gateway = Gateway(1)
    for n in range(COUNTS_AT_ONCE):
        gateway.hub.enter(topic_channel(f"topic-{n}")).establish(Place(1, 1))
    for n in range(COUNTS_AT_ONCE):  # their customers have left
        gateway.hub.enter(customer_channel(f"gone-{n}")).establish(Place(1, 1))
    for _ in range(3):
        assert len(await gateway.count()) == 1
        move(gateway.feeds[0])


async def test_feeds_whose_count_failed_do_not_rest() -> None:
    gateway = Gateway(2 * COUNTS_AT_ONCE)
    gateway.history.fails = True
    for _ in range(2):
        with pytest.raises(HistoryUnavailable):
            await gateway.count()
    gateway.history.fails = False
    counted = [*await gateway.count(), *await gateway.count()]
    assert sorted(counted) == sorted(feed.channel for feed in gateway.feeds)
