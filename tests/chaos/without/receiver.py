"""Safeguards of the gateway."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from tests.chaos.without.patches import nothing

if TYPE_CHECKING:
    from tests.chaos.without.patches import Patch


def heartbeat(patch: Patch) -> None:
    """A silent client is taken for a living one."""
    from receiver.connections.clock import Clock

    patch(Clock, "_beat", lambda self, slot, now, wall_clock: None)


def frame_limit(patch: Patch) -> None:
    """A browser may send any number of frames, in any number of fragments."""
    from receiver.transports.limits import WebSocketLimits
    from receiver.transports.websocket.connection import WebSocketConnection
    from receiver.transports.websocket.traffic import Traffic

    patch(Traffic, "exceeds", lambda self, allowance: False)
    patch(Traffic, "frames_left", lambda self, allowance, second: sys.maxsize)
    patch(WebSocketConnection.__init__, "__defaults__", (WebSocketLimits(message_fragments=10**9),))


def gap_repair(patch: Patch) -> None:
    """An event behind a gap is handed over."""
    from receiver.feeds.feed import Feed

    def hear(self: Feed, event: Any) -> bool:
        if self.place is not None and event.place > self.place:
            self.deliver(event)
        return True

    patch(Feed, "hear", hear)
    position_check(patch)  # it would repair the gap, a little later
    pull_mode(patch)  # it might have read the event meanwhile


def repeat_dropping(patch: Patch) -> None:
    """A repeated event is handed over again."""
    from receiver.feeds.feed import Feed

    hear = Feed.hear

    def hear_all(self: Feed, event: Any) -> bool:
        if self.place is not None and event.place <= self.place:
            for connection in self.live:
                connection.deliver(self.channel, *event)
        return hear(self, event)

    patch(Feed, "hear", hear_all)


def position_check(patch: Patch) -> None:
    from receiver.feeds.rounds import Rounds

    patch(Rounds, "_check_heads", nothing)


def newest_check(patch: Patch) -> None:
    """Any Redis that answers is taken for the senders' own."""
    from receiver.feeds.sources import Sources
    from shared.redis.channel_log import NewestEvent

    async def nothing_is_due(self: Sources) -> NewestEvent:
        return NewestEvent(0, 0)

    patch(Sources, "newest_published", nothing_is_due)


def pull_mode(patch: Patch) -> None:
    from receiver.feeds.rounds import Rounds

    patch(Rounds, "_pull", lambda self: None)


def resubscription_catch_up(patch: Patch) -> None:
    """A channel that is subscribed again is assumed to have missed nothing, and is not checked."""
    from receiver.feeds.keeper import Keeper

    confirmed = Keeper.confirmed

    def confirmed_first(self: Keeper, feed: Any) -> None:
        if feed.place is None:
            confirmed(self, feed)

    patch(Keeper, "confirmed", confirmed_first)
    position_check(patch)  # it would mend it, a little later
    pull_mode(patch)  # it might have read it meanwhile


def probe(patch: Patch) -> None:
    """A connection that stays open is assumed to be heard."""
    from receiver.subscription.subscription import Subscription

    async def until_lost(self: Subscription) -> str:
        return await self._lost

    patch(Subscription, "_wait_until_silent", until_lost)


def log_check(patch: Patch) -> None:
    """The log is trusted, whatever it lacks; the history is asked only if there is no log."""
    from receiver.feeds import sources
    from receiver.feeds.history import Continuation

    def follows(place: Any, read: Any) -> Continuation | None:
        return Continuation(place, read.entries, read.head) if read.head else None

    patch(sources, "follows", follows)


def place_comparison(patch: Patch) -> None:
    """A connection joins after one read of what it missed, wherever its feed is by then."""
    from receiver.feeds.catch_up import CatchUp

    async def join(self: CatchUp, connection: Any, feed: Any, place: Any) -> None:
        connection.deliver_all(feed.channel, (await self._sources.read(feed.channel, place)).entries)
        feed.join(connection)

    patch(CatchUp, "join", join)


def slow_close(patch: Patch) -> None:
    """Events that a slow reader has no room for are dropped, and its connection is kept."""
    from receiver.transports.websocket.connection import WebSocketConnection

    patch(WebSocketConnection, "write", lambda self, frame: None if self.paused else self.writer.write(frame))


def epoch_learning(patch: Patch) -> None:
    """A new epoch is noticed only when one of its events comes."""
    from receiver.feeds.rounds import Rounds

    patch(Rounds, "learn_epoch", lambda self, epoch: None)


def heard_comparison(patch: Patch) -> None:
    """What was read is assumed to be everything, whatever was heard."""
    from receiver.feeds.feed import Feed

    patch(Feed, "is_short_of", lambda self, head: False)


def alignment(patch: Patch) -> None:
    """A feed that is behind one of its connections is left there."""
    from receiver.feeds.catch_up import CatchUp

    patch(CatchUp, "_align", nothing)


def drain(patch: Patch) -> None:
    """All connections are cut at the same moment, without a goodbye."""
    from receiver.gateway import Gateway

    async def abort_all(self: Gateway, seconds: float) -> None:
        for connection in self.clock.connections:
            cast("Any", connection).writer.abort()

    patch(Gateway, "drain", abort_all)


def sentinel_watch(patch: Patch) -> None:
    """A server whose connection stays open is assumed to be the primary still."""
    from shared.redis.wire import Wire

    patch(Wire, "_watch", lambda self, pool: None)


def role_check(patch: Patch) -> None:
    """A server that delivers probes is assumed to be a primary."""
    from shared.redis.wire import Pipelines

    async def probe(self: Pipelines, name: Any, message: bytes) -> None:
        await self.execute([(self.publish_command, name, message)])

    patch(Pipelines, "probe", probe)


def slot_moves(patch: Patch) -> None:
    """A channel is heard where it was at first, wherever its slot is now."""
    from receiver.subscription.shards import Shards

    place = Shards._place

    def place_once(self: Shards, slot: int, channel: Any) -> None:
        if channel not in self._places:
            place(self, slot, channel)

    patch(Shards, "_place", place_once)
    patch(Shards, "ended", lambda self, shard, channel: None)
    patch(Shards, "moved", lambda self, shard, slot, owner: None)
