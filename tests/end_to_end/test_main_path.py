"""An order is completed, its customer gets one event at every connection. All parts are real."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from sender import beginnings
from sender.beginnings import STEP
from sender.database.open import open_database
from tests.pruned import prune_events
from tests.waiting import await_until
from tests.websocket_client import Client, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Processes, SenderProcess

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def api(processes: Processes, sender: SenderProcess) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=sender.url, headers=processes.api_headers, trust_env=False, timeout=20
    ) as client:
        yield client


async def complete(client: httpx2.AsyncClient, order_id: str, customer: str) -> dict[str, Any]:
    """Place an order and complete it; the event."""
    placed = await client.post("/orders", json={"order_id": order_id, "customer_id": customer})
    assert placed.status_code in (200, 201), placed.text
    completed = await client.post(f"/orders/{order_id}/complete", json={})
    assert completed.status_code == 200, completed.text
    return dict(completed.json()["event"])


async def test_every_connection_of_the_customer_gets_the_event_and_no_other_customers(
    processes: Processes,
) -> None:
    sender = processes.start_sender()
    one, other = processes.start_receiver(), processes.start_receiver()
    alice, bob = processes.token("alice"), processes.token("bob")
    async with (
        connected(one, alice) as alice_on_one,
        connected(other, alice) as alice_on_other,
        connected(one, bob) as bobs,
        api(processes, sender) as client,
    ):
        event = await complete(client, "1042", "alice")
        assert await alice_on_one.receive() == event
        assert await alice_on_other.receive() == event
        assert event["type"] == "order.completed"
        assert (event["channel"], event["seq"]) == ("customer:alice", 1)
        assert event["data"]["order_id"] == "1042"
        # The first event that Bob gets is his own: none of Alice's came before it.
        bobs_event = await complete(client, "1043", "bob")
        assert await bobs.receive() == bobs_event


async def test_200_orders_of_20_customers_from_8_callers_arrive_once_and_in_order(
    processes: Processes,
) -> None:
    sender = processes.start_sender()
    gateways = processes.start_receiver(), processes.start_receiver()
    customers = [f"customer-{n}" for n in range(20)]
    orders = [(f"order-{n}", customers[n % 20]) for n in range(200)]
    async with contextlib.AsyncExitStack() as stack:
        clients: dict[str, list[Client]] = {
            customer: [
                await stack.enter_async_context(connected(gateway, processes.token(customer)))
                for gateway in gateways
            ]
            for customer in customers
        }
        caller = await stack.enter_async_context(api(processes, sender))
        waiting = iter(orders)

        async def call() -> None:
            for order_id, customer in waiting:
                await complete(caller, order_id, customer)

        await asyncio.gather(*(call() for _ in range(8)))
        for customer, connections in clients.items():
            for connection in connections:
                await connection.receive_events(10)
                assert connection.seqs == list(range(1, 11))
                orders_shown = {event["data"]["order_id"] for event in connection.events}
                assert orders_shown == {order_id for order_id, whose in orders if whose == customer}


async def test_browser_that_comes_back_gets_what_it_missed_and_nothing_it_had(processes: Processes) -> None:
    sender = processes.start_sender()
    one, other = processes.start_receiver(), processes.start_receiver()
    token = processes.token("alice")
    async with api(processes, sender) as client:
        async with connected(one, token) as browser:
            await complete(client, "1", "alice")
            assert (await browser.receive())["seq"] == 1
        missed = [await complete(client, str(n), "alice") for n in (2, 3)]
        async with connected(other, token, query="after=customer:alice=1.1") as browser:
            assert await browser.receive_events(2) == missed
            live = await complete(client, "4", "alice")
            assert await browser.receive() == live


async def test_new_browser_starts_after_what_another_device_has_shown(processes: Processes) -> None:
    sender = processes.start_sender()
    one, other = processes.start_receiver(), processes.start_receiver()
    token = processes.token("alice")
    async with api(processes, sender) as client:
        async with connected(one, token) as phone, connected(other, token) as desktop:
            for n in (1, 2):
                await complete(client, str(n), "alice")
            await phone.receive_events(2)
            await phone.report_seen("customer:alice=1.2")
            while not (told := [n for n in desktop.notices if n["type"] == "orderbell.seen"]):
                await desktop.receive()
            assert told[0]["data"] == {"cursor": "customer:alice=1.2"}
        third = await complete(client, "3", "alice")
        async with connected(other, token) as new:
            assert new.notices[0]["data"]["cursor"] == "customer:alice=1.2"
            assert await new.receive() == third


async def test_returning_device_first_hears_what_another_has_shown(processes: Processes) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    token = processes.token("alice")
    async with api(processes, sender) as client, connected(gateway, token) as phone:
        for n in (1, 2):
            await complete(client, str(n), "alice")
        await phone.receive_events(2)
        await phone.report_seen("customer:alice=1.1")
        while phone.notices[-1]["type"] != "orderbell.seen":
            await phone.receive()
        async with connected(gateway, token, query="after=customer:alice=1.0") as desktop:
            told = await desktop.receive()
            assert (told["type"], told["data"]) == ("orderbell.seen", {"cursor": "customer:alice=1.1"})
            await desktop.receive_events(2)
            assert desktop.seqs == [1, 2]


async def test_topic_reaches_those_whose_token_lists_it(processes: Processes) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    reader, other = processes.token("alice", topics=["menu"]), processes.token("bob")
    event = {
        "specversion": "1.0",
        "id": "m1",
        "source": "/kitchen",
        "type": "menu.changed",
        "data": {"soup": 3},
    }
    async with (
        connected(gateway, reader) as alice,
        connected(gateway, other) as bob,
        api(processes, sender) as client,
    ):
        answer = await client.post(
            "/events",
            json={**event, "channel": "topic:menu"},
            headers={"content-type": "application/cloudevents+json"},
        )
        assert answer.status_code == 202, answer.text
        received = await alice.receive()
        assert (received["channel"], received["data"]) == ("topic:menu", {"soup": 3})
        await complete(client, "1", "bob")
        assert (await bob.receive())["channel"] == "customer:bob"


async def test_order_completed_while_redis_is_down_is_answered_at_once_and_arrives(
    processes: Processes, redis_server: EmbeddedServer
) -> None:
    processes.redis_url = redis_server.url
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with connected(gateway, processes.token("alice")) as browser, api(processes, sender) as client:
        await complete(client, "1", "alice")
        await browser.receive_events(1)
        redis_server.kill()
        started = asyncio.get_running_loop().time()
        await complete(client, "2", "alice")
        assert asyncio.get_running_loop().time() - started < 5  # and not when Redis is back
        redis_server.start()
        await browser.receive_events(2)
        await complete(client, "3", "alice")
        await browser.receive_events(3)
        assert browser.seqs == [1, 2, 3]


async def test_redis_away_means_that_events_are_pulled_from_the_sender(
    processes: Processes, redis_server: EmbeddedServer
) -> None:
    processes.redis_url = redis_server.url
    sender, gateway = processes.start_sender(), processes.start_receiver()
    token = processes.token("alice")
    async with connected(gateway, token) as browser, api(processes, sender) as client:
        redis_server.kill()
        await await_until(lambda: gateway.records("redis is not heard"))
        assert gateway.answers("/readyz")  # customers are served
        for n in (1, 2):
            await complete(client, str(n), "alice")
        await browser.receive_events(2)
        # A browser that comes while Redis is away is served as well.
        async with connected(gateway, token, query="after=customer:alice=1.0") as late:
            await late.receive_events(2)
        redis_server.start()
        await await_until(lambda: len(gateway.records("redis is heard")) == 2)
        await complete(client, "3", "alice")
        await browser.receive_events(3)
        assert browser.seqs == [1, 2, 3]


async def test_frozen_redis_is_noticed_and_events_arrive_meanwhile(
    processes: Processes, redis_server: EmbeddedServer
) -> None:
    processes.redis_url = redis_server.url
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with connected(gateway, processes.token("alice")) as browser, api(processes, sender) as client:
        redis_server.stop()
        await await_until(lambda: gateway.records("redis is not heard"))
        await complete(client, "1", "alice")
        await browser.receive_events(1)
        redis_server.resume()
        await await_until(lambda: len(gateway.records("redis is heard")) == 2)
        await complete(client, "2", "alice")
        await browser.receive_events(2)
        assert browser.seqs == [1, 2]


async def test_sender_killed_right_after_its_commit_leaves_an_alert_that_comes_once(
    processes: Processes, redis_server: EmbeddedServer
) -> None:
    """While Redis is away, the relay can't publish before the kill: only the committed row is left."""
    processes.redis_url = redis_server.url
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with connected(gateway, processes.token("alice")) as browser:
        redis_server.kill()
        async with api(processes, sender) as client:
            event = await complete(client, "1", "alice")
            sender.kill()
        redis_server.start()
        await await_until(lambda: len(gateway.records("redis is heard")) == 2)
        sender.start()
        assert await browser.receive() == event
        async with api(processes, sender) as client:
            await complete(client, "2", "alice")
        await browser.receive_events(2)
        assert browser.seqs == [1, 2]


async def test_connected_devices_get_the_next_event_though_their_channel_was_removed_or_the_mark_moved(
    processes: Processes, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'orders.db'}"
    sender, gateway = processes.start_sender(database_url=url), processes.start_receiver()
    alice, carol = processes.token("alice"), processes.token("carol")
    async with api(processes, sender) as client:
        async with connected(gateway, alice) as had_one, connected(gateway, carol) as had_none:
            await complete(client, "1", "alice")
            await had_one.receive()
            had_one.events.clear()
            await complete(client, "2", "bob")  # the newest of all is kept
            await remove_all_but_the_newest(url)
            for order_id, customer, device in (("3", "alice", had_one), ("4", "carol", had_none)):
                event = await complete(client, order_id, customer)
                assert event["seq"] == STEP + 1
                assert await device.receive_events(1) == [event]
                resets = [notice for notice in device.notices if notice["type"] == "orderbell.reset"]
                assert [reset["data"]["reason"] for reset in resets] == ["pruned"]
        async with connected(gateway, alice, query="after=customer:alice=1.1") as returned:
            [event] = await returned.receive_events(1)
            assert event["data"]["order_id"] == "3"
            assert "orderbell.reset" in [notice["type"] for notice in returned.notices]


async def remove_all_but_the_newest(url: str) -> None:
    async with open_database(url) as database:

        async def pruned() -> bool:
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            await database.write(partial(prune_events, before=tomorrow, limit=500))
            looked = await database.read(partial(beginnings.look, after="", limit=10))
            await database.write(partial(beginnings.raise_mark, seq=looked.highest))
            return await database.write(partial(beginnings.remove, names=looked.empty)) == 1

        await await_until(pruned)
