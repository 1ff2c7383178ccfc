from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from receiver.feeds.hub import Hub
from shared.channels import customer_channel, topic_channel
from shared.cursors import Place
from tests.connections import Shared

if TYPE_CHECKING:
    from receiver.feeds.feed import Feed
    from shared.channels import Channel

pytestmark = pytest.mark.anyio

ALICE, MENU = customer_channel("alice"), topic_channel("menu")


class Commands:
    """The commands that a hub gives its subscription."""

    def __init__(self) -> None:
        self.subscribed: list[Feed] = []
        self.unsubscribed: list[Feed] = []
        self.hub = Hub(self.subscribed.append, self.unsubscribed.extend)


async def test_channel_is_subscribed_by_its_first_member_alone() -> None:
    commands = Commands()
    first, second = commands.hub.enter(ALICE), commands.hub.enter(ALICE)
    assert first is second
    assert commands.subscribed == [first]


@pytest.mark.parametrize("channel", [ALICE, MENU])
async def test_channel_is_left_after_its_last_member(channel: Channel) -> None:
    commands, one, other, third = Commands(), Shared(), Shared(), Shared()
    feed = commands.hub.enter(channel)
    commands.hub.enter(channel)
    commands.hub.enter(channel)
    feed.join(one)
    feed.join(other)
    assert list(feed.live) == [one, other]
    commands.hub.leave(feed, one)
    commands.hub.leave(feed, third)  # which never joined
    commands.hub.drop_empty()
    assert (commands.unsubscribed, list(feed.live)) == ([], [other])
    commands.hub.leave(feed, other)
    commands.hub.drop_empty()
    assert (commands.unsubscribed, len(commands.hub)) == ([feed], 0)


async def test_page_that_reloads_finds_its_feed_in_place() -> None:
    commands = Commands()
    feed = commands.hub.enter(ALICE)
    feed.establish(Place(1, 7))
    commands.hub.leave(feed, Shared())
    assert commands.hub.enter(ALICE) is feed
    commands.hub.drop_empty()
    assert (commands.subscribed, commands.unsubscribed) == ([feed], [])
