"""The feeds of this gateway, by channel: a look-up, no waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.feeds.feed import Feed, TopicFeed
from shared.channels import is_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from receiver.connections.connection import Connection
    from shared.channels import Channel


class Hub:
    """`subscribe` and `unsubscribe` reach Redis; they are called when a channel's first member comes and,
    through `drop_empty`, some time after its last one has left.
    """

    def __init__(
        self, subscribe: Callable[[Feed], None], unsubscribe: Callable[[Iterable[Feed]], None]
    ) -> None:
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._feeds: dict[Channel, Feed] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def feeds(self) -> list[Feed]:
        return list(self._feeds.values())

    def enter(self, channel: Channel) -> Feed:
        """Become a member of a channel's feed; each `enter` needs its `leave`."""
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = Feed(channel) if is_private(channel) else TopicFeed(channel)
            self._subscribe(feed)
        feed.member_count += 1
        return feed

    def leave(self, feed: Feed, connection: Connection) -> None:
        feed.leave(connection)
        feed.member_count -= 1

    def drop_empty(self) -> None:
        """Forget the feeds without members. A page that reloads, or a client between two polls, finds its
        feed still there.
        """
        empty = [feed for feed in self._feeds.values() if not feed.member_count]
        for feed in empty:
            del self._feeds[feed.channel]
        if empty:
            self._unsubscribe(empty)
