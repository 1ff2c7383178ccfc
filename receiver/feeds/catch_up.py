"""From "the last event I had" to live events: in order, without gap or repeat.

Two things are caught up in the same way. A new connection, from its cursor to its feed's place; then it joins
the live ones. And a feed that missed live messages, or can't know whether it did, from its place to the
channel's head; with it, every connection that is live in it is caught up.

It rests on this order: **subscribe first, read second, compare places last**. A feed is subscribed before
anything is read, so what is published after the read is heard; what was published before is in the log,
because the publish script appends and publishes in one step; and the sender's history has what the log does
not, because an event is committed before it is published. Both sources are read after a place and give what
follows it without a gap (receiver/feeds/sources.py), so no buffer of live events is needed: reading continues
until the places are equal, and between that comparison and joining nothing is awaited.

Many feeds are repaired at the same time, each by one task.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import structlog

from receiver import metrics
from receiver.connections.connection import End
from receiver.connections.notices import Reset
from receiver.feeds.history import HistoryRefused
from receiver.feeds.sources import Unavailable
from shared.channels import is_private
from shared.cursors import Place
from shared.extents import Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from receiver.connections.connection import Connection
    from receiver.feeds.feed import Feed
    from receiver.feeds.history import Continuation
    from receiver.feeds.sources import Sources
    from shared.events import Entry
    from shared.quota import Quota

_PIECE_BYTES = 64 * 1024  # written to a connection before its client has to read

logger = structlog.get_logger(__name__)


class CatchUp:
    """`run` must be running for feeds to be repaired."""

    def __init__(
        self,
        sources: Sources,
        *,
        erased: Callable[[Feed], None] = lambda _: None,
        piece_bytes: int = _PIECE_BYTES,
        replays: Quota | None = None,
    ) -> None:
        """`erased` is called if the history reports that a feed's customer was erased meanwhile."""
        self._sources = sources
        self._erased = erased
        self._replays = replays
        self._piece_bytes = piece_bytes
        self._repairing: dict[Feed, bool] = {}  # the value: whether it was requested again since the read
        self._unplaced: list[Feed] = []  # those that wait for their first place
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await asyncio.Event().wait()  # until it is cancelled
            finally:
                self._tasks = None  # messages may still arrive during shutdown

    # A connection.

    def start_now(self, feed: Feed, cursor: Place | None) -> Place | None:
        """The place where a connection starts in an established feed; None if `start` must ask for it."""
        if cursor is not None or not is_private(feed.channel):
            return cursor or feed.place
        seen = feed.seen
        return seen.place if seen is not None else None

    async def start(self, feed: Feed) -> Place:
        """The place up to which the customer has seen everything. Raises `Unavailable`."""
        return (await self.recall_seen(feed)).place

    async def recall_seen(self, feed: Feed) -> Extent:
        """Read anew what the customer has seen, if a report may have been missed. Raises `Unavailable`."""
        assert feed.place is not None
        return feed.note_seen(await self._sources.seen(feed.channel, feed.place))

    async def join(self, connection: Connection, feed: Feed, place: Place) -> None:
        """Bring a connection from its place to the feed's, and make it live. Raises `Unavailable`."""
        while not connection.closed:
            if place == feed.place:
                feed.join(connection)
                return
            found = await self._sources.read(feed.channel, place)
            if found.complete and feed.place is not None and found.head < feed.place:
                # The log ends before the feed's place, so Redis has lost its tail. The history has it.
                found = await self._sources.read_history(feed.channel, place)
            if found.reset:
                metrics.resets.labels(found.reset).inc()
                connection.notify(Reset.to(feed.channel, found.head, found.reset))
                place = found.head
            for piece in _pieces(found.entries, self._piece_bytes):
                if not self._may_replay(connection, len(piece)):
                    return
                connection.deliver_all(feed.channel, piece)
                place = piece[-1].place
                await connection.wait_writable()
            if found.complete and not found.entries and place != feed.place:
                await self._align(feed, place)

    def _may_replay(self, connection: Connection, count: int) -> bool:
        """Ends the connection if its customer asks for the history again and again."""
        identity = connection.identity
        if self._replays is None or identity is None:
            return True
        if seconds := self._replays.charge(identity.customer, count):
            metrics.replays_refused.inc()
            connection.end(End.TOO_FAST, f"too many events replayed; try again in {math.ceil(seconds)} s")
            return False
        return True

    async def _align(self, feed: Feed, place: Place) -> None:
        """A connection has read everything, but its feed is elsewhere: one of the two was misled."""
        before = feed.place
        feed.expect(place)
        await self.repair(feed)
        if feed.place == before and feed.place != place:
            raise Unavailable(f"the feed is at {before}, but what can be read ends at {place}")

    # A feed.

    def request(self, feed: Feed, cause: str) -> None:
        """Repair a feed soon, by a read that begins after this call; give it its place if it has none."""
        if self._tasks is None:
            return
        if feed in self._repairing:
            self._repairing[feed] = True
            return
        self._repairing[feed] = False
        metrics.repairs_for(cause).inc()
        if feed.place is not None:
            self._tasks.create_task(self._repair_soon(feed))
            return
        if not self._unplaced:
            asyncio.get_running_loop().call_soon(self._establish_unplaced)
        self._unplaced.append(feed)

    def is_repairing(self, feed: Feed) -> bool:
        return feed in self._repairing

    def _establish_unplaced(self) -> None:
        """Establish all channels that one read confirmed: under load, one task for all of them is cheaper."""
        feeds, self._unplaced = self._unplaced, []
        if self._tasks is not None:
            self._tasks.create_task(self._establish_soon(feeds))

    async def _establish_soon(self, feeds: Sequence[Feed]) -> None:
        try:
            await self.establish(feeds)
        except Unavailable as error:
            logger.debug("some channels' places can't be read yet", reason=str(error))
        except Exception:  # all connections share the same tasks
            logger.exception("some channels' places could not be read")
        for feed in feeds:
            again = self._repairing.pop(feed, False)
            if feed.place is None:
                feed.ask_history_again()
            elif again:
                self.request(feed, "again")
            else:
                feed.settle_claim()

    async def establish(self, feeds: Sequence[Feed]) -> None:
        """Give feeds their first places. Raises `Unavailable` if some got none."""
        known = await self._sources.known([feed.channel for feed in feeds])
        unknown = list(feeds[len(known) :])
        for feed, (head, seen) in zip(feeds, known, strict=False):
            feed.note_head(head)
            if head is None or head.epoch < self._sources.epoch or (seen is not None and seen.last > head):
                unknown.append(feed)
            else:
                feed.erased = False
                feed.establish(head, seen)
        if unknown:
            await self._establish_from_history(unknown)

    async def _establish_from_history(self, feeds: Sequence[Feed]) -> None:
        answers = await self._sources.unseen([feed.channel for feed in feeds])
        refusal = None
        for feed, answer in zip(feeds, answers, strict=True):
            if isinstance(answer, HistoryRefused):
                refusal = answer
            else:
                feed.erased = answer.erased
                feed.establish(answer.head, answer.seen or Extent(answer.after))
        if refusal is not None:
            raise Unavailable(str(refusal))

    async def _repair_soon(self, feed: Feed) -> None:
        """Repair once more if anything happened meanwhile: what was read may have been too old."""
        try:
            again = True
            while again:
                self._repairing[feed] = False
                await self.repair(feed)
                again = self._repairing[feed]
            feed.settle_claim()
            if feed.seen is None and feed.live and is_private(feed.channel):
                await self.recall_seen(feed)  # waiting alerts may have been shown elsewhere
        except Unavailable as error:
            logger.debug("a feed can't be repaired yet", channel=feed.channel, reason=str(error))
            feed.ask_history_again()
        except Exception:  # of one feed: all others, and all connections, share the same tasks
            logger.exception("a feed could not be repaired", channel=feed.channel)
        finally:
            self._repairing.pop(feed, None)

    async def repair(self, feed: Feed) -> None:
        """Bring a feed to its channel's head, handing over what was missed. Raises `Unavailable`.

        Several tasks may do so at once, and live events come meanwhile: each hands over only the next event.
        """
        while (place := feed.place) is not None:
            found = await self._sources.read(feed.channel, place)
            if found.complete and feed.is_short_of(found.head):
                # The log ends before what is expected, so Redis has lost its tail. The history has it.
                found = await self._sources.read_history(feed.channel, place)
            self._note_erased(feed, found)
            if found.reset and feed.place == place:
                metrics.resets.labels(found.reset).inc()
                feed.reset(found.head, found.reset)
            for entry in found.entries:
                if feed.place == Place(entry.place.epoch, entry.place.seq - 1):
                    feed.deliver(entry)
            if found.seen is not None:
                feed.see(found.seen)  # in pull mode, nothing else reports what other devices have shown
            if found.complete:
                self._forget_what_never_was(feed, found)
                return

    def _note_erased(self, feed: Feed, found: Continuation) -> None:
        """While Redis is away, or if its notice was missed, only the history shows it."""
        if found.erased is None:
            return
        before, feed.erased = feed.erased, found.erased
        if found.erased and before is False:
            self._erased(feed)

    def _forget_what_never_was(self, feed: Feed, found: Continuation) -> None:
        if feed.is_short_of(found.head):
            logger.warning("heard of an event that was never committed", channel=feed.channel)
            feed.expect_nothing()


def _pieces(entries: Sequence[Entry], size: int) -> Iterator[list[Entry]]:
    """Groups of entries to write together: a few events a system call, bounded in bytes."""
    piece, piece_size = [], 0
    for entry in entries:
        piece.append(entry)
        piece_size += len(entry.text)
        if piece_size >= size:
            yield piece
            piece, piece_size = [], 0
    if piece:
        yield piece
