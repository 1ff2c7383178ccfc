"""The one door to a gateway's feeds: enter channels, learn where to start, catch up and be live, leave.

It owns the subscription and everything that keeps feeds up to date; the subscription reports to it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from receiver import metrics
from receiver.connections.connection import End
from receiver.connections.notices import SeenElsewhere
from receiver.feeds.alerts import Counts
from receiver.feeds.catch_up import CatchUp
from receiver.feeds.feed import Feed
from receiver.feeds.hub import Hub
from receiver.feeds.pace import Pace
from receiver.feeds.rounds import Rounds
from receiver.feeds.sources import Sources, Unavailable
from shared.channels import is_private
from shared.events import Entry
from shared.process.sampled import Sampled
from shared.redis.inquiries import GATEWAYS
from shared.redis.live import ErasedNotice, SeenNotice, parse_live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from receiver.connections.connection import Connection
    from receiver.feeds.history import History
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.quota import Quota
    from shared.redis.channel_log import LogReader


_ERASED_SECONDS = 300.0  # for which a signed notice is valid: a sender's clock may be wrong by as much

logger = structlog.get_logger(__name__)


class Subscribing(Protocol):
    """The part of the subscription that feeds need."""

    @property
    def hears(self) -> bool: ...
    def subscribe(self, feed: Feed) -> None: ...
    def unsubscribe(self, feeds: Iterable[Feed]) -> None: ...
    async def run(self) -> None: ...


class Keeper:
    def __init__(
        self,
        subscription_to: Callable[[Keeper], Subscribing],
        log: LogReader,
        history: History,
        pace: Pace | None = None,
        *,
        ring_again_seconds: float = 0,
        replays: Quota | None = None,
    ) -> None:
        """`subscription_to` makes the subscription, which reports to its argument. `replays` limits how many
        events are replayed to each customer.
        """
        self._pace = pace or Pace()
        self.subscription = subscription_to(self)
        self._hub = Hub(
            self.subscription.subscribe,
            self.subscription.unsubscribe,
            linger_seconds=self._pace.linger_seconds,
        )
        self.sources = Sources(log, history, self._hears, self._pace)
        self._catch_up = CatchUp(self.sources, erased=self._end_erased, replays=replays)
        self._rounds = Rounds(self._hub, self.sources, self._catch_up, self._hears, self._pace)
        self._counts = Counts(self._hub, history, ring_again_seconds=ring_again_seconds)
        self.when_erased: Callable[[Feed], None] = _nobody_is_ended
        self._questions = Feed(GATEWAYS)  # no connection enters it; senders' questions are heard there
        self._when_asked: Callable[[bytes], None] | None = None
        self._sampled = Sampled(logger)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for part in (self.subscription, self.sources, self._catch_up, self._rounds, self._counts):
                tasks.create_task(part.run(), name=type(part).__name__)

    def _hears(self) -> bool:
        return self.subscription.hears

    def _give_up(self, connection: Connection, error: Unavailable) -> None:
        # While nothing can be read, each client that comes back causes one.
        self._sampled.warning("a connection could not be caught up", reason=str(error))
        connection.end(End.TRY_AGAIN_LATER, "events can't be read now")

    # What support asks for.

    def hear_questions(self, asked: Callable[[bytes], None]) -> None:
        """Call `asked` with each question that a sender asks all gateways."""
        self._when_asked = asked
        self.subscription.subscribe(self._questions)

    @property
    def channel_count(self) -> int:
        return len(self._hub)

    def feed(self, channel: Channel) -> Feed | None:
        """The channel's feed, if this gateway has one."""
        return self._hub.find(channel)

    # A connection's way through its feeds.

    def enter(self, connection: Connection, channels: Iterable[Channel]) -> None:
        connection.feeds = tuple(map(self._hub.enter, channels))

    async def starts(
        self, connection: Connection, cursors: Mapping[Channel, Place]
    ) -> dict[Channel, Place] | None:
        """Where it starts in each of its channels, once their places are known; None if it has ended.

        Ends it if they can't be read now.
        """
        try:
            return await self._starts(connection, cursors)
        except Unavailable as error:
            self._give_up(connection, error)
            return None

    async def _starts(
        self, connection: Connection, cursors: Mapping[Channel, Place]
    ) -> dict[Channel, Place] | None:
        feeds = connection.feeds
        if any(feed.place is None for feed in feeds):
            await self._wait_established(connection, feeds)
        starts = {}
        for feed in feeds:
            if connection.closed:
                return None
            cursor = cursors.get(feed.channel)
            if cursor is not None and cursor != feed.place and is_private(feed.channel) and feed.seen is None:
                # Another device may have shown what it is about to get.
                await self._catch_up.recall_seen(feed)
            start = self._catch_up.start_now(feed, cursor)
            starts[feed.channel] = start or await self._catch_up.start(feed)
        return starts

    async def bring_in(self, connection: Connection, starts: Mapping[Channel, Place]) -> None:
        """Hand over what follows its starts, then everything that comes. Ends it if that can't be read."""
        try:
            await self._bring_in(connection, starts)
        except Unavailable as error:
            self._give_up(connection, error)

    async def _bring_in(self, connection: Connection, starts: Mapping[Channel, Place]) -> None:
        for feed in connection.feeds:
            start = starts[feed.channel]
            if (seen := feed.seen) is not None and seen.last > start:
                # Another device has already shown what this one is about to get: no pop-up for that.
                connection.notify(SeenElsewhere.of(feed.channel, seen))
            if feed.unread is not None:
                connection.notify(feed.unread)
            if start == feed.place and not connection.closed:
                feed.join(connection)
            else:
                await self._catch_up.join(connection, feed, start)

    def leave(self, connection: Connection) -> None:
        """It leaves its feeds, and nothing is delivered to it any more. Repeating is harmless."""
        feeds, connection.feeds = connection.feeds, ()
        for feed in feeds:
            self._hub.leave(feed, connection)

    async def _wait_established(self, connection: Connection, feeds: Iterable[Feed]) -> None:
        # `asyncio.timeout` costs three times as much, and thousands of connections may come at once.
        over = False

        def end() -> None:
            nonlocal over
            over = True
            for feed in feeds:
                feed.wait_no_more(connection)

        timer = asyncio.get_running_loop().call_later(self._pace.establish_seconds, end)
        try:
            for feed in feeds:
                if not over:  # it may have come between a feed's place and our next wait
                    await feed.wait_established(connection)
                if feed.place is None and not connection.closed:
                    raise Unavailable("no answer in time")
        finally:
            timer.cancel()

    # What the subscription reports.

    def hear(self, feed: Feed, message: bytes) -> None:
        """A live message that is not just the next event of that feed."""
        if feed is self._questions:
            if self._when_asked is not None:
                self._when_asked(message)
            return
        live = parse_live(message)
        if isinstance(live, Entry):
            if not feed.hear(live):
                self._catch_up.request(feed, "gap")
        elif isinstance(live, SeenNotice):
            if not feed.see(live.extent):
                self._catch_up.request(feed, "seen")
        elif isinstance(live, ErasedNotice):
            # If somebody publishes an old notice again, it must not end the connections of a customer who
            # came back.
            if live.at is None or abs(time.time() - live.at) < _ERASED_SECONDS:
                self._end_erased(feed)
            else:
                metrics.foreign.inc()
        else:
            metrics.foreign.inc()

    def _end_erased(self, feed: Feed) -> None:
        feed.erased = True
        self.when_erased(feed)

    def confirmed(self, feed: Feed) -> None:
        """Redis has subscribed us: what was published before is in the log, and what is published now is
        heard.
        """
        if feed is self._questions:
            return
        feed.forget_seen()  # other devices' reports were missed meanwhile
        self._catch_up.request(feed, "subscribed")

    def learn_epoch(self, epoch: int) -> None:
        self._rounds.learn_epoch(epoch)

    def hearing_changed(self) -> None:
        self._rounds.wake()


def _nobody_is_ended(feed: Feed) -> None:
    """Used in a keeper without a gateway, which has no connections to end."""
