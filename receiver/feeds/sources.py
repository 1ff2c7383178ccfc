"""What follows a place: from Redis' log if that can be trusted, else from the sender's history.

The log may be wrong: empty, trimmed, or of a Redis that lost its tail. `follows` decides, from the log alone,
whether it can be trusted; if not, the history is asked, which is always right.

One request asks for many connections and feeds of a gateway.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import RedisError

from receiver import metrics
from receiver.feeds.batch import Batch
from receiver.feeds.history import MAX_CHANNELS, Continuation, HistoryRefused, HistoryUnavailable
from shared.cursors import Cursor
from shared.errors import NeighbourError
from shared.extents import Extent
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.feeds.history import History
    from receiver.feeds.pace import Pace
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.redis.channel_log import Known, LogRead, LogReader

LOG_EVENTS = 200  # of one channel, in one read of its log
_LOG_CHANNELS = 200  # in one pipeline
_PIPELINE_EVENTS = 1_000  # in one pipeline; of 64 KiB at most each
_ROOMLESS = 100  # answers in a row without room; a batch has fewer channels that could fill one

Q = TypeVar("Q")
A = TypeVar("A")


class Unavailable(NeighbourError):
    """Neither the log nor the history could be read; trying again may help."""


def follows(place: Place, read: LogRead) -> Continuation | None:
    """What follows a place, if the log alone can show it; None if the history must be asked."""
    head, entries = read.head, read.entries
    if head is None or head.epoch != place.epoch:
        return None
    if not entries:
        return Continuation(place, (), head) if head == place else None
    contiguous = all(entry.place.seq == place.seq + n for n, entry in enumerate(entries, 1))
    return Continuation(place, entries, head) if contiguous else None


class Sources:
    """While Redis is not heard, or is `behind`, only the history is asked."""

    def __init__(self, log: LogReader, history: History, hears: Callable[[], bool], pace: Pace) -> None:
        self._log = log
        self._history = history
        self._hears = hears  # while Redis is not heard, waiting for its time-outs would only cause delays
        self._pace = pace
        self.epoch = 0  # the newest one known; only the history can judge older places
        self.behind = False  # Redis lacks events that were published
        of_redis = partial(Batch, limit=_LOG_CHANNELS, gather_seconds=pace.gather_seconds)
        self._log_reads: Batch[Cursor, LogRead | None] = of_redis(self._read_log)
        self._seen_reads: Batch[Channel, Extent | None] = of_redis(log.seen)
        self._history_reads: Batch[Channel | Cursor, Continuation | HistoryRefused] = Batch(
            self._read_history, limit=MAX_CHANNELS, gather_seconds=pace.gather_history_seconds
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for batch in (self._log_reads, self._seen_reads, self._history_reads):
                tasks.create_task(batch.run())

    @property
    def asks_redis(self) -> bool:
        return self._hears() and not self.behind

    async def read(self, channel: Channel, place: Place) -> Continuation:
        """What follows a place. Raises `Unavailable`."""
        if place.epoch < self.epoch:  # a quiet channel's log still shows that epoch
            return await self.read_history(channel, place)
        read = await self._ask_redis(self._log_reads, Cursor(channel, place))
        continuation = follows(place, read) if read else None
        return continuation or await self.read_history(channel, place)

    async def read_history(self, channel: Channel, place: Place) -> Continuation:
        """As `read`, from the history alone.

        An answer that reports events but contains none had no room left after those of other channels; it is
        asked for again.
        """
        for _ in range(_ROOMLESS):
            continuation = await self._ask_history(Cursor(channel, place))
            if not continuation.empty:
                return continuation
            await asyncio.sleep(self._pace.again_seconds)
        raise Unavailable("the history returns none of the events it reports")

    async def known(self, channels: Sequence[Channel]) -> list[Known]:
        """What Redis knows of some channels, in order; incomplete or empty if it can't be asked."""
        known: list[Known] = []
        try:
            while len(known) < len(channels) and self.asks_redis:
                known += await self._log.known(channels[len(known) : len(known) + _LOG_CHANNELS])
        except (RedisError, OSError, TimeoutError):
            pass  # the history is asked
        return known

    async def unseen(self, channels: Sequence[Channel]) -> list[Continuation | HistoryRefused]:
        """What the history has that customers have not seen, in order. Raises `Unavailable`."""
        try:
            return await self._history_reads.ask_all(channels)
        except HistoryUnavailable as error:
            raise Unavailable(str(error)) from error

    async def seen(self, channel: Channel, head: Place) -> Extent:
        """What a customer has seen of a channel whose head is `head`. Raises `Unavailable`."""
        seen = await self._ask_redis(self._seen_reads, channel)
        if seen is None or seen.last > head:  # what does not exist can't have been seen
            answer = await self._ask_history(channel)
            seen = answer.seen or Extent(answer.after)
        return seen

    async def heads(self, channels: Sequence[Channel]) -> list[Place | None]:
        """The channels' heads in Redis. Raises redis-py's errors and `TimeoutError`."""
        return await self._log.heads(channels)

    async def newest_in_redis(self) -> NewestEvent:
        """Raises redis-py's errors and `TimeoutError`."""
        return await self._log.newest()

    async def newest_published(self) -> NewestEvent:
        """The newest event that should be in Redis by now, as the sender reports; zeros if it does not
        answer.
        """
        try:
            async with asyncio.timeout(self._pace.newest_seconds):
                return await self._history.newest()
        except (HistoryUnavailable, TimeoutError):
            return NewestEvent(0, 0)

    async def _read_log(self, cursors: Sequence[Cursor]) -> Sequence[LogRead]:
        """The more channels are read, the fewer events each gets at once, so that one answer does not hold up
        the rest.
        """
        asked = [(cursor.channel, cursor.place.seq) for cursor in cursors]
        return await self._log.read(asked, limit=min(LOG_EVENTS, _PIPELINE_EVENTS // len(cursors)))

    async def _read_history(
        self, asked: Sequence[Channel | Cursor]
    ) -> Sequence[Continuation | HistoryRefused]:
        """One refused question must not cost the others their answers: it is found by bisection."""
        try:
            answers = await self._history.read(asked)
        except HistoryRefused as refusal:
            if len(asked) == 1:
                return [refusal]
            half = len(asked) // 2
            return [*await self._read_history(asked[:half]), *await self._read_history(asked[half:])]
        metrics.history_reads.inc(len(asked))
        return answers

    async def _ask_redis(self, batch: Batch[Q, A | None], question: Q) -> A | None:
        """None if Redis does not know, or is away."""
        if not self.asks_redis:
            return None
        try:
            return await batch.ask(question)
        except (RedisError, OSError, TimeoutError):
            return None

    async def _ask_history(self, asked: Channel | Cursor) -> Continuation:
        try:
            answer = await self._history_reads.ask(asked)
        except HistoryUnavailable as error:
            raise Unavailable(str(error)) from error
        if isinstance(answer, HistoryRefused):
            raise Unavailable(str(answer)) from answer
        return answer
