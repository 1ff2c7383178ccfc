"""A database, a log and live messages that lose, delay and forget as a seed says."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from receiver.connections.connection import Connection, End
from receiver.feeds.catch_up import CatchUp
from receiver.feeds.history import Continuation, History, HistoryUnavailable
from receiver.feeds.hub import Hub
from receiver.feeds.pace import Pace
from receiver.feeds.rounds import Rounds
from receiver.feeds.sources import Sources, Unavailable
from shared.channels import Channel, customer_channel
from shared.cursors import Cursor, Place
from shared.events import Entry
from shared.redis.channel_log import Known, LogRead, LogReader, NewestEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from receiver.connections.notices import Notice
    from receiver.feeds.feed import Feed
    from shared.extents import Extent

ALICE, BOB = customer_channel("alice"), customer_channel("bob")


def entries(seqs: Iterable[int], epoch: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(Place(epoch, seq), b'{"seq":%d}' % seq) for seq in seqs)


# Nothing waits for a clock, so that a seed always gives the same run.
STILL = Pace(gather_seconds=0, gather_history_seconds=0, again_seconds=0)


class World:
    """A database that is always right, a log that may be wrong, and live messages that may be lost."""

    def __init__(self, seed: int, pace: Pace = STILL) -> None:
        self.pace = pace
        self.random = random.Random(seed)
        self.epoch = 1
        self.database = 0  # the newest seq that is committed
        self.pruned = 0
        self.log: list[int] = []
        self.head = 0  # 0: Redis knows none
        self.seen: Extent | None = None  # by Redis; by the database, nothing is
        self.log_epoch: int | None = None  # if it is not the database's
        self.published = self.noted = 0  # what the sender reports of its Redis, and what ours shows
        self.looks = 0
        self._redis_up = True
        self.sender_up = True
        self.hub = Hub(lambda channel: None, lambda channels: None)
        self.build(WorldLog(self), WorldHistory(self))
        self._in_flight: list[Entry] = []

    def build(self, log: WorldLog, history: WorldHistory) -> None:
        """The objects under test, on these sources."""
        self.sources = Sources(log, history, lambda: self.redis_up, self.pace)
        self.catch_up = CatchUp(self.sources)
        self.rounds = Rounds(self.hub, self.sources, self.catch_up, lambda: self.redis_up, self.pace)

    def run(self, running: list[asyncio.Task[None]]) -> None:
        parts = (self.sources, self.catch_up, self.rounds)
        running += [asyncio.create_task(part.run()) for part in parts]

    @property
    def redis_up(self) -> bool:
        return self._redis_up

    @redis_up.setter
    def redis_up(self, up: bool) -> None:
        self._redis_up = up
        self.rounds.wake()

    async def pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    def complete_an_order(self) -> None:
        """Commit, then publish as the relay does: in order, and refilled where the log has lost something."""
        self.database += 1
        if self.redis_up:
            self.log += range((self.head or self.database - 1) + 1, self.database + 1)
            self.head = self.database
            if self.random.random() < 0.8:  # else the live message is lost
                self._in_flight += entries([self.database], self.epoch)

    def deliver_live(self) -> None:
        messages, self._in_flight = self._in_flight, []
        for feed in self.hub.feeds:
            for message in messages:
                if not feed.hear(message):
                    self.catch_up.request(feed, "gap")

    def misbehave(self) -> None:
        fault = self.random.randrange(12)
        if fault == 0:
            self.log, self.head = [], 0  # FLUSHALL
        elif fault == 1:
            self.log = self.log[-2:]  # trimmed
        elif fault == 2 and self.head > 3:
            self.head -= 2  # a fail-over that lost the tail
            self.log = [seq for seq in self.log if seq <= self.head]
        elif fault == 3:
            self.redis_up = not self.redis_up
        elif fault == 4:
            self.sender_up = not self.sender_up


class WorldLog(LogReader):
    def __init__(self, world: World) -> None:
        self._world = world

    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        return [read.head for read in await self.read([(channel, 0) for channel in channels], limit=0)]

    async def known(self, channels: Sequence[Channel]) -> list[Known]:
        return [Known(head, self._world.seen) for head in await self.heads(channels)]

    async def seen(self, channels: Sequence[Channel]) -> list[Extent | None]:
        return [self._world.seen for _ in channels]

    async def newest(self) -> NewestEvent:
        self._world.looks += 1
        return NewestEvent(self._world.epoch, self._world.noted)

    async def read(self, channels: Sequence[tuple[Channel, int]], *, limit: int) -> list[LogRead]:
        world = self._world
        await world.pause()
        if not world.redis_up:
            raise RedisConnectionError("away")
        epoch = world.log_epoch or world.epoch
        head = Place(epoch, world.head) if world.head else None
        reads = [
            LogRead(head, entries([s for s in world.log if s > after][:limit], epoch) if head else ())
            for _, after in channels
        ]
        await world.pause()
        return reads


class WorldHistory(History):
    def __init__(self, world: World) -> None:
        self._world = world

    async def read(self, asked: Sequence[Channel | Cursor], *, limit: int = 3) -> list[Continuation]:
        world = self._world
        await world.pause()
        if not world.sender_up:
            raise HistoryUnavailable("away")
        found = [self._find(one.place if isinstance(one, Cursor) else Place(world.epoch, 0)) for one in asked]
        await world.pause()
        return found

    async def newest(self) -> NewestEvent:
        if not self._world.sender_up:
            raise HistoryUnavailable("away")
        return NewestEvent(self._world.epoch, self._world.published)

    def _find(self, after: Place) -> Continuation:
        world = self._world
        head = Place(world.epoch, world.database)
        if after.epoch != world.epoch:
            return Continuation(after, (), head, "epoch")
        if after.seq > world.database:
            return Continuation(after, (), head, "future")
        if after.seq < world.pruned:
            return Continuation(after, (), head, "pruned")
        last = min(world.database, after.seq + 3)
        return Continuation(after, entries(range(after.seq + 1, last + 1), world.epoch), head)


class Browser(Connection):
    """A connection that remembers what it was given."""

    transport = "test"

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.start = place
        self.seqs: list[int] = []
        self.notices: list[Notice] = []
        self.writes: list[int] = []  # how many events each had

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        self.deliver_all(channel, [Entry(place, text)])

    def deliver_all(self, channel: Channel, entries: Sequence[Entry]) -> None:
        self.writes.append(len(entries))
        for place, text in entries:
            assert msgspec.json.decode(text)["seq"] == place.seq
            self.seqs.append(place.seq)

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)

    def beat(self, now: float) -> None: ...

    def end(self, end: End, reason: str) -> None:
        self.closed = True

    async def wait_writable(self) -> None:
        await asyncio.sleep(0)

    async def connect(self, world: World, feed: Feed) -> None:
        """Join, and try again as a browser would, which comes back with its cursor."""
        while True:
            place = Place(world.epoch, self.seqs[-1]) if self.seqs else self.start
            try:
                await world.catch_up.join(self, feed, place)
                return
            except Unavailable:
                await asyncio.sleep(0)


async def start(world: World, running: list[asyncio.Task[None]]) -> Feed:
    world.run(running)
    await asyncio.sleep(0)
    feed = world.hub.enter(ALICE)
    feed.establish(Place(world.epoch, world.database))
    return feed
