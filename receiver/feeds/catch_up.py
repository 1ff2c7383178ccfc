"""From "the last event I had" to live events: in order, without gap or repeat.

Two things fall behind and are caught up in the same way. A connection that has just come, from its
cursor to its feed's place; then it joins those who are live. And a feed that missed live messages, or
can't know whether it did, from its place to the channel's head; then everyone live in it is in place.

It rests on this order: **subscribe first, read second, compare places last**. A feed is subscribed
before anything is read, so what is published after the reading is heard; what was published before is
in the log, because the publish script appends and publishes in one step; and what the log does not have
the sender's history has, because an event is committed before it is published. Both sources are read
after a place and give what follows it without a gap, so no buffer of live events is needed: reading
goes on until the places are equal, and between that comparison and joining nothing is awaited.

The log may lie: it may be empty, trimmed, or of a Redis that lost its tail. `follows` decides, from the
log alone, whether it can be believed; wherever it can't, the history is asked, which can.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from redis.exceptions import RedisError

from receiver import metrics
from receiver.connections import notices
from receiver.feeds.batch import Batch
from receiver.feeds.history import MAX_CHANNELS, Found, HistoryRefused, HistoryUnavailable
from shared.channels import is_private
from shared.cursors import Cursor, Place
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from receiver.feeds.history import History
    from receiver.feeds.hub import Feed
    from receiver.transports.websocket.connection import Connection
    from shared.channels import Channel
    from shared.redis.channel_log import Entry, Known, LogRead, LogReader

LOG_EVENTS = 200  # of one channel, in one look at its log
_LOG_CHANNELS = 200  # in one pipeline
_PIPELINE_EVENTS = 1_000  # in one pipeline; of 64 KiB at most each
_PIECE_BYTES = 64 * 1024  # to one connection at a time; then it has to read
_ROOMLESS = 100  # answers of the history in a row; more than a batch has channels that fill one
_AGAIN_SECONDS = 0.05
_NEWEST_SECONDS = 1.0  # for the sender to say what is newest: the regular check waits for it
# A crowd's questions. A request costs as much as some hundred questions in one, so they wait for company: for
# a fraction of what the crowd takes anyway. An HTTP request costs ten times what a pipeline does.
_GATHER_SECONDS = 0.005
_GATHER_HISTORY_SECONDS = 0.05

Q = TypeVar("Q")
A = TypeVar("A")

logger = structlog.get_logger(__name__)


class Unavailable(Exception):
    """Neither the log nor the history could say what follows; either may soon."""


def follows(place: Place, read: LogRead) -> Found | None:
    """What follows a place, if the log alone can tell; None where the history must be asked."""
    head, entries = read.head, read.entries
    if head is None or head.epoch != place.epoch:
        return None
    if not entries:
        return Found(place, (), head) if head == place else None
    contiguous = all(entry.place.seq == place.seq + n for n, entry in enumerate(entries, 1))
    return Found(place, entries, head) if contiguous else None


def _short(feed: Feed, found: Found) -> bool:
    """Whether a live message told of more than was found. A feed moves on while it is being repaired."""
    reached = max(found.head, feed.place or found.head)
    return any(told is not None and told > reached for told in (feed.heard, feed.claimed))


def _pieces(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """What is written at once: a system call for a few events, and no event more once that is enough."""
    piece, size = [], 0
    for entry in entries:
        piece.append(entry)
        size += len(entry.text)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _establish(feed: Feed, head: Place, seen: Place | None) -> None:
    """With one object for both where they are equal: most customers have seen all there is."""
    feed.establish(head, head if seen == head else seen)


class CatchUp:
    """Reads what was missed, for all connections and feeds of a gateway, many in one request."""

    def __init__(self, log: LogReader, history: History, hears: Callable[[], bool]) -> None:
        self._log = log
        self._hears = hears  # while Redis is not heard, waiting for its time-outs would only delay
        self._history = history
        self.epoch = 0  # the newest that was heard of; what is older is for the history to judge
        self.behind = False  # Redis lacks what was published: then it is not asked, as if it were not heard
        of_redis = partial(Batch, limit=_LOG_CHANNELS, gather_seconds=_GATHER_SECONDS)
        self._log_reads: Batch[Cursor, LogRead | None] = of_redis(self._read_log)
        self._seen: Batch[Channel, Place | None] = of_redis(log.seen)
        self._history_reads: Batch[Channel | Cursor, Found | HistoryRefused] = Batch(
            self._read_history, limit=MAX_CHANNELS, gather_seconds=_GATHER_HISTORY_SECONDS
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for batch in (self._log_reads, self._history_reads, self._seen):
                tasks.create_task(batch.run())

    async def read(self, channel: Channel, place: Place) -> Found:
        """What follows a place. Raises `Unavailable`."""
        if place.epoch < self.epoch:  # the log of a quiet channel is still of that epoch
            return await self._read_from_history(Cursor(channel, place))
        read = await self._ask_redis(self._log_reads, Cursor(channel, place))
        found = follows(place, read) if read else None
        return found or await self._read_from_history(Cursor(channel, place))

    async def establish(self, feeds: Sequence[Feed]) -> None:
        """Give feeds their first places. Raises `Unavailable` where some got none."""
        answers = await self._ask_known(feeds)
        unknown = list(feeds[len(answers) :])
        for feed, (head, seen) in zip(feeds, answers, strict=False):
            feed.headless = head is None
            if head is None or head.epoch < self.epoch or (seen is not None and seen > head):
                unknown.append(feed)
            else:
                _establish(feed, head, seen)
        if unknown:
            await self._establish_from_history(unknown)

    async def _establish_from_history(self, feeds: Sequence[Feed]) -> None:
        try:
            answers = await self._history_reads.ask_all([feed.channel for feed in feeds])
        except HistoryUnavailable as error:
            raise Unavailable(str(error)) from error
        refusal = None
        for feed, found in zip(feeds, answers, strict=True):
            if isinstance(found, HistoryRefused):
                refusal = found
            else:
                _establish(feed, found.head, found.after)
        if refusal is not None:
            raise Unavailable(str(refusal))

    async def _ask_known(self, feeds: Sequence[Feed]) -> list[Known]:
        """What Redis knows of their channels, in order; of fewer, or none, where it can't be asked."""
        known: list[Known] = []
        try:
            while len(known) < len(feeds) and self._hears() and not self.behind:
                some = feeds[len(known) : len(known) + _LOG_CHANNELS]
                known += await self._log.known([feed.channel for feed in some])
        except (RedisError, OSError, TimeoutError):
            pass  # the history is asked
        return known

    async def start(self, feed: Feed, cursor: Place | None) -> Place:
        """Where a connection starts in a feed that is established. Raises `Unavailable`."""
        assert feed.place is not None
        if cursor is not None or not is_private(feed.channel):
            return cursor or feed.place
        if feed.seen is None:
            seen = await self._ask_redis(self._seen, feed.channel)
            if (
                seen is None or seen > feed.place
            ):  # nobody can have seen what is not there: one of them is wrong
                seen = (await self._ask_history(feed.channel)).after
            return feed.note_seen(seen)
        return feed.seen

    async def join(self, connection: Connection, feed: Feed, place: Place) -> None:
        """Bring a connection from its place to the feed's, and make it live. Raises `Unavailable`."""
        while not connection.closed:
            if place == feed.place:
                feed.join(connection)
                return
            found = await self.read(feed.channel, place)
            if found.complete and feed.place is not None and found.head < feed.place:
                # The log ends before what the feed has, so Redis has lost its tail. The history hasn't.
                found = await self._read_from_history(Cursor(feed.channel, place))
            if found.reset:
                metrics.resets.labels(found.reset).inc()
                connection.tell(notices.reset(feed.channel, found.head, found.reset))
                place = found.head
            for piece in _pieces(found.entries):
                connection.tell(*(entry.text for entry in piece))
                place = piece[-1].place
                await connection.wait_writable()
            if found.complete and not found.entries and place != feed.place:
                await self._align(feed, place)

    async def _align(self, feed: Feed, place: Place) -> None:
        """A connection has read all there is and its feed is elsewhere: one of the two was misled."""
        before = feed.place
        feed.expect(place)
        await self.repair(feed)
        if feed.place == before and feed.place != place:
            raise Unavailable(
                f"{feed.channel}: the feed is at {before}, all that can be read ends at {place}"
            )

    async def repair(self, feed: Feed) -> None:
        """Bring a feed to its channel's head, handing over what was missed. Raises `Unavailable`.

        Several may do so at once, and live events come meanwhile: each hands over only what is the next.
        """
        while (place := feed.place) is not None:
            found = await self.read(feed.channel, place)
            if found.complete and _short(feed, found):
                # The log ends before what was heard, so Redis has lost its tail. The history hasn't.
                found = await self._read_from_history(Cursor(feed.channel, place))
            if found.reset and feed.place == place:
                metrics.resets.labels(found.reset).inc()
                feed.reset(found.head, notices.reset(feed.channel, found.head, found.reset))
            for entry in found.entries:
                if feed.place == Place(entry.place.epoch, entry.place.seq - 1):
                    feed.deliver(*entry)
            if found.complete:
                self._forget_what_never_was(feed, found)
                return

    def _forget_what_never_was(self, feed: Feed, found: Found) -> None:
        if _short(feed, found):
            logger.warning("heard of an event that was never committed", channel=feed.channel)
            feed.heard = feed.place

    async def newest(self) -> NewestEvent:
        """The newest event that should be in Redis by now; zeros where the sender can't say."""
        try:
            async with asyncio.timeout(_NEWEST_SECONDS):
                return await self._history.newest()
        except (HistoryUnavailable, TimeoutError):
            return NewestEvent(0, 0)

    async def _read_log(self, cursors: Sequence[Cursor]) -> Sequence[LogRead]:
        """The more ask, the fewer events each gets at a time: one answer must not hold up all others."""
        asked = [(cursor.channel, cursor.place.seq) for cursor in cursors]
        return await self._log.read(asked, limit=min(LOG_EVENTS, _PIPELINE_EVENTS // len(cursors)))

    async def _read_history(self, asked: Sequence[Channel | Cursor]) -> Sequence[Found | HistoryRefused]:
        """One that the sender refuses must not spoil the others' answers: it is looked for by halves."""
        try:
            found = await self._history.read(asked)
        except HistoryRefused as refusal:
            if len(asked) == 1:
                return [refusal]
            half = len(asked) // 2
            return [*await self._read_history(asked[:half]), *await self._read_history(asked[half:])]
        metrics.history_reads.inc(len(asked))
        return found

    async def _ask_redis(self, batch: Batch[Q, A | None], question: Q) -> A | None:
        """None where Redis does not know, or is not there to be asked."""
        if self.behind or not self._hears():
            return None
        try:
            return await batch.ask(question)
        except (RedisError, OSError, TimeoutError):
            return None

    async def _read_from_history(self, cursor: Cursor) -> Found:
        """An answer without any event of what is there had no room: others' filled it. Then again."""
        for _ in range(_ROOMLESS):
            found = await self._ask_history(cursor)
            if not found.empty:
                return found
            await asyncio.sleep(_AGAIN_SECONDS)
        raise Unavailable(f"{cursor.channel}: the history gives nothing of what is there")

    async def _ask_history(self, asked: Channel | Cursor) -> Found:
        try:
            found = await self._history_reads.ask(asked)
        except HistoryUnavailable as error:
            raise Unavailable(str(error)) from error
        if isinstance(found, HistoryRefused):
            raise Unavailable(str(found)) from found
        return found
