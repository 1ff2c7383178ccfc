"""The relay: takes events out of the outbox and gives them to Redis, in each channel's order.

It may crash, repeat itself and race with the relays of other senders: the publish script's answers make that
harmless (sender/publishing/publisher.py). So there is no lease that lets only one relay work at a time: it
would save the others' redundant publishing, but delay events until it expires whenever its holder dies.

A database that is an old copy (or a new one beside a Redis that knows the old) is recognised in three ways:
Redis knows a newer published event (`ob:generation`) than the database, an epoch newer than ours, or a head
beyond ours. In each case the log has an error and a new epoch begins: customers get a reset instead of
silence.

While Redis is away, the outbox grows and requests are served as before.

`sender.publishing.poison` handles events that can't be published.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from sender import metrics, outbox
from sender.database.errors import DatabaseError
from sender.generation import begin_epoch, current_epoch, has, lacking, newest
from sender.publishing.due import Due
from sender.publishing.floor import KnownFloor
from sender.publishing.ownership import Ownership
from sender.publishing.pace import USUAL
from sender.publishing.poison import PoisonSearch
from sender.publishing.publisher import Publisher
from sender.publishing.restored import leave_published
from sender.publishing.stops import Cause, Stops
from shared.process.ways import ways
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sender.database.protocol import Database
    from sender.outbox import Waiting
    from sender.publishing.pace import Pace
    from shared.redis.channel_log import LogWriter

logger = structlog.get_logger(__name__)

_RELEASE_SECONDS = 0.5
_REMEMBERED = 20_000  # publications, for `published_at`


class Relay:
    """Run by its owner as a task; `wake` it after each commit that recorded events."""

    def __init__(
        self,
        database: Database,
        log: LogWriter,
        clock: Callable[[], datetime],
        pace: Pace = USUAL,
    ) -> None:
        self._database = database
        self._log = self.log = log
        self._pace = pace
        self._publisher = Publisher(database, log, pace, self._note_answer)
        self._ownership = Ownership(database, log, pace)
        self.floor = KnownFloor(database)
        self.stops = Stops(database, clock)
        self._search = PoisonSearch(database, log, self._publisher, clock, pace, self.wake, self.stops)
        self._clock = clock
        self._woken = asyncio.Event()
        self._had_a_turn = asyncio.Event()
        self._stopping = False
        self._failures = 0
        self._database_failed = False  # the last failure was the database's, not Redis'
        self._looked = False  # into the outbox, since the start
        self._compared = False  # the database with Redis, since Redis was last away
        self._policy: str | None = None  # Redis' last known policy for full memory
        # Published and not yet marked, by position. Losing it costs a few duplicates, which Redis refuses.
        self._unmarked: dict[int, NewestEvent] = {}
        self._published_at: dict[int, datetime] = {}
        # Those of them that cannot be marked yet, because another transaction has locked their rows.
        self._held: frozenset[int] = frozenset()
        self._due = Due(pace.late_seconds)
        self._mark_at = math.inf
        self._loop = asyncio.get_running_loop()
        self._last_turn = self._loop.time()
        self.redis_up: bool | None = None  # None before the first exchange with it

    @property
    def alive(self) -> bool:
        return self._loop.time() - self._last_turn < self._pace.dead_seconds

    async def installation(self) -> str:
        """The id of the database."""
        return await self._ownership.identify()

    @property
    def contested(self) -> bool:
        """Another installation holds the names in Redis, so nothing is published."""
        return self._ownership.contested

    @property
    def publishes(self) -> bool:
        return self.redis_up is True and not self.contested

    @property
    def newest(self) -> NewestEvent:
        """The newest event that is in Redis, or should be by now, as far as this sender knows."""
        return self._due.newest

    def published_at(self, position: int) -> datetime | None:
        """When this sender published the event; it remembers the last 20,000 or more since its start."""
        return self._published_at.get(position)

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """Make `run` return after one more look into the outbox."""
        self._stopping = True
        self._woken.set()

    async def wait_for_first_turn(self, seconds: float) -> None:
        """Until the database was compared with Redis once, if both answer in that time.

        What is recorded before that in a restored database belongs to the epoch that is about to end.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._had_a_turn.wait()

    async def run(self) -> None:
        self._ownership.begin()
        try:
            await self._run()
        finally:
            with contextlib.suppress(RedisError, OSError, DatabaseError, TimeoutError):
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._ownership.release()

    async def _run(self) -> None:
        while True:
            stopping = self._stopping  # read before the last look, not after it
            self._last_turn = self._loop.time()
            self._woken.clear()
            self.stops.turn_begins()
            more = await self._try_batch()
            self._had_a_turn.set()
            if stopping and not more:
                return
            if not more:
                await self._wait()

    async def _try_batch(self) -> bool:
        """Publish a batch; returns whether there is more to do at once."""
        try:
            more = await self._relay_batch()
        except (RedisError, OSError) as error:
            self._compared = self._database_failed = False
            reason = str(error) or type(error).__name__
            self._note_redis(up=False, reason=reason)
            self.stops.begin(Cause.REDIS, reason)
        except DatabaseError as error:
            self._compared = False  # it may be another database when it is back
            self.floor.forget()
            self.stops.begin(Cause.DATABASE, "")
            self._database_failed = True
            if not self._failures:
                logger.warning("the relay cannot use the database", reason=str(error))
        else:
            self._failures = 0
            # Only now, when all of it is done: a full Redis answers but accepts nothing.
            self._note_redis(up=True)
            self.stops.turn_ends_well()
            return more or self.stops.unkept
        self._failures += 1
        return False

    async def _wait(self) -> None:
        """Wait until woken; after failures, for a time that grows with each."""
        if self._failures and not self._database_failed and not self._stopping:
            await asyncio.sleep(self._pace.backoff(self._failures))
            return
        try:
            async with asyncio.timeout(self._longest_wait()):
                # Also while the database is away: a wake-up follows a commit, so the database is back.
                await self._woken.wait()
        except TimeoutError:
            pass

    def _longest_wait(self) -> float:
        if self._failures:
            return self._pace.backoff(self._failures)
        return self._search.seconds_to_next(
            self._pace.mark_seconds if self._unmarked else self._pace.poll_seconds
        )

    async def _relay_batch(self) -> bool:
        await self.stops.keep()
        waiting = await self._read_outbox()
        if waiting and waiting[0].recorded_at and not self._looked:
            self.stops.waited_before(datetime.fromisoformat(waiting[0].recorded_at))
        self._looked = True
        faulty = [event.position for event in waiting if event.fault]
        buried = bool(faulty) and await self._search.give_up(faulty)
        await self._ownership.hold()
        if self.floor.moved:  # behind a pooler, no error says so
            self._compared = self.floor.moved = False
        if self._ownership.inherits or not self._compared:
            await self._compare()
            waiting = await self._read_outbox()
        if not waiting:
            await self._mark_in_time()
            await self._note_newest()
            await self.floor.raise_in_time()
            return False
        published, newer = await self._search.publish(waiting)
        self._note_published(published)
        if newer is not None:
            await self._renew_epoch(newer)  # the events are read again at the next poll
            return False
        await self._mark_in_time()
        await self.floor.raise_in_time()
        return buried or (len(waiting) >= self._pace.batch and bool(published))

    async def _read_outbox(self) -> list[Waiting]:
        """The events to publish now."""
        limit = self._pace.batch + len(self._unmarked)
        work = partial(
            outbox.unpublished,
            limit=limit,
            floor=self.floor.now,
            but=self._search.later,
            known=self._unmarked,
        )
        waiting = await self._database.read(work)
        if not waiting:
            self._due.nothing_waits()
        elif self._due.awaits_report:
            more = len(waiting) >= self._pace.batch
            self._due.events_wait(await self._database.read(newest) if more else _generation(waiting[-1]))
        return waiting

    def _note_published(self, published: Sequence[Waiting]) -> None:
        if published and not self._unmarked:
            self._mark_at = self._loop.time() + self._pace.mark_seconds
        self._unmarked |= {event.position: _generation(event) for event in published}
        now = self._clock()
        self._published_at |= dict.fromkeys([event.position for event in published], now)
        if len(self._published_at) > 2 * _REMEMBERED:
            self._published_at = dict(islice(self._published_at.items(), _REMEMBERED, None))
        metrics.note_published(published, now=now)
        if ways.noted:
            for event in published:
                ways.note(
                    "event published",
                    event.entry.text,
                    recorded_at=event.recorded_at,
                    sender=self.stops.sender,
                )

    async def _mark_in_time(self) -> None:
        if self._stopping or len(self._unmarked) >= self._pace.batch or self._loop.time() >= self._mark_at:
            await self._mark()

    async def _mark(self) -> None:
        """Record in the database and in Redis what was published."""
        if self._unmarked:
            published = list(self._unmarked.values())
            work = partial(outbox.mark_published, published=published)
            self._held = await self._database.write(work)
            self._unmarked = {at: event for at, event in self._unmarked.items() if at in self._held}
            self._due.published = max(self._due.published, *published)
            await self._log.advance(self._due.published)
        self._mark_at = self._loop.time() + self._pace.poll_seconds if self._held else math.inf

    async def _note_newest(self) -> None:
        """Repeated about every second: gateways rely on it, and Redis may have lost it."""
        if self._unmarked.keys() <= self._held:
            await self._log.advance(self._due.published)

    async def _compare(self) -> None:
        """Find out whether Redis knows events that the database does not."""
        known = await self._log.advance(NewestEvent(0, 0))
        await self._warn_of_eviction()
        gone = await self._forget_what_is_gone()
        # Read the database second: other senders record events meanwhile.
        if self._ownership.inherits:  # the other may have published more than it noted
            await self._renew_epoch(max(known.epoch, await self._database.read(current_epoch)))
            await self._log.advance(await self._database.read(newest))
        elif not (there := await self._database.read(partial(has, known=known))) or gone:
            # Where only our own are missing, another sender may have begun the epoch that follows theirs.
            epochs = [event.epoch for event in gone] + ([] if there else [known.epoch])
            await self._renew_epoch(max(epochs))
            await self._log.advance(await self._database.read(newest))  # notifies the gateways, too
        await self._ownership.settle()
        self._compared = True

    async def _forget_what_is_gone(self) -> list[NewestEvent]:
        """What we published last and the database no longer has.

        Redis' note of the newest event does not include it yet. Its positions may be other events' by now,
        which wait, so it must not be marked.
        """
        if not self._unmarked:
            return []
        gone = await self._database.read(partial(lacking, published=list(self._unmarked.values())))
        for event in gone:
            self._unmarked.pop(event.position, None)
        return gone

    async def _warn_of_eviction(self) -> None:
        """Evicted events are not lost, but every gateway has to read them from the database."""
        policy = await self._log.maxmemory_policy()
        if policy not in (None, "noeviction", self._policy):
            logger.warning("redis may evict events; maxmemory-policy should be noeviction", policy=policy)
        self._policy = policy

    def _note_answer(self) -> None:
        self._last_turn = self._loop.time()

    def _note_redis(self, *, up: bool, reason: str = "") -> None:
        """Log a change of state, once."""
        if up is not self.redis_up:
            self.redis_up = up
            metrics.redis_up.set(up)
            if up:
                logger.info("redis takes events")
            else:
                logger.warning("redis takes no events; they wait in the outbox", reason=reason)

    async def _renew_epoch(self, known: int) -> None:
        """Make the database's epoch newer than the one that Redis knows, unless it is already."""
        if await self._database.read(current_epoch) > known:
            return
        await self._mark()  # what then is still in the outbox moves into the new epoch
        if left := await leave_published(self._database, self._log.reader):
            logger.info(
                "the outbox had events that were already published; they are not published again", count=left
            )
        new = await self._database.write(partial(begin_epoch, after=known))
        metrics.epoch_changes.inc()
        logger.error("the database went back: redis knows newer events; a new epoch begins", epoch=new)


def _generation(event: Waiting) -> NewestEvent:
    return NewestEvent(event.entry.place.epoch, event.position, event.identity)
