"""Which alerts are unread, and which were read. The sender's database decides both.

A count is true at a place, and every change of it is an event of the channel. So a feed that has moved since
its last count is counted again, within a second, and its live connections are notified. One request asks
for at most `COUNTS_AT_ONCE` feeds a round: after a burst of events, counts come later, and the sender gets no
burst of requests.

When more feeds have moved than a round can count, those counted in the last `REST_ROUNDS` rounds wait: the
others come first, and the count of a feed that moves every second is outdated as soon as it is sent.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import structlog

from receiver.connections.notices import Ring, Unread
from receiver.feeds.history import HistoryUnavailable
from shared.channels import is_private, name_in
from shared.cursors import Cursor, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.feeds.feed import Feed
    from receiver.feeds.history import History
    from receiver.feeds.hub import Hub
    from shared.channels import Channel

# Channels. Each count costs a gateway a part of a request, and a frame. With 500 twice a second, a delivery
# to one of 2,000 customers cost 37.7 µs instead of 25.2 without any; with 100 once a second, 30.0.
COUNTS_AT_ONCE = 100
REST_ROUNDS = 20  # without them, a fifth of a busy gateway's frames were counts that were soon outdated
MAX_IDS = 1_000  # of one channel that wait to be passed on
_IDS_PER_REPORT = 100
_ROUND_SECONDS = 1.0  # a request costs as much as some fifty counts
_RETRY_SECONDS = 1.0

logger = structlog.get_logger(__name__)


class Counts:
    """Keeps the unread counts of the feeds that have live connections."""

    def __init__(self, hub: Hub, history: History, *, ring_again_seconds: float = 0) -> None:
        """`ring_again_seconds`: how long alerts stay unseen until they are offered again; 0: never."""
        self._hub = hub
        self._history = history
        self._ring_again_seconds = ring_again_seconds
        self._first = 0  # the feed with which a round begins, so that each gets its turn
        self._lately: deque[list[Feed]] = deque(maxlen=REST_ROUNDS)  # counted, by round

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            try:
                await self.count()
            except HistoryUnavailable as error:
                logger.debug("unread alerts can't be counted now", reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            if self._ring_again_seconds:
                self._ring_again()

    async def count(self) -> None:
        """One round. Raises `HistoryUnavailable`."""
        due = self._due()
        counted: list[Feed] = []
        self._lately.append(counted)
        if due:
            await self._count(due)
            counted += due  # those whose count failed come again in the next round

    def _due(self) -> list[Feed]:
        """The feeds to be counted in this round."""
        feeds = self._hub.feeds
        first = self._first % len(feeds) if feeds else 0
        moved = [feed for feed in feeds[first:] + feeds[:first] if feed.is_uncounted]
        due = list(itertools.islice(filter(_is_heard, moved), COUNTS_AT_ONCE + 1))
        if len(due) > COUNTS_AT_ONCE:
            lately = frozenset(itertools.chain.from_iterable(self._lately))
            rested = (feed for feed in moved if feed not in lately and _is_heard(feed))
            due = list(itertools.islice(rested, COUNTS_AT_ONCE))
        if len(due) == COUNTS_AT_ONCE:
            self._first = feeds.index(due[-1]) + 1
        return due

    async def _count(self, feeds: Sequence[Feed]) -> None:
        places = [feed.place for feed in feeds]
        counts = await self._history.count_unread([feed.channel for feed in feeds])
        for feed, place, (unread, as_of) in zip(feeds, places, counts, strict=True):
            feed.counted(place)
            before = feed.unread
            if before is None or before.as_of != as_of or before.unread != unread:
                feed.note_unread(Unread(unread, as_of))

    def _ring_again(self) -> None:
        now = asyncio.get_running_loop().time()
        for feed in self._hub.feeds:
            if not is_private(feed.channel) or not feed.live or feed.place is None:
                continue
            if feed.seen is not None and feed.seen.place >= feed.place:
                feed.unseen_since = 0.0
            elif not feed.unseen_since:
                feed.unseen_since = now
            elif now - feed.unseen_since > self._ring_again_seconds:
                feed.unseen_since = now
                feed.ring(Ring(str(Cursor(feed.channel, feed.place))))


def _is_heard(feed: Feed) -> bool:
    """Whether a count of it would reach anybody. A topic has none, and stays uncounted."""
    return is_private(feed.channel) and bool(feed.sharing or feed.others)


class _Report(NamedTuple):
    """What was read in one channel and is not passed on yet."""

    up_to: Place | None
    ids: dict[str, None]  # in order


class ReadReports:
    """What customers have read, passed on to the sender. Losing it to a crash costs a second click."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._waiting: dict[Channel, _Report] = {}
        self._reported = asyncio.Event()

    def report(self, channel: Channel, up_to: Place | None = None, ids: Sequence[str] = ()) -> None:
        before = self._waiting.get(channel) or _Report(None, {})
        places = [place for place in (before.up_to, up_to) if place is not None]
        all_ids = dict(list({**before.ids, **dict.fromkeys(ids)}.items())[:MAX_IDS])
        self._waiting[channel] = _Report(max(places, default=None), all_ids)
        self._reported.set()

    async def run(self) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            while self._waiting:
                await self._send_one()

    async def _send_one(self) -> None:
        channel = next(iter(self._waiting))
        up_to, ids = self._waiting.pop(channel)
        some = list(ids)[:_IDS_PER_REPORT]
        cursors = [Cursor(channel, up_to)] if up_to is not None else []
        try:
            await self._history.mark_read(cursors, some, customer=name_in(channel))
        except HistoryUnavailable as error:
            logger.debug("what was read could not be passed on yet", reason=str(error))
            self.report(channel, up_to, some)
            await asyncio.sleep(_RETRY_SECONDS)
        if rest := list(ids)[_IDS_PER_REPORT:]:
            self.report(channel, None, rest)
