"""The feeds of this gateway, by channel. Nothing here waits.

A feed whose last member has left stays for a while: a page that reloads, or a client between two polls, then
needs no new subscription. The number of empty feeds is bounded.
"""

from __future__ import annotations

import time
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
        self,
        subscribe: Callable[[Feed], None],
        unsubscribe: Callable[[Iterable[Feed]], None],
        *,
        linger_seconds: float = 0.0,
        max_lingering: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._linger_seconds = linger_seconds
        self._max_lingering = max_lingering
        self._clock = clock
        self._feeds: dict[Channel, Feed] = {}
        self._empty: dict[Feed, float] = {}  # since when each is empty, the longest first

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def feeds(self) -> list[Feed]:
        return list(self._feeds.values())

    def find(self, channel: Channel) -> Feed | None:
        return self._feeds.get(channel)

    def enter(self, channel: Channel) -> Feed:
        """Become a member of a channel's feed; each `enter` needs its `leave`."""
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = Feed(channel) if is_private(channel) else TopicFeed(channel)
            self._subscribe(feed)
        elif not feed.member_count:
            self._empty.pop(feed, None)
        feed.member_count += 1
        return feed

    def leave(self, feed: Feed, connection: Connection) -> None:
        feed.leave(connection)
        feed.member_count -= 1
        if not feed.member_count:
            self._empty[feed] = self._clock()

    def drop_empty(self) -> None:
        """Forget feeds that have been empty for long, or exceed the number allowed."""
        before = self._clock() - self._linger_seconds
        dropped: list[Feed] = []
        for feed, since in self._empty.items():
            if since > before and len(self._empty) - len(dropped) <= self._max_lingering:
                break
            dropped.append(feed)
        for feed in dropped:
            del self._empty[feed], self._feeds[feed.channel]
        if dropped:
            self._unsubscribe(dropped)
