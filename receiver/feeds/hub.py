"""Channels and who hears them, in this process: a look-up and a loop, no waiting.

A feed is one channel as this gateway knows it. Its `place` is the last event that was handed to
everyone who is live in it. That one number is checked for each event; whoever joins has reached the
same place before, so no connection's own place needs to be kept or compared afterwards:

* an event with the next seq is handed to all who are live, and becomes the feed's place;
* one at or before the place is a repeat and is dropped;
* one behind a gap is not handed over. The feed is repaired from the log or the history
  (receiver/feeds/catch_up.py), which hands over what was missing and then this event, in order.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from receiver import metrics
from receiver.transports.websocket.frames import text_frame, text_header
from shared.channels import is_private
from shared.cursors import Place
from shared.redis.channel_log import LIVE_BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shared.channels import Channel
    from shared.redis.channel_log import Entry


class Close(enum.IntEnum):
    """Why a connection ends. RFC 6455 7.4.2: 4000-4999 are ours."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    SLOW = 4408
    TOO_MANY_CONNECTIONS = 4409
    TOO_FAST = 4429


class Repairing(enum.Enum):
    """What is being done about a feed that may have missed something."""

    NO = enum.auto()
    YES = enum.auto()
    AGAIN = enum.auto()  # something happened since it began, so what it read may be too old


class Socket(Protocol):
    """The shortest way to a browser: a socket that does not wait."""

    def send(self, data: bytes, /) -> int:
        """How many bytes the kernel has taken. Raises `OSError` where it takes none."""


class Subscriber(Protocol):
    """A connection, as the hub sees it. One that closes leaves its feeds at once."""

    @property
    def socket(self) -> Socket: ...

    @property
    def paused(self) -> bool:
        """Something waits for its browser to read; what follows goes by `write`, to wait behind it."""

    def write(self, data: bytes) -> None:
        """Send it, now or when the browser reads, unless the connection has closed.

        The connection closes where too much waits already.
        """

    def tell(self, text: bytes) -> None:
        """Send one CloudEvent to this connection alone."""


_NOTHING = ()  # what no message begins with

Burst = list[tuple[tuple[Subscriber, ...], bytes]]


def write_all(burst: Burst) -> None:
    """Write each frame to all who get it. None of them has closed before; some may do so here.

    What was heard in one read leaves together, and is looked at before anything is written. After a system
    call Python starts cold: the mitigations that kernels use cost the processor its branch predictions, and
    the kernel its caches. To one customer each, it saves a sixth of a delivery's processor time.
    """
    for subscribers, frame in burst:
        size = len(frame)
        for subscriber in subscribers:
            if subscriber.paused:
                subscriber.write(frame)
                continue
            # Straight to the kernel: a call of ours for each would cost as much again.
            try:
                sent = subscriber.socket.send(frame)
            except OSError:  # it takes nothing now, or the connection is gone: the transport finds out which
                sent = 0
            if sent != size:
                subscriber.write(frame[sent:])


class Feed:
    """One channel in this gateway. `members` have asked for it; those of them in `live` are in place."""

    __slots__ = (
        "_epoch",
        "_following",
        "_live",
        "_place",
        "_seq",
        "_waiting",
        "channel",
        "claimed",
        "headless",
        "heard",
        "members",
        "repair",
        "seen",
    )

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        # The place. Epoch 0: unknown until the subscription is confirmed and the head was read. Events that
        # come count `_seq` alone; who asks for the place as an object has it made, and finds it made.
        self._epoch, self._seq = 0, 0
        self._place: Place | None = None
        self._following: bytes | tuple[()] = _NOTHING  # how the live message of the next event begins
        self.heard: Place | None = None  # the newest that Redis told of, in place or not
        self.seen: Place | None = None  # how far the customer has seen; unknown after a loss of Redis
        self.claimed: Place | None = None  # to be seen, though nothing was handed over up to there yet
        self.members = 0
        self._live: tuple[Subscriber, ...] = ()
        self.repair = Repairing.NO
        self.headless = False  # Redis knows no head of it, and the history was asked since
        self._waiting: dict[Callable[[], None], None] | None = None  # in order; most never have one

    @property
    def live(self) -> tuple[Subscriber, ...]:
        """Replaced as a whole: who leaves while it is walked disturbs nothing."""
        return self._live

    @property
    def place(self) -> Place | None:
        if self._place is None and self._epoch:
            self._place = Place(self._epoch, self._seq)
        return self._place

    def _go_to(self, place: Place) -> None:
        self._place = place
        self._epoch, self._seq = place
        self._following = LIVE_BEGINNING % (place.epoch, place.seq + 1)

    def establish(self, head: Place, seen: Place | None = None) -> None:
        """Set the first place: nobody is live yet, so what comes before it is read by each who joins."""
        if self.place is None:
            self._go_to(max(head, self.heard or head))
            self.seen = max(seen, self.seen or seen) if seen else self.seen
        waiting, self._waiting = self._waiting, None
        for callback in waiting or ():
            callback()

    def when_established(self, callback: Callable[[], None]) -> None:
        """Call it once the place is known; at once where it is."""
        if self.place is None:
            self._waiting = self._waiting or {}
            self._waiting[callback] = None
        else:
            callback()

    def wait_no_more(self, callback: Callable[[], None]) -> None:
        """Also one that was called, or never waited."""
        if self._waiting is not None:
            self._waiting.pop(callback, None)

    def join(self, subscriber: Subscriber) -> None:
        """It is where the feed is: from now on it gets what comes. Once for each."""
        self._live += (subscriber,)

    def leave(self, subscriber: Subscriber) -> None:
        """Also one that never joined."""
        try:
            at = self._live.index(subscriber)
        except ValueError:
            return
        self._live = self._live[:at] + self._live[at + 1 :]

    def hear(self, event: Entry) -> bool:
        """Take a live event; False where the feed must be repaired first."""
        at = self.place
        self.expect(event.place)
        if at is None:
            return True
        if event.place <= at:
            metrics.repeats.inc()
            return True
        if event.place != (at.epoch, at.seq + 1):
            return False
        self.deliver(event.place, event.text)
        return True

    def take_next(self, message: bytes) -> bytes | None:
        """The frame of a live message that is just the next event, as nearly all are; None where it is not.

        It is to be written to everyone who is live, before anything else is.
        """
        following = self._following
        if not message.startswith(following):
            return None
        self._place = None
        self._seq = seq = self._seq + 1
        self._following = LIVE_BEGINNING % (self._epoch, seq + 1)
        text = message[len(following) - 1 :]
        return text_header(len(text)) + text

    def deliver(self, place: Place, text: bytes) -> None:
        """Hand the next event to everyone who is live. That it is the next one, the caller has checked."""
        self._go_to(place)
        write_all([(self.live, text_frame(text))])

    def reset(self, place: Place, notice: bytes) -> None:
        """Go on at another place, and tell everyone why."""
        self._go_to(place)
        self.tell(notice)

    def see(self, place: Place, notice: bytes) -> bool:
        """Some device has shown everything up to there; False where the feed is not there yet.

        Then it is only claimed, until a repair has shown whether there is anything: who is told that all
        that is to come is seen would show none of it.
        """
        at = self.place
        if at is None or place > at:
            self.claimed = max(place, self.claimed or place)
            return False
        self.note_seen(place)
        self.tell(notice)
        return True

    def note_seen(self, place: Place) -> Place:
        """Where that is now: never back, as another device may have said more meanwhile."""
        self.seen = max(place, self.seen or place)
        return self.seen

    def expect(self, place: Place) -> None:
        """It is known that there is an event at this place, or that this epoch has begun."""
        self.heard = max(place, self.heard or place)

    def tell(self, text: bytes) -> None:
        for subscriber in self.live:
            subscriber.tell(text)


class TopicFeed(Feed):
    """One that thousands may be in: to join and to leave costs each the same, however many there are.

    A customer's own feed keeps the tuple alone, which is smaller and looked at faster. Here, a new tuple for
    each who comes would touch all who are there.
    """

    __slots__ = ("_crowd", "_stale")

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._crowd: dict[Subscriber, None] = {}  # in the order in which they came
        self._stale = False  # somebody has come or gone since the tuple was made

    @property
    def live(self) -> tuple[Subscriber, ...]:
        if self._stale:
            self._live, self._stale = tuple(self._crowd), False
        return self._live

    def join(self, subscriber: Subscriber) -> None:
        self._crowd[subscriber] = None
        self._live, self._stale = (), True

    def leave(self, subscriber: Subscriber) -> None:
        if subscriber in self._crowd:
            del self._crowd[subscriber]
            self._live, self._stale = (), True  # a quiet topic must not keep those who have gone


class Hub:
    """The feeds of this gateway.

    `subscribe` and `unsubscribe` reach Redis; they are called when a channel's first member comes and,
    through `drop_empty`, some time after its last one has left.
    """

    def __init__(
        self, subscribe: Callable[[Feed], None], unsubscribe: Callable[[Iterable[Feed]], None]
    ) -> None:
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._feeds: dict[Channel, Feed] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def feeds(self) -> list[Feed]:
        return list(self._feeds.values())

    def enter(self, channel: Channel) -> Feed:
        """Become a member of a channel's feed; each `enter` needs its `leave`."""
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = Feed(channel) if is_private(channel) else TopicFeed(channel)
            self._subscribe(feed)
        feed.members += 1
        return feed

    def leave(self, feed: Feed, subscriber: Subscriber) -> None:
        feed.leave(subscriber)
        feed.members -= 1

    def drop_empty(self) -> None:
        """Forget the feeds that nobody is a member of. A page that reloads finds its feed still there."""
        empty = [feed for feed in self._feeds.values() if not feed.members]
        for feed in empty:
            del self._feeds[feed.channel]
        if empty:
            self._unsubscribe(empty)
