"""The one connection that hears Redis: what it is told, and what it notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from receiver.subscription import SILENCE_SECONDS, Subscription
from shared.channels import Channel, customer_channel
from shared.log import Names
from shared.redis import connect
from shared.wire import Pipelines
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

ALICE, BOB = customer_channel("alice"), customer_channel("bob")
NAMES = Names("ob-test")


class Listener:
    def __init__(self) -> None:
        self.messages: list[tuple[Channel, bytes]] = []
        self.confirmations: list[Channel] = []
        self.changes = 0
        self.heard: list[tuple[Channel, bytes]] = []  # of whole reads

    def hear(self, channel: Channel, message: bytes) -> None:
        self.messages.append((channel, message))

    def heard_all(self) -> None:
        self.heard = list(self.messages)

    def confirmed(self, channel: Channel) -> None:
        self.confirmations.append(channel)

    def hearing_changed(self) -> None:
        self.changes += 1


class World:
    def __init__(self, redis: Redis, pipelines: Pipelines) -> None:
        self.redis = redis
        self.listener = Listener()
        self.subscription = Subscription(redis, pipelines, NAMES, self.listener, gateway="test")

    async def publish(self, channel: Channel, message: bytes) -> None:
        await self.redis.publish(NAMES.live(channel), message)


@pytest.fixture
async def world(redis_server: EmbeddedServer) -> AsyncIterator[World]:
    async with connect(redis_server.url, retries=0) as redis, Pipelines(redis) as pipelines:
        world = World(redis, pipelines)
        task = asyncio.create_task(world.subscription.run())
        await await_until(lambda: world.subscription.hears)
        yield world
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_messages_of_subscribed_channels_are_heard_and_no_others(world: World) -> None:
    world.subscription.subscribe(ALICE)
    await await_until(lambda: world.listener.confirmations == [ALICE])
    await world.publish(BOB, b"not for us")
    await world.publish(ALICE, b"one")
    await world.publish(ALICE, b"two")
    await await_until(lambda: world.listener.messages == [(ALICE, b"one"), (ALICE, b"two")])
    assert world.listener.heard == world.listener.messages


async def test_channel_left_and_wanted_again_is_confirmed_by_its_last_command(world: World) -> None:
    """The first confirmation would come before an UNSUBSCRIBE that is still on its way."""
    world.subscription.subscribe(ALICE)
    world.subscription.unsubscribe([ALICE])
    world.subscription.subscribe(ALICE)
    await await_until(lambda: bool(world.listener.confirmations))
    await world.publish(ALICE, b"heard")
    await await_until(lambda: world.listener.messages == [(ALICE, b"heard")])
    assert world.listener.confirmations == [ALICE]


async def test_10000_channels_are_subscribed_again_after_a_restart(
    world: World, redis_server: EmbeddedServer
) -> None:
    channels = [customer_channel(str(n)) for n in range(10_000)]
    for channel in channels:
        world.subscription.subscribe(channel)
    await await_until(lambda: len(world.listener.confirmations) == 10_000)
    world.listener.confirmations.clear()
    redis_server.kill()
    await await_until(lambda: not world.subscription.hears)
    redis_server.start()
    await await_until(lambda: len(world.listener.confirmations) == 10_000)
    assert set(world.listener.confirmations) == set(channels)


async def test_cut_connection_is_noticed_and_confirmed_again(world: World) -> None:
    world.subscription.subscribe(ALICE)
    await await_until(lambda: world.listener.confirmations == [ALICE])
    await world.redis.client_kill_filter(_type="pubsub")
    await await_until(lambda: world.listener.confirmations == [ALICE, ALICE])
    await await_until(lambda: world.subscription.hears)


async def test_redis_that_is_frozen_is_noticed_though_its_socket_stays_open(
    world: World, redis_server: EmbeddedServer
) -> None:
    redis_server.stop()
    started = asyncio.get_running_loop().time()
    changes = world.listener.changes
    await await_until(lambda: world.listener.changes > changes)
    assert not world.subscription.hears
    assert asyncio.get_running_loop().time() - started < SILENCE_SECONDS + 1.5
    redis_server.resume()
    await await_until(lambda: world.listener.changes > changes + 1)
    assert world.subscription.hears


async def test_password_that_is_wrong_is_told_and_mended(world: World, redis_server: EmbeddedServer) -> None:
    await world.redis.config_set("requirepass", "secret")
    await world.redis.client_kill_filter(_type="pubsub")
    await await_until(lambda: not world.subscription.hears)
    admin = connect(redis_server.url.replace("redis://", "redis://:secret@"))
    await admin.config_set("requirepass", "")
    await admin.aclose()
    await await_until(lambda: world.subscription.hears)
