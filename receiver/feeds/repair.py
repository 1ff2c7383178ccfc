"""Keeps every feed in place: after a subscription, after a gap, and by looking regularly.

A feed can miss an event without any gap being heard: the last event before a quiet hour, or everything
while Redis was away. So the heads of all feeds are compared with their places every few seconds, in
pipelines. While Redis is away the sender is asked instead, more often: pull mode.

A Redis that answers may still be the wrong one: after a split, say, the senders publish into one and we look
into the other, where nothing moves and nothing is missing. Or no sender can reach it. So with each check the
sender is asked, too, what is the newest event that should be in Redis; if that is not in ours at the next
check, seconds later, it is pull mode until it is. The same holds for a Redis that we hear, and that refuses
to be read. Such a gateway stays ready: it serves a second late, and whether another would do better it can't
know. If all are behind, which is what a sender cut off from Redis looks like, to take all of them out of the
balancer would turn late alerts into none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from receiver import metrics
from receiver.connections import notices
from receiver.feeds.catch_up import CatchUp, Unavailable
from receiver.feeds.hub import Repairing
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.feeds.hub import Feed, Hub
    from shared.cursors import Place
    from shared.redis.channel_log import LogReader

CHECK_SECONDS = 3.0
PULL_SECONDS = 1.0
CHECKS_PER_SECOND = 1_000  # heads; with more than 3,000 feeds a round takes longer, and its cost stays
_CHANNELS_PER_PIPELINE = 100
_BREATH_SECONDS = 0.01  # between two pipelines: nobody's event waits behind a whole round

_NOTHING = NewestEvent(0, 0)

logger = structlog.get_logger(__name__)


class Repair:
    """Runs repairs, one at a time for each feed, all feeds side by side."""

    def __init__(self, hub: Hub, catch_up: CatchUp, log: LogReader, hears: Callable[[], bool]) -> None:
        self._hub = hub
        self._catch_up = catch_up
        self._log = log
        self._hears = hears
        self._due = _NOTHING  # the newest event that should have been in Redis when last we asked
        self._new: list[Feed] = []  # that wait for their first place
        self._told_behind = False  # in the log, since Redis was last lost
        self._woken = asyncio.Event()
        self._tasks: asyncio.TaskGroup
        self._ended = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            try:
                while True:
                    heard = self._hears()  # a loss during the round is one, too
                    await self._turn()
                    await self._wait(heard=heard)
            finally:
                self._ended = True

    def wake(self) -> None:
        """Whether Redis is heard may have changed."""
        self._woken.set()

    async def _turn(self) -> None:
        self._hub.drop_empty()
        metrics.feeds.set(len(self._hub))
        if self._hears():
            await self._look()
        else:
            self._pull()
            # Once it is heard, pulling goes on until it has this: it may have lost everything, and the relay
            # comes back when it comes.
            self._catch_up.behind, self._told_behind = True, False
            self._due = await self._catch_up.newest()

    async def _wait(self, *, heard: bool) -> None:
        """Until the next round, which comes at once when Redis was lost since the last began, or is back."""
        try:
            async with asyncio.timeout(self._pause()):
                while self._hears() is heard:
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            pass

    def _pause(self) -> float:
        """Seconds to the next round."""
        pulling = self._catch_up.behind or not self._hears()
        return PULL_SECONDS if pulling else max(CHECK_SECONDS, len(self._hub) / CHECKS_PER_SECOND)

    async def _look(self) -> None:
        """Look whether anything was missed, or everything is."""
        try:
            behind = await self._compare()
        except (RedisError, OSError, TimeoutError) as error:
            behind = True  # the subscription may hear it all the same: it passes on, and refuses to be read
            if not self._told_behind:
                logger.warning("redis can't be read", why=str(error) or "no answer in time")
        self._note_behind(behind=behind)
        if self._catch_up.behind:
            self._pull()
        self._due = await self._catch_up.newest()

    async def _compare(self) -> bool:
        """Request the repair of what Redis shows to be missing; whether it lacks things itself."""
        newest = await self._log.newest()
        self.learn_epoch(newest.epoch)
        if newest < self._due:
            return True
        await self._check_heads()
        return False

    def _note_behind(self, *, behind: bool) -> None:
        """Log a change, once."""
        if behind and not self._told_behind:
            logger.warning("redis does not say what the sender has published; events are pulled")
        if self._told_behind and not behind:
            logger.info("redis has what the sender has published")
        self._catch_up.behind = self._told_behind = behind

    def request(self, feed: Feed, cause: str) -> None:
        """Repair a feed soon, with what is read from now on. Redis may say something until the very end."""
        if self._ended:
            return
        if feed.repair is not Repairing.NO:
            feed.repair = Repairing.AGAIN
            return
        feed.repair = Repairing.YES
        metrics.repairs.labels(cause).inc()
        if feed.place is not None:
            self._tasks.create_task(self._repair(feed))
            return
        if not self._new:
            asyncio.get_running_loop().call_soon(self._establish_new)
        self._new.append(feed)

    def _establish_new(self) -> None:
        """All whose subscription was confirmed by one read: a crowd's channels cost one task together."""
        feeds, self._new = self._new, []
        if not self._ended:
            self._tasks.create_task(self._establish(feeds))

    async def _establish(self, feeds: Sequence[Feed]) -> None:
        try:
            await self._catch_up.establish(feeds)
        except Unavailable as error:
            logger.debug("some channels' places must wait", why=str(error))
        except Exception:  # every connection hangs on the same tasks
            logger.exception("some channels' places can't be told")
        for feed in feeds:
            again, feed.repair = feed.repair is Repairing.AGAIN, Repairing.NO
            if feed.place is None:
                feed.headless = False  # it will be asked for again
            elif again:
                feed.repair = Repairing.YES
                self._tasks.create_task(self._repair(feed))
            else:
                _settle_claim(feed)

    async def _repair(self, feed: Feed) -> None:
        try:
            while feed.repair is not Repairing.NO:
                feed.repair = Repairing.YES
                await self._catch_up.repair(feed)
                if feed.repair is Repairing.YES:
                    feed.repair = Repairing.NO
                    _settle_claim(feed)
        except Unavailable as error:
            logger.debug("repair must wait", channel=feed.channel, why=str(error))
            feed.headless = False  # it will be asked for again
        except Exception:  # of one feed: all others, and every connection, hang on the same tasks
            logger.exception("a feed could not be repaired", channel=feed.channel)
        finally:
            feed.repair = Repairing.NO

    async def _check_heads(self) -> None:
        metrics.pull_mode.set(0)
        feeds = [feed for feed in self._hub.feeds if feed.repair is Repairing.NO]
        for start in range(0, len(feeds), _CHANNELS_PER_PIPELINE):
            await self._check(feeds[start : start + _CHANNELS_PER_PIPELINE])
            await asyncio.sleep(_BREATH_SECONDS)

    async def _check(self, feeds: Sequence[Feed]) -> None:
        """Compare some feeds with their heads."""
        places = [feed.place for feed in feeds]
        heads = await self._log.heads([feed.channel for feed in feeds])
        for feed, place, head in zip(feeds, places, heads, strict=True):
            # By a quiet channel's head, which stays, nothing has changed where a new epoch began.
            old = place is not None and place.epoch < self._catch_up.epoch
            if old or _is_out_of_place(feed, place, head):
                self.request(feed, "check")

    def learn_epoch(self, epoch: int) -> None:
        """The database went back: every cursor of before must be judged anew, of quiet channels too."""
        if epoch <= self._catch_up.epoch:
            return
        self._catch_up.epoch = epoch
        for feed in self._hub.feeds:
            if feed.place is not None and feed.place.epoch < epoch:
                feed.seen = None
                self.request(feed, "epoch")

    def _pull(self) -> None:
        metrics.pull_mode.set(1)
        for feed in self._hub.feeds:
            self.request(feed, "pull")


def _settle_claim(feed: Feed) -> None:
    """All there is was handed over: what is claimed to be seen is, or nobody of ours has said so."""
    place, feed.claimed = feed.claimed, None
    if place is not None and not feed.see(place, notices.seen(feed.channel, place)):
        feed.claimed = None
        metrics.foreign.inc()


def _is_out_of_place(feed: Feed, place: Place | None, head: Place | None) -> bool:
    """Compares with `place`, where the feed was when the head was asked for, and with where it is now."""
    at = feed.place
    if place is None or at is None:
        return True
    asked, feed.headless = feed.headless, head is None
    if head is None:  # emptied, or nothing was ever published; only the history knows which, and only once
        return not asked
    return head > at or head < place or at < (feed.heard or place)
