"""Customers, topics and orders keep their given names, from the token to the cursor and back."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest

from shared.channels import Channel, customer_channel, name_in, topic_channel
from tests.end_to_end.test_main_path import api
from tests.senders import run_sender
from tests.test_channels import REAL
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio


async def test_any_customer_and_order_goes_all_the_way(processes: Processes) -> None:
    """Token, gateway, Redis, database, history, seen cursor, `?after=` as it is and encoded once more."""
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with api(processes, sender) as client:
        for customer in REAL:
            channel, token = customer_channel(customer), processes.token(customer)
            async with connected(gateway, token) as browser:
                assert browser.notices[0]["data"]["channels"] == [channel]
                for order_id in (f"2026/{customer}"[:128], f"{customer}?#"[-128:]):
                    body = {"order_id": order_id, "customer_id": customer}
                    placed = await client.post("/orders", json=body)
                    assert (placed.status_code, placed.json()["order_id"]) == (201, order_id)
                    path = f"/orders/{quote(order_id, safe='')}/complete"
                    completed = await client.post(path)
                    assert completed.status_code == 200, (path, completed.text)
                    event = completed.json()["event"]
                    assert (event["channel"], event["subject"]) == (channel, order_id)
                    assert event["data"]["customer_id"] == customer
                    assert await browser.receive() == event
                await browser.report_seen(f"{channel}=1.1")
            for in_path in (channel, quote(channel, safe="")):
                read = (await client.get(f"/channels/{in_path}/events?after={channel}=1.1")).json()
                assert "events" in read, (in_path, read)
                assert ([event["seq"] for event in read["events"]], read["cursor"]) == ([2], f"{channel}=1.2")
            listed = (await client.get("/orders", params={"customer_id": customer})).json()
            assert (len(listed["orders"]), listed["as_of"]) == (2, f"{channel}=1.2")
            await await_until_a_new_device_starts_at(gateway, token, f"{channel}=1.1")
            for query in (f"after={channel}=1.1", urlencode({"after": f"{channel}=1.1"}), ""):
                async with connected(gateway, token, query=query) as browser:
                    assert browser.notices[0]["data"]["cursor"] == f"{channel}=1.1"
                    assert [event["seq"] for event in await browser.receive_events(1)] == [2]


async def await_until_a_new_device_starts_at(gateway: ReceiverProcess, token: str, cursor: str) -> None:
    """The report of what was seen passes through the sender, the database and Redis."""
    started = None
    while started != cursor:  # each turn waits for the gateway; the test's own deadline ends it
        async with connected(gateway, token) as browser:
            started = browser.notices[0]["data"]["cursor"]


async def test_any_topic_is_read_by_those_whose_token_names_it(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    topics = ["menu", "menu/today, 寿司", "sales 100%"]
    async with (
        api(processes, sender) as client,
        connected(gateway, processes.token("alice", topics=topics)) as browser,
    ):
        for topic in topics:
            event = {"specversion": "1.0", "id": topic, "source": "/s", "type": "t"}
            answer = await client.post(
                "/events",
                json=event | {"channel": topic_channel(topic)},
                headers={"Content-Type": "application/cloudevents+json"},
            )
            assert answer.status_code == 202, answer.text
            assert (await browser.receive())["channel"] == topic_channel(topic)


def look_alikes() -> list[str]:
    """Names that differ by case, a dot, a space, an escape or a form of Unicode; drawn, and some by hand."""
    draw = random.Random(1042)
    pieces = [
        "a",
        "A",
        ".",
        "%",
        "7C",
        "7c",
        "|",
        "%7C",
        "%257C",
        "é",
        "e\u0301",
        "а",
        " ",
        "\u200b",
        ",",
        "=1.1",
    ]
    drawn = {"".join(draw.choices(pieces, k=draw.randint(1, 4))) for _ in range(400)}
    by_hand = {
        "alice",
        "Alice",
        "ALICE",
        "alice.",
        "alice ",
        "аlice",
        "a/b",
        "a%2Fb",
        "{a}",
        "ß",
        "ss",
        "ﬁ",
        "fi",
    }
    return sorted(drawn | by_hand)


@pytest.mark.long
async def test_customers_who_look_alike_stay_apart(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    names = look_alikes()
    assert len(names) > 250
    async with run_sender(database_url, redis_url, key_prefix) as sender:
        for number, name in enumerate(names):
            assert (await sender.place(f"{number}", name)).status_code == 201
            assert (await sender.complete(f"{number}")).json()["event"]["seq"] == 1
        for number, name in enumerate(names):
            channel = customer_channel(name)
            listed = (await sender.client.get("/orders", params={"customer_id": name})).json()
            assert [order["order_id"] for order in listed["orders"]] == [str(number)]
            read = (await sender.client.get(f"/channels/{quote(channel, safe='')}/events")).json()
            assert [event["subject"] for event in read["events"]] == [str(number)]
        keys: set[str] = set()
        while len(keys) < len(names):
            found = await sender.redis.keys(f"{key_prefix}:log:*")
            keys = {str(key, "ascii") for key in found if isinstance(key, bytes)}
        exposed = (await sender.client.get("/metrics")).text
    channels = [re.fullmatch(rf"{key_prefix}:log:\{{(customer:[^{{}}]+)\}}", key) for key in keys]
    assert sorted(name_in(Channel(match[1])) for match in channels if match) == names
    assert "customer:" not in exposed
    assert not [name for name in names if len(name) > 3 and name in exposed]
