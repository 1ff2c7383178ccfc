"""The one connection that hears Redis: what it hears, and what it notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from receiver.feeds.feed import Feed
from receiver.subscription.age import Ages
from receiver.subscription.subscription import Pace, Subscriber, Subscription
from shared.channels import customer_channel
from shared.cursors import Place
from shared.redis.keys import Names
from shared.redis.server import connect_server
from shared.redis.signatures import Kind, LiveKey, Signatures
from shared.redis.wire import Pipelines
from tests.connections import Shared
from tests.hearer import Hearer
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from redis.asyncio import Redis

    from shared.commands.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

ALICE, BOB = Feed(customer_channel("alice")), Feed(customer_channel("bob"))
NAMES = Names("ob-test")


class World:
    def __init__(self, redis: Redis, pipelines: Pipelines) -> None:
        self.redis = redis
        self.hearer = Hearer()
        self.subscription = Subscription(redis, Subscriber("test", pipelines, NAMES, self.hearer))

    async def publish(self, feed: Feed, message: bytes) -> None:
        await self.redis.publish(NAMES.live(feed.channel), message)


@pytest.fixture
async def world(redis_server: EmbeddedServer) -> AsyncIterator[World]:
    async with connect_server(redis_server.url, retries=0) as redis, Pipelines(redis) as pipelines:
        world = World(redis, pipelines)
        task = asyncio.create_task(world.subscription.run())
        await await_until(lambda: world.subscription.hears)
        yield world
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _event(n: int, trace: str) -> bytes:
    attributes = f'"id":"{n}","source":"/orderbell/sender","time":"2020-01-01T00:00:00.000Z"'
    return f'1 {n} {{{attributes},"traceparent":"00-{trace}-{"b" * 16}-01"}}'.encode()


async def test_forged_messages_leave_no_span_and_no_age(redis_server: EmbeddedServer) -> None:
    """Neither on a customer's channel nor on the gateway's own."""
    traced: list[bytes] = []
    key = LiveKey("a", b"0123456789abcdef0123456789abcdef")
    signatures = Signatures([key])
    aged: list[bytes] = []

    class Examined(Ages):
        def look(
            self, messages: Iterable[tuple[bytes, bytes]], feeds: Mapping[bytes, Feed], now: float
        ) -> None:
            aged.extend(message for _, message in messages)

    async with connect_server(redis_server.url, retries=0) as redis, Pipelines(redis) as pipelines:
        hearer = Hearer()
        subscriber = Subscriber(
            "signed", pipelines, NAMES, hearer, delivered=traced.extend, signatures=signatures
        )
        subscription = Subscription(redis, subscriber)
        subscription._ages = Examined()
        task = asyncio.create_task(subscription.run())
        await await_until(lambda: subscription.hears)
        feed = Feed(customer_channel("traced"))
        subscription.subscribe(feed)
        name = NAMES.live(feed.channel)
        await await_until(lambda: hearer.confirmations == [feed])
        aged.clear()
        traced.clear()
        probe = subscription._probe.decode()
        other = Signatures([LiveKey("a", b"another key of the same name 0123456789")])
        real = signatures.seal(Kind.LIVE, name.encode(), _event(3, "3" * 32))
        async with redis.pipeline(transaction=True) as together:
            together.publish(name, _event(1, "1" * 32))
            together.publish(name, other.seal(Kind.LIVE, name.encode(), _event(2, "2" * 32)))
            together.publish(name, signatures.seal(Kind.LIVE, b"of-bob", _event(2, "4" * 32)))
            together.publish(probe, _event(5, "5" * 32))
            together.publish(name, real)
            await together.execute()
        await await_until(lambda: real in traced)
        assert (traced, aged) == ([real], [real])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_messages_of_subscribed_channels_are_heard_and_no_others(world: World) -> None:
    world.subscription.subscribe(ALICE)
    await await_until(lambda: world.hearer.confirmations == [ALICE])
    await world.publish(BOB, b"not for us")
    await world.publish(ALICE, b"one")
    await world.publish(ALICE, b"two")
    await await_until(lambda: world.hearer.messages == [(ALICE, b"one"), (ALICE, b"two")])


def live_in(world: World, channel: str, subscriber: Shared) -> bytes:
    """Make the connection live in that channel's feed, at 1.0; returns the channel's name in Redis."""
    feed = Feed(customer_channel(channel))
    feed.establish(Place(1, 0))
    feed.join(subscriber)
    world.subscription.subscribe(feed)
    return NAMES.live(feed.channel).encode()


async def test_events_of_one_customer_in_one_read_leave_in_one_system_call(world: World) -> None:
    one, other = Shared(), Shared()
    of_one, of_other = live_in(world, "one", one), live_in(world, "other", other)
    world.subscription._take([[b"message", of_one, b"1 %d {}" % seq] for seq in (1, 2, 3)])
    world.subscription._take(
        [[b"message", name, b"1 %d {}" % seq] for name, seq in ((of_other, 1), (of_one, 4))]
    )
    assert (one.frames, other.frames) == ([b"2 {}" * 3, b"2 {}"], [b"2 {}"])


async def test_events_leave_whatever_fails_behind_them_in_the_same_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their feeds have moved on, so nothing would hand them over later."""
    subscriber = Shared()
    name = live_in(world, "one", subscriber)

    ours = True  # not the confirmation that Redis sends a moment later

    def fail(name: bytes) -> None:
        if ours:
            raise ZeroDivisionError

    monkeypatch.setattr(world.subscription, "_take_confirmation", fail)  # stands for any defect
    with pytest.raises(ZeroDivisionError):
        world.subscription._take([[b"message", name, b"1 1 {}"], [b"subscribe", name, 1]])
    ours = False
    assert subscriber.frames == [b"2 {}"]


async def test_so_many_events_of_one_customer_that_one_call_would_take_long_leave_in_some(
    world: World,
) -> None:
    subscriber, text = Shared(), b"{%b}" % (b"x" * 6_000)
    name = live_in(world, "one", subscriber)
    world.subscription._take([[b"message", name, b"1 %d %b" % (seq, text)] for seq in range(1, 11)])
    assert b"".join(subscriber.frames) == b"%d %b" % (len(text), text) * 10
    assert [len(frame) // len(text) for frame in subscriber.frames] == [3, 3, 3, 1]


async def test_channel_left_and_wanted_again_is_confirmed_by_its_last_command(world: World) -> None:
    """The first confirmation comes while an UNSUBSCRIBE is still on its way."""
    world.subscription.subscribe(ALICE)
    world.subscription.unsubscribe([ALICE])
    world.subscription.subscribe(ALICE)
    await await_until(lambda: bool(world.hearer.confirmations))
    await world.publish(ALICE, b"heard")
    await await_until(lambda: world.hearer.messages == [(ALICE, b"heard")])
    assert world.hearer.confirmations == [ALICE]


async def test_10000_channels_are_subscribed_again_after_a_restart(
    world: World, redis_server: EmbeddedServer
) -> None:
    feeds = [Feed(customer_channel(str(n))) for n in range(10_000)]
    for feed in feeds:
        world.subscription.subscribe(feed)
    await await_until(lambda: len(world.hearer.confirmations) == 10_000)
    world.hearer.confirmations.clear()
    redis_server.kill()
    await await_until(lambda: not world.subscription.hears)
    redis_server.start()
    await await_until(lambda: len(world.hearer.confirmations) == 10_000)
    assert set(world.hearer.confirmations) == set(feeds)


async def test_cut_connection_is_noticed_and_confirmed_again(world: World) -> None:
    world.subscription.subscribe(ALICE)
    await await_until(lambda: world.hearer.confirmations == [ALICE])
    await world.redis.client_kill_filter(_type="pubsub")
    await await_until(lambda: world.hearer.confirmations == [ALICE, ALICE])
    await await_until(lambda: world.subscription.hears)


async def test_redis_that_is_frozen_is_noticed_though_its_socket_stays_open(
    world: World, redis_server: EmbeddedServer
) -> None:
    redis_server.stop()
    started = asyncio.get_running_loop().time()
    changes = world.hearer.changes
    await await_until(lambda: world.hearer.changes > changes)
    assert not world.subscription.hears
    assert asyncio.get_running_loop().time() - started < Pace().silence_seconds + 10
    redis_server.resume()
    await await_until(lambda: world.hearer.changes > changes + 1 and world.subscription.hears)


async def test_gateway_recovers_when_a_changed_password_is_restored(
    world: World, redis_server: EmbeddedServer
) -> None:
    await world.redis.config_set("requirepass", "secret")
    await world.redis.client_kill_filter(_type="pubsub")
    await await_until(lambda: not world.subscription.hears)
    admin = connect_server(redis_server.url.replace("redis://", "redis://:secret@"))
    await admin.config_set("requirepass", "")
    await admin.aclose()
    await await_until(lambda: world.subscription.hears)
