"""The names of one installation: no other on the same server uses or hears them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.channels import customer_channel
from shared.cursors import Place
from shared.events import Entry
from shared.redis.channel_log import LogWriter
from shared.redis.cluster import slot_of_key
from shared.redis.connect import connect, pipelines_to
from shared.redis.keys import Names
from tests.waiting import await_until

if TYPE_CHECKING:
    from shared.commands.embedded import EmbeddedServer

ALICE = customer_channel("alice")


def test_names_of_database_0_are_what_they_always_were() -> None:
    """Old and new versions of one installation share them during an upgrade."""
    names = Names.of("redis://h/0", "ob")
    assert names.log(ALICE) == "ob:log:{customer:alice}"
    assert names.head(ALICE) == "ob:head:{customer:alice}"
    assert names.seen(ALICE) == "ob:seen:{customer:alice}"
    assert names.newest() == "ob:generation"
    assert names.ticket("ab") == "ob:ticket:ab"
    assert names.live(ALICE) == "ob:live:{customer:alice}"
    assert names.probe("g") == "ob:probe:g"


def test_pub_sub_names_of_other_databases_carry_the_number() -> None:
    names = Names.of("redis://h/3", "ob")
    assert names.live(ALICE) == "ob:db3:live:{customer:alice}"
    assert names.probe("g") == "ob:db3:probe:g"
    assert names.log(ALICE) == "ob:log:{customer:alice}"


@pytest.mark.parametrize(
    "url", ["redis://h/3", "redis://h?db=3", "unix:///r.sock?db=3", "redis+sentinel://a/s/3"]
)
def test_number_is_found_wherever_the_url_has_it(url: str) -> None:
    assert Names.of(url, "ob").probe("g") == "ob:db3:probe:g"


def test_a_channels_names_share_a_slot() -> None:
    for names in (Names("ob"), Names("other", 3)):
        found = {names.log(ALICE), names.head(ALICE), names.seen(ALICE), names.live(ALICE)}
        assert len({slot_of_key(name.encode()) for name in found}) == 1


@pytest.mark.anyio
async def test_event_of_one_database_is_not_heard_in_another(
    redis_server: EmbeddedServer, key_prefix: str
) -> None:
    """Same server, same prefix, same customer."""
    urls = [redis_server.url.removesuffix("/0") + f"/{number}" for number in range(3)]
    heard: list[tuple[int, bytes]] = []
    async with connect(urls[0]) as redis:
        subscriptions = [redis.pubsub() for _ in urls]  # type: ignore[union-attr] # a single server
        for subscription, url in zip(subscriptions, urls, strict=True):
            await subscription.subscribe(Names.of(url, key_prefix).live(ALICE))

        async def read() -> bool:
            for number, subscription in enumerate(subscriptions):
                message = await subscription.get_message(timeout=0.02)
                if message and message["type"] == "message":
                    heard.append((number, message["data"]))
            return len(heard) >= len(urls)

        for number, url in enumerate(urls):
            async with connect(url) as client, pipelines_to(client) as pipelines:
                text = b'{"of":%d}' % number
                await LogWriter(pipelines, Names.of(url, key_prefix)).publish(
                    [(ALICE, [Entry(Place(1, 1), text)])]
                )
        await await_until(read)
        for subscription in subscriptions:
            await subscription.ping()
            await subscription.get_message(timeout=1)
            assert (
                await subscription.get_message(timeout=0) is None
            )  # nothing of another came before the PONG
            await subscription.aclose()
    assert heard == [(number, b'1 1 {"of":%d}' % number) for number in range(3)]
