"""The gateway's ears in a cluster: a subscription at each primary, used as one.

A live message reaches the node that has its channel's slot, so a channel is subscribed there. Each of these
subscriptions proves that it hears by its own probe, whose name is in one of its node's slots; the
gateway hears when all of them do.

When a slot moves, its old node ends the subscriptions in it (`sunsubscribe`); when a primary dies, nothing is
heard from it. Either way the slots are looked up, and each channel is subscribed where its slot is now; its
confirmation makes the gateway catch up. A node that refuses a channel (MOVED) names the right one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError

from receiver.subscription.subscription import Subscriber, Subscription
from shared.redis.cluster import Cluster, Redirection, slot_of_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from receiver.feeds.feed import Feed
    from shared.redis.url import Address

LOOK_SECONDS = 0.5  # between two look-ups of the slots, while a primary is not heard
_PROBE_NAMES = 100_000  # tried until one is in the node's slots; enough for a node with a single slot
_GATHER_SECONDS = 0.02  # when one slot moves, others follow

logger = structlog.get_logger(__name__)


def subscription_to(redis: Redis | Cluster, subscriber: Subscriber) -> Subscription | Shards:
    return Shards(redis, subscriber) if isinstance(redis, Cluster) else Subscription(redis, subscriber)


class Shards:
    """Has the same methods as a `Subscription`."""

    def __init__(self, cluster: Cluster, subscriber: Subscriber) -> None:
        self._cluster = cluster
        self._subscriber = subscriber
        self._shards: dict[Address, Shard] = {}
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._feeds: defaultdict[int, set[Feed]] = defaultdict(set)  # what is wanted, by slot
        self._places: dict[Feed, Shard] = {}  # where it is subscribed, or will be
        self._placed_at = 0  # the look-up by which all feeds were placed
        self._moved: dict[int, Address] = {}  # slots, as reported by the nodes that refused them
        self._to_look = False
        self._woken = asyncio.Event()

    @property
    def hears(self) -> bool:
        return bool(self._shards) and all(shard.hears for shard in self._shards.values())

    def subscribe(self, feed: Feed) -> None:
        """Subscribe to its channel and keep it subscribed. The hearer is notified when Redis has confirmed
        it.
        """
        slot = self._slot(feed)
        self._feeds[slot].add(feed)
        self._place(slot, feed)

    def unsubscribe(self, feeds: Iterable[Feed]) -> None:
        for feed in feeds:
            self._feeds[self._slot(feed)].discard(feed)
            if shard := self._places.pop(feed, None):
                shard.unsubscribe([feed])

    def ended(self, shard: Shard, feed: Feed | None) -> None:
        """A node has ended a subscription because the slot has moved away. None: the probe's."""
        if feed is not None:
            self._take_away(shard, feed)
        self._to_look = True
        self._woken.set()

    def moved(self, shard: Shard, slot: int, owner: Address) -> None:
        """A node has refused what is in this slot."""
        for feed in self._feeds.get(slot, ()):
            self._take_away(shard, feed)
        self._moved[slot] = owner
        self._woken.set()

    async def run(self) -> None:
        """Keep hearing every primary, even as these change."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._learn()
                if self._woken.is_set() or self._placed_at != self._cluster.looked:
                    self._woken.clear()
                    self._placed_at = self._cluster.looked
                    self._attend_primaries(tasks)
                    self._place_all()
                await self._wait()

    async def _learn(self) -> None:
        if self._to_look or not self.hears:
            self._to_look = False
            await self._look()
        moved, self._moved = self._moved, {}
        self._cluster.move(moved)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_GATHER_SECONDS)

    async def _look(self) -> None:
        try:
            await self._cluster.look()
        except RedisError as error:
            logger.debug("the slots can't be looked up", reason=str(error))

    def _attend_primaries(self, tasks: asyncio.TaskGroup) -> None:
        for address in self._shards.keys() - self._cluster.primaries:
            del self._shards[address]
            self._tasks.pop(address).cancel()
        for address in self._cluster.primaries - self._shards.keys():
            shard = Shard(self, address, self._cluster, self._subscriber)
            self._shards[address] = shard
            self._tasks[address] = tasks.create_task(shard.run())
        for shard in self._shards.values():
            shard.keep_probe()
        self._subscriber.hearer.hearing_changed()

    def _place_all(self) -> None:
        for slot, feeds in self._feeds.items():
            for feed in feeds:
                self._place(slot, feed)

    def _place(self, slot: int, feed: Feed) -> None:
        """Subscribe to a channel at the node that has its slot, unless it is subscribed there already."""
        owner = self._cluster.owner(slot)
        shard = self._shards.get(owner) if owner else None
        before = self._places.get(feed)
        if shard is before:
            return
        if before is not None:
            self._take_away(before, feed)
        if shard is not None:
            shard.subscribe(feed)
            self._places[feed] = shard

    def _take_away(self, shard: Shard, feed: Feed) -> None:
        if self._places.get(feed) is shard:
            del self._places[feed]
            shard.forget(feed)

    def _slot(self, feed: Feed) -> int:
        return slot_of_key(self._subscriber.names.live(feed.channel).encode())


class Shard(Subscription):
    """The subscription at one primary."""

    _subscribe_command = b"SSUBSCRIBE"
    _unsubscribe_command = b"SUNSUBSCRIBE"
    _channels_per_command = 1  # because all channels of one command must be in one slot

    def __init__(self, shards: Shards, address: Address, cluster: Cluster, subscriber: Subscriber) -> None:
        super().__init__(cluster.client(address), subscriber)
        self._shards = shards
        self._cluster = cluster
        self._address = address
        self._logger = logger.bind(node=str(address))
        self._probe = self._find_probe()

    def keep_probe(self) -> None:
        """The probe's name must be in a slot of this node; the slot may have moved."""
        if self._cluster.owner(slot_of_key(self._probe)) != self._address:
            self._probe = self._find_probe()
            self._send_subscribe(self._probe)

    def forget(self, feed: Feed) -> None:
        """The node no longer has the slot: an UNSUBSCRIBE would be refused."""
        name = self._names.live(feed.channel).encode()
        self._feeds.pop(name, None)
        self._unconfirmed.pop(name, None)

    def _find_probe(self) -> bytes:
        names = (self._names.probe(f"{self._gateway}:{n}").encode() for n in range(_PROBE_NAMES))
        ours = (name for name in names if self._cluster.owner(slot_of_key(name)) == self._address)
        return next(ours, self._probe)

    def _take_refusal(self, reply: Any) -> None:
        redirection = Redirection.of(reply)
        if redirection is None or not redirection.moved:
            super()._take_refusal(reply)
        else:
            self._shards.moved(self, redirection.slot, redirection.address)

    def _take_end(self, name: bytes) -> None:
        """A subscription has ended: we unsubscribed, or its slot has moved away."""
        if name == self._probe:
            self._shards.ended(self, None)
        elif name in self._feeds and name not in self._unconfirmed:
            self._shards.ended(self, self._feeds[name])
