"""Checks regularly whether any feed missed something, and whether the senders publish into this Redis at all.

A feed can miss an event without hearing a gap: the last event before a quiet hour, or everything while Redis
was away. So the heads of all feeds are compared with their places every few seconds, in pipelines. While
Redis is away the sender is asked instead, more often: pull mode.

A Redis that answers may still be the wrong one: after a split the senders may publish into one server while
we read the other, where nothing moves and nothing seems to be missing. Or no sender can reach it. So each
check also asks the sender for the newest event that should be in Redis; if ours lacks it at the next check,
seconds later, the gateway pulls until it is there. It also pulls if we hear Redis but may not read it. Such a
gateway stays ready: it serves a second late, and it can't know whether another would do better. If a sender
is cut off from Redis, all gateways are behind; taking all of them out of the balancer would turn late alerts
into none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from receiver import metrics
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.feeds.catch_up import CatchUp
    from receiver.feeds.feed import Feed
    from receiver.feeds.hub import Hub
    from receiver.feeds.pace import Pace
    from receiver.feeds.sources import Sources
    from shared.cursors import Place

_CHANNELS_PER_PIPELINE = 100

_NOTHING = NewestEvent(0, 0)

logger = structlog.get_logger(__name__)


class Rounds:
    def __init__(
        self, hub: Hub, sources: Sources, catch_up: CatchUp, hears: Callable[[], bool], pace: Pace
    ) -> None:
        self._hub = hub
        self._sources = sources
        self._catch_up = catch_up
        self._hears = hears
        self._pace = pace
        self._due = _NOTHING  # the newest event that should have been in Redis when we last asked
        self._logged_behind = False  # since Redis was last lost
        self._woken = asyncio.Event()

    async def run(self) -> None:
        while True:
            heard = self._hears()  # a loss during the round counts, too
            await self._turn()
            await self._wait(heard=heard)

    def wake(self) -> None:
        """Call this when Redis may have become heard or unheard."""
        self._woken.set()

    async def _turn(self) -> None:
        self._hub.drop_empty()
        metrics.feeds.set(len(self._hub))
        if self._hears():
            await self._look()
        else:
            self._pull()
            # Once Redis is heard, pulling continues until it has this event: Redis may have lost everything,
            # and the relay may come back later than we do.
            self._sources.behind, self._logged_behind = True, False
            self._due = await self._sources.newest_published()

    async def _wait(self, *, heard: bool) -> None:
        """Wait for the next round, which comes at once if Redis was lost or came back since the last one
        began.
        """
        try:
            async with asyncio.timeout(self._pause()):
                while self._hears() is heard:
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            pass

    def _pause(self) -> float:
        """Seconds to the next round."""
        if not self._sources.asks_redis:
            return self._pace.pull_seconds
        return max(self._pace.check_seconds, len(self._hub) / self._pace.checks_per_second)

    async def _look(self) -> None:
        """Check whether anything was missed, or whether Redis is behind as a whole."""
        try:
            behind = await self._compare()
        except (RedisError, OSError, TimeoutError) as error:
            # The subscription may still hear it: such a Redis delivers messages but refuses reads.
            behind = True
            if not self._logged_behind:
                logger.warning("redis can't be read", reason=str(error) or "no answer in time")
        self._note_behind(behind=behind)
        if behind:
            self._pull()
        self._due = await self._sources.newest_published()

    async def _compare(self) -> bool:
        """Request a repair of what Redis shows to be missing. Returns whether Redis itself lacks events."""
        newest = await self._sources.newest_in_redis()
        self.learn_epoch(newest.epoch)
        if newest < self._due:
            return True
        await self._check_heads()
        return False

    def _note_behind(self, *, behind: bool) -> None:
        """Log a change, once."""
        if behind and not self._logged_behind:
            logger.warning("redis lacks what the sender has published; events are pulled")
        if self._logged_behind and not behind:
            logger.info("redis has what the sender has published")
        self._sources.behind = self._logged_behind = behind

    async def _check_heads(self) -> None:
        metrics.pull_mode.set(0)
        feeds = [feed for feed in self._hub.feeds if not self._catch_up.is_repairing(feed)]
        for start in range(0, len(feeds), _CHANNELS_PER_PIPELINE):
            await self._check(feeds[start : start + _CHANNELS_PER_PIPELINE])
            await asyncio.sleep(self._pace.breath_seconds)

    async def _check(self, feeds: Sequence[Feed]) -> None:
        """Compare some feeds with their heads."""
        places = [feed.place for feed in feeds]
        heads = await self._sources.heads([feed.channel for feed in feeds])
        for feed, place, head in zip(feeds, places, heads, strict=True):
            # A quiet channel's head still shows the old epoch, so the head alone cannot reveal a new one.
            old = place is not None and place.epoch < self._sources.epoch
            out_of_place = _is_out_of_place(feed, place, head)
            feed.note_head(head)
            if old or out_of_place:
                self._catch_up.request(feed, "check")

    def learn_epoch(self, epoch: int) -> None:
        """The database went back: every earlier cursor must be judged anew, also in quiet channels."""
        if epoch <= self._sources.epoch:
            return
        self._sources.epoch = epoch
        for feed in self._hub.feeds:
            if feed.place is not None and feed.place.epoch < epoch:
                feed.forget_seen()
                self._catch_up.request(feed, "epoch")

    def _pull(self) -> None:
        metrics.pull_mode.set(1)
        for feed in self._hub.feeds:
            self._catch_up.request(feed, "pull")


def _is_out_of_place(feed: Feed, place: Place | None, head: Place | None) -> bool:
    """Compares the head with `place`, where the feed was when the head was asked for, and its place now."""
    at = feed.place
    if place is None or at is None:
        return True
    if head is None:  # Redis was emptied, or nothing was ever published; the history is asked which, once
        return not feed.headless
    return head > at or head < place or at < (feed.expected or place)
