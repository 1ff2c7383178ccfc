"""One channel as a gateway knows it: its place, and the connections that hear it.

A feed's `place` is the last event that was handed to every connection that is live in it. Only this number is
checked for each event: a connection joins once it has reached the same place, so its own place need not be
kept or compared afterwards:

* an event with the next seq is handed to all that are live, and becomes the feed's place;
* one at or before the place is a repeat and is dropped;
* one behind a gap is not handed over. The feed is repaired from the log or the history
  (receiver/feeds/catch_up.py), which hands over what was missing and then this event, in order.

All of a feed's state changes here; nothing here waits except `wait_established`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from receiver import metrics
from receiver.connections.connection import SharingConnection
from receiver.connections.failing import end_failed
from receiver.connections.notices import Reset, SeenElsewhere
from receiver.feeds.burst import TOGETHER_BYTES, hand_over, write_all
from shared.cursors import Place
from shared.extents import Extent
from shared.process.ways import ways
from shared.redis.live import LIVE_BEGINNING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from receiver.connections.connection import Connection
    from receiver.connections.notices import Notice, Ring, Unread
    from receiver.feeds.burst import Burst
    from shared.channels import Channel
    from shared.events import Entry
    from shared.extents import Range

_NOTHING = ()  # no message begins with it

C = TypeVar("C", bound="Connection")


class Feed:
    """`member_count` connections have entered it; the live ones have everything up to its place."""

    __slots__ = (
        "_beyond",
        "_claimed",
        "_counted",
        "_epoch",
        "_expected",
        "_following",
        "_headless",
        "_others",
        "_place",
        "_seen",
        "_seen_may_lack",
        "_seq",
        "_sharing",
        "_waiting",
        "channel",
        "erased",
        "member_count",
        "unread",
        "unseen_since",
    )

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        # The place. Epoch 0: unknown until the subscription is confirmed and the head was read. Events only
        # change `_seq`; the `Place` is made when it is asked for, once.
        self._epoch, self._seq = 0, 0
        self._place: Place | None = None
        self._following: bytes | tuple[()] = _NOTHING  # how the live message of the next event begins
        self._expected: Place | None = None  # the newest at which an event is known, handed over or not
        # What the customer has seen, in the parts of an `Extent`; in most feeds nothing is beyond.
        self._seen: Place | None = None
        self._beyond: tuple[Range, ...] = ()
        self._seen_may_lack = False  # reports may have been missed while Redis was not heard
        self._claimed: Extent | None = None  # reported as seen, although the feed is not there yet
        # Both are replaced whole, so a connection may leave while they are iterated.
        self._sharing: tuple[SharingConnection, ...] = ()
        self._others: tuple[Connection, ...] = ()
        self._waiting: dict[Connection, asyncio.Future[None]] | None = None  # most never have one
        self._headless = False  # Redis knows no head of it, and the history has been asked
        # Whether its customer was erased, as the history last said. A change to True ends the open
        # connections; later ones are legitimate.
        self.erased: bool | None = None
        self.member_count = 0
        self._counted = -1  # the seq at which its unread alerts were last counted
        self.unread: Unread | None = None
        self.unseen_since = 0.0  # loop time; 0: nothing was unseen when last checked

    # Where it is.

    @property
    def place(self) -> Place | None:
        if self._place is None and self._epoch:
            self._place = Place(self._epoch, self._seq)
        return self._place

    @property
    def expected(self) -> Place | None:
        return self._expected

    @property
    def seen(self) -> Extent | None:
        """None if it is not known, or not completely."""
        return None if self._seen is None or self._seen_may_lack else Extent(self._seen, self._beyond)

    @property
    def claimed(self) -> Extent | None:
        return self._claimed

    @property
    def headless(self) -> bool:
        return self._headless

    def note_head(self, head: Place | None) -> None:
        """Note the head that Redis knows. If it knows none, the history is asked, once."""
        self._headless = head is None

    def ask_history_again(self) -> None:
        """The history could not be asked: if Redis knows no head, ask it once more."""
        self._headless = False

    def _go_to(self, place: Place) -> None:
        self._place = place
        self._epoch, self._seq = place
        self._following = LIVE_BEGINNING % (place.epoch, place.seq + 1)

    def establish(self, head: Place, seen: Extent | None = None) -> None:
        """Set the first place. No connection is live yet, so each one that joins reads what is before."""
        if self.place is None:
            self._go_to(max(head, self._expected or head))
            if seen is not None:
                # One object for both if they are equal, because most customers have seen everything.
                self.note_seen(Extent(head) if seen == Extent(head) else seen)
        waiting, self._waiting = self._waiting, None
        for future in (waiting or {}).values():
            if not future.done():
                future.set_result(None)

    async def wait_established(self, connection: Connection) -> None:
        """Wait until the place is known, or `wait_no_more`. One task of a connection may wait."""
        if self.place is None and not connection.closed:
            self._waiting = self._waiting or {}
            future = self._waiting[connection] = asyncio.get_running_loop().create_future()
            await future

    def expect(self, place: Place) -> None:
        """Note that there is an event at this place, or that this epoch has begun."""
        self._expected = max(place, self._expected or place)

    def expect_nothing(self) -> None:
        """The expected events were never committed."""
        self._expected = self.place

    def is_short_of(self, head: Place) -> bool:
        """Whether more is expected than there is up to that head. A feed moves on while it is read for."""
        reached = max(head, self.place or head)
        claimed = self._claimed.last if self._claimed is not None else None
        return any(more is not None and more > reached for more in (self._expected, claimed))

    # The connections that hear it.

    @property
    def sharing(self) -> tuple[SharingConnection, ...]:
        """The live connections that share the same bytes."""
        return self._sharing

    @property
    def others(self) -> tuple[Connection, ...]:
        """The live connections that are handed each event."""
        return self._others

    @property
    def live(self) -> tuple[Connection, ...]:
        return (*self.sharing, *self.others)

    def join(self, connection: Connection) -> None:
        """The connection has reached the feed's place and gets what comes from now on. Once for each."""
        if _shares(connection, self._sharing):
            self._sharing += (connection,)
        else:
            self._others += (connection,)

    def leave(self, connection: Connection) -> None:
        """Also for a connection that never joined."""
        self._sharing = _without(self._sharing, connection)
        self._others = _without(self._others, connection)
        self.wait_no_more(connection)

    def wait_no_more(self, connection: Connection) -> None:
        """End the connection's wait for the place, which stays unknown. Repeating is harmless."""
        future = self._waiting.pop(connection, None) if self._waiting else None
        if future is not None and not future.done():
            future.set_result(None)

    # What comes.

    def take_next(self, message: bytes, burst: Burst) -> bool:
        """Take a live message if it is the next event, as nearly all are; False if it is not.

        The event goes into the burst, for every connection that is live now.
        """
        following = self._following
        if not message.startswith(following):
            return False
        self._place = None
        self._seq = seq = self._seq + 1
        self._following = LIVE_BEGINNING % (self._epoch, seq + 1)
        text = message[len(following) - 1 :]
        if sharing := self._sharing:
            data = sharing[0].frame(self.channel, self._epoch, seq, text)
            if burst.feed is self and len(burst.finished[-1][1]) < TOGETHER_BYTES:
                burst.finished[-1] = (sharing, burst.finished[-1][1] + data)
            else:
                burst.finished.append((sharing, data))
                burst.feed = self
        if self._others:
            burst.handed.append((self._others, self.channel, Place(self._epoch, seq), text))
        return True

    def hear(self, event: Entry) -> bool:
        """Take a live event; False if the feed must be repaired first."""
        at = self.place
        self.expect(event.place)
        if at is None:
            return True
        if event.place <= at:
            metrics.repeats.inc()
            return True
        if event.place != (at.epoch, at.seq + 1):
            return False
        self.deliver(event)
        return True

    def deliver(self, event: Entry) -> None:
        """Hand the next event to every live connection. The caller has checked that it is the next one."""
        place, text = event
        self._go_to(place)
        if sharing := self.sharing:
            write_all([(sharing, sharing[0].frame(self.channel, *place, text))])
        hand_over(self.others, self.channel, place, text)
        if ways.noted and self.live:
            ways.note("event handed over, caught up", text, connections=len(self.live))

    def reset(self, place: Place, reason: str) -> None:
        """Continue at another place, and notify every connection of the reason."""
        self._go_to(place)
        self._notify(Reset.to(self.channel, place, reason))

    def see(self, extent: Extent) -> bool:
        """A device has shown these; False if the feed has not reached all of them yet.

        Then they only count as claimed until a repair has shown whether they exist: a browser that believed a
        false place would show none of the events to come.
        """
        at = self.place
        if at is None or extent.last > at:
            self._claimed = extent.union(self._claimed or extent)
            return False
        self.note_seen(extent)
        return True

    def note_seen(self, extent: Extent) -> Extent:
        """Add to what was seen. Nothing is removed: another device may have seen more meanwhile."""
        known = Extent(self._seen, self._beyond) if self._seen is not None else None
        union = extent.union(known) if known is not None else extent
        self._seen, self._beyond, self._seen_may_lack = union.place, union.beyond, False
        if union != known and union.last.seq:
            self._notify(SeenElsewhere.of(self.channel, union))
        return union

    def forget_seen(self) -> None:
        """Other devices' reports may have been missed. What is known stays true."""
        self._seen_may_lack = True

    def settle_claim(self) -> None:
        """Everything was handed over: a place claimed as seen exists by now, or it was not reported by a
        sender of ours.
        """
        claimed, self._claimed = self._claimed, None
        if claimed is not None and not self.see(claimed):
            self._claimed = None
            metrics.foreign.inc()

    # Its customer's unread alerts.

    @property
    def is_uncounted(self) -> bool:
        """Whether it has moved since its alerts were counted."""
        return self._counted != self._seq and self._epoch > 0

    def counted(self, place: Place | None) -> None:
        """The count has arrived that was asked for at this place."""
        self._counted = place.seq if place is not None and place.epoch == self._epoch else -1

    def note_unread(self, unread: Unread) -> None:
        self.unread = unread
        self._notify(unread)

    def ring(self, ring: Ring) -> None:
        self._notify(ring)

    def _notify(self, notice: Notice) -> None:
        for connection in self.live:
            try:
                connection.notify(notice)
            except Exception:  # of one connection: what the feed does concerns all others
                end_failed(connection, "a notice could not be sent")


class TopicFeed(Feed):
    """A feed for thousands of connections: joining and leaving costs the same, however many there are.

    A customer's own feed keeps only tuples, which are smaller and faster to read. Here, making new tuples for
    each connection that joins would copy all others each time.
    """

    __slots__ = ("_crowd", "_sharing_crowd", "_stale")

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        # In the order in which they came.
        self._sharing_crowd: dict[SharingConnection, None] = {}
        self._crowd: dict[Connection, None] = {}
        self._stale = False  # connections have joined or left since the tuples were made

    @property
    def sharing(self) -> tuple[SharingConnection, ...]:
        self._refresh()
        return self._sharing

    @property
    def others(self) -> tuple[Connection, ...]:
        self._refresh()
        return self._others

    def join(self, connection: Connection) -> None:
        if _shares(connection, self._sharing_crowd):
            self._sharing_crowd[connection] = None
        else:
            self._crowd[connection] = None
        self._outdate()

    def leave(self, connection: Connection) -> None:
        for crowd in (self._sharing_crowd, self._crowd):
            if connection in crowd:
                del crowd[connection]  # type: ignore[arg-type] # it is in this one
                self._outdate()
        self.wait_no_more(connection)

    def take_next(self, message: bytes, burst: Burst) -> bool:
        self._refresh()
        return super().take_next(message, burst)

    def _outdate(self) -> None:
        self._sharing, self._others = (), ()  # a quiet topic must not keep closed connections in memory
        self._stale = True

    def _refresh(self) -> None:
        if self._stale:
            self._sharing, self._others = tuple(self._sharing_crowd), tuple(self._crowd)
            self._stale = False


def _shares(connection: Connection, others: Iterable[SharingConnection]) -> TypeGuard[SharingConnection]:
    """A feed makes finished bytes of one kind only; connections of other kinds are handed the event."""
    if not (isinstance(connection, SharingConnection) and connection.shares):
        return False
    other = next(iter(others), None)
    return other is None or other.frame is connection.frame


def _without(connections: tuple[C, ...], gone: Connection) -> tuple[C, ...]:
    return tuple(one for one in connections if one is not gone) if gone in connections else connections
