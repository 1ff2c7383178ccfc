"""Safeguards of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.without.patches import nothing

if TYPE_CHECKING:
    from tests.chaos.without.patches import Patch


def heartbeat(patch: Patch) -> None:
    """Who says nothing is believed to be there."""
    from receiver.connections.clock import Heartbeat

    patch(Heartbeat, "_beat", lambda self, slot, wall_clock: None)


def frame_limit(patch: Patch) -> None:
    """A browser may send as many frames as it likes."""
    from receiver.connections import clock as heartbeat
    from receiver.transports.websocket import connection

    for module in (connection, heartbeat):
        patch(module, "FRAMES_PER_HEARTBEAT", 10**9)


def gap_repair(patch: Patch) -> None:
    """What comes behind a gap is handed over."""
    from receiver.feeds.hub import Feed

    def hear(self: Feed, event: Any) -> bool:
        if self.place is not None and event.place > self.place:
            self.deliver(*event)
        return True

    patch(Feed, "hear", hear)
    position_check(patch)  # it would mend it, a little later
    pull_mode(patch)  # it might have read it meanwhile


def repeat_dropping(patch: Patch) -> None:
    """What comes again is handed over again."""
    from receiver.feeds.hub import Feed

    hear = Feed.hear

    def hear_all(self: Feed, event: Any) -> bool:
        if self.place is not None and event.place <= self.place:
            for subscriber in self.live:
                subscriber.tell(event.text)
        return hear(self, event)

    patch(Feed, "hear", hear_all)


def position_check(patch: Patch) -> None:
    from receiver.feeds.repair import Repair

    patch(Repair, "_check_heads", nothing)


def newest_check(patch: Patch) -> None:
    """A Redis that answers is believed to be the senders'."""
    from receiver.feeds.catch_up import CatchUp
    from shared.redis.channel_log import NewestEvent

    async def nothing_is_due(self: CatchUp) -> NewestEvent:
        return NewestEvent(0, 0)

    patch(CatchUp, "newest", nothing_is_due)


def pull_mode(patch: Patch) -> None:
    from receiver.feeds.repair import Repair

    patch(Repair, "_pull", lambda self: None)


def resubscription_catch_up(patch: Patch) -> None:
    """A channel that is subscribed again is believed to have missed nothing; nor is it looked after."""
    from receiver.gateway import Gateway

    confirmed = Gateway.confirmed

    def confirmed_first(self: Gateway, feed: Any) -> None:
        if feed.place is None:
            confirmed(self, feed)

    patch(Gateway, "confirmed", confirmed_first)
    position_check(patch)  # it would mend it, a little later
    pull_mode(patch)  # it might have read it meanwhile


def probe(patch: Patch) -> None:
    """A connection that stays open is believed to be heard."""
    from receiver.subscription.subscription import Subscription

    async def until_lost(self: Subscription) -> str:
        return await self._lost

    patch(Subscription, "_wait_until_silent", until_lost)


def log_check(patch: Patch) -> None:
    """The log is believed, whatever it lacks; the history is asked only where there is none."""
    from receiver.feeds import catch_up
    from receiver.feeds.history import Found

    def follows(place: Any, read: Any) -> Found | None:
        return Found(place, read.entries, read.head) if read.head else None

    patch(catch_up, "follows", follows)


def place_comparison(patch: Patch) -> None:
    """A connection joins after one look at what it missed, wherever its feed is by then."""
    from receiver.feeds.catch_up import CatchUp

    async def join(self: CatchUp, connection: Any, feed: Any, place: Any) -> None:
        for entry in (await self.read(feed.channel, place)).entries:
            connection.tell(entry.text)
        feed.join(connection)

    patch(CatchUp, "join", join)


def slow_close(patch: Patch) -> None:
    """What a slow reader has no room for is dropped, and its connection kept."""
    from receiver.transports.websocket.connection import Connection

    patch(Connection, "write", lambda self, frame: None if self.paused else self.writer.write(frame))


def epoch_learning(patch: Patch) -> None:
    """A new epoch is noticed only where an event of it comes."""
    from receiver.feeds.repair import Repair

    patch(Repair, "learn_epoch", lambda self, epoch: None)


def heard_comparison(patch: Patch) -> None:
    """What was read is believed to be all, whatever was heard of."""
    from receiver.feeds import catch_up

    patch(catch_up, "_short", lambda feed, found: False)


def alignment(patch: Patch) -> None:
    """A feed that is behind one of its connections is left there."""
    from receiver.feeds.catch_up import CatchUp

    patch(CatchUp, "_align", nothing)


def drain(patch: Patch) -> None:
    """Everybody is cut off in the same moment, without a word."""
    from receiver.gateway import Gateway

    async def abort_all(self: Gateway, seconds: float) -> None:
        for connection in self.heartbeat.connections:
            connection.abort(1006, "gone")

    patch(Gateway, "drain", abort_all)


def sentinel_watch(patch: Patch) -> None:
    """A primary whose connection stays open is believed to be the primary."""
    from shared.redis.wire import Wire

    patch(Wire, "_watch", lambda self, pool: None)


def role_check(patch: Patch) -> None:
    """A server that passes probes on is believed to be a primary."""
    from shared.redis.wire import Pipelines

    async def probe(self: Pipelines, name: Any) -> None:
        await self.execute([(self.publish_command, name, b"")])

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
