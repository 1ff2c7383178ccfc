"""An alert's life, over every transport: taking it back, replacing it, reading it, its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.conformance.websocket import WebSocketDriver
from tests.waiting import await_until

if TYPE_CHECKING:
    from tests.conformance.client import Client, Driver
    from tests.conformance.conftest import Shop
    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio


async def unread_notice(client: Client, unread: int) -> dict[str, Any]:
    """Receive until the client has this count; returns it with its place."""
    async with asyncio.timeout(20):
        while not (told := client.noticed("unread")) or told[-1]["unread"] != unread:
            await client.receive()
    return dict(told[-1])


async def listed(gateway: ReceiverProcess, token: str, query: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, headers=headers) as http:
        answer = await http.get(f"/alerts{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()


async def mark_read(gateway: ReceiverProcess, token: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, headers=headers) as http:
        answer = await http.post("/read", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def retract(shop: Shop, **body: Any) -> Any:
    answer = await shop.http.post("/retractions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_retraction_comes_to_every_device_in_order_behind_what_it_retracts(
    driver: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    token: str,
) -> None:
    async with driver.connected(gateway, token) as one, driver.connected(other_gateway, token) as other:
        await shop.complete(customer)
        event = (await retract(shop, order_id=f"{customer}-{shop.orders}", reason="burnt"))["event"]
        await shop.complete(customer)
        for client in (one, other):
            await client.receive_events(3)
            assert client.seqs == [1, 2, 3]
            assert client.events[1] == event
            assert event["data"]["cursor"] == f"customer:{customer}=1.1"


async def test_device_that_was_away_catches_up_with_both_and_hello_says_how_far(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    await shop.complete(customer, 2)
    await retract(shop, order_id=f"{customer}-{shop.orders}")
    begin = f"customer:{customer}=1.0"
    async with WebSocketDriver().connected(gateway, token, after=begin) as other:
        await other.receive_events(3)  # the gateway has heard of all of them
    async with driver.connected(gateway, token, after=begin) as client:
        assert f"customer:{customer}=1.3" in client.notices[0]["data"]["as_of"].split(",")
        await client.receive_events(3)
        assert client.seqs == [1, 2, 3]
        assert [event["type"] for event in client.events[1:]] == ["order.completed", "orderbell.retracted"]


async def test_count_comes_to_each_device_with_its_place_and_agrees_with_the_list(
    driver: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    token: str,
) -> None:
    async with driver.connected(gateway, token) as one, driver.connected(other_gateway, token) as other:
        await shop.complete(customer, 3)
        for client in (one, other):
            told = await unread_notice(client, 3)
            assert told["as_of"] == f"customer:{customer}=1.3"
        await mark_read(gateway, token, cursor=f"customer:{customer}=1.2")
        for client in (one, other):
            told = await unread_notice(client, 1)
            assert told["as_of"] == f"customer:{customer}=1.4"
            await client.receive_events(4)  # in an answer to a poll, notices come first
            assert client.events[-1]["data"] == {
                "cursor": f"customer:{customer}=1.2",
                "alone": [],
                **told,
            }
        body = await listed(other_gateway, token)
        assert (body["unread"], body["as_of"]) == (1, f"customer:{customer}=1.4")
    async with driver.connected(gateway, token) as late:
        await unread_notice(late, 1)


async def test_replacement_takes_the_place_of_the_first_in_list_and_count(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    changes: list[dict[str, Any]] = [{}, {"replaces": True}]
    async with driver.connected(gateway, token) as client:
        for n, more in enumerate(changes):
            event: dict[str, Any] = {
                "specversion": "1.0",
                "id": f"{customer}-{n}",
                "source": "/s",
                "type": "dish.state",
            }
            event |= {"subject": "1042", "channel": f"customer:{customer}", **more}
            kind = {"content-type": "application/cloudevents+json"}
            assert (await shop.http.post("/events", json=event, headers=kind)).status_code == 202
        await client.receive_events(2)
        assert client.events[1]["replaces"] is True
        await unread_notice(client, 1)
        body = await listed(gateway, token)
        assert [one["event"]["seq"] for one in body["alerts"]] == [2]


async def test_expiry_comes_to_each_device_when_its_time_is_there(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    async with driver.connected(gateway, token) as client:
        event = {"specversion": "1.0", "id": customer, "source": "/s", "type": "offer"}
        event |= {"channel": f"customer:{customer}", "expirytime": "2020-01-01T00:00:00Z"}
        kind = {"content-type": "application/cloudevents+json"}
        assert (await shop.http.post("/events", json=event, headers=kind)).status_code == 202
        await client.receive_events(2)
        assert client.events[1]["type"] == "orderbell.expired"
        assert client.events[1]["data"]["alone"] == [f"customer:{customer}=1.1"]
        assert (await listed(gateway, token))["alerts"][0]["state"] == "expired"


async def test_retraction_in_a_topic_reaches_its_readers(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    async with driver.connected(gateway, token) as client:
        event = {"specversion": "1.0", "id": customer, "source": "/menu", "type": "menu.changed"}
        kind = {"content-type": "application/cloudevents+json"}
        answer = await shop.http.post("/events", json=event | {"channel": f"topic:{customer}"}, headers=kind)
        assert answer.status_code == 202
        await retract(shop, source="/menu", id=customer)
        await client.receive_events(2)
        assert client.events[1]["type"] == "orderbell.retracted"
        body = await listed(gateway, token, f"?channel=topic:{customer}")
        assert [one["state"] for one in body["alerts"]] == ["retracted"]


async def test_list_of_one_customer_is_nobody_elses(
    gateway: ReceiverProcess, shop: Shop, customer: str, token: str, module_processes: Processes
) -> None:
    await shop.complete(customer)
    other = module_processes.token(f"{customer}-other")
    assert len((await listed(gateway, token))["alerts"]) == 1
    assert (await listed(gateway, other))["alerts"] == []
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        headers = {"Authorization": f"Bearer {other}"}
        for path, expected in (
            (f"/alerts?channel=customer:{customer}", 403),
            (f"/alerts?channel=topic:{customer}", 403),
            (f"/alerts?before=customer:{customer}=1.1", 400),
            ("/alerts?limit=0", 400),
            ("/alerts?limit=9999", 400),
            ("/alerts?limit=x", 400),
            ("/alerts?page=2", 400),
            ("/alerts?channel=garbage", 400),
        ):
            answer = await http.get(path, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (
                expected,
                "application/problem+json",
            ), path
        for body, expected in (
            ({"cursor": f"customer:{customer}=1.1"}, 403),
            ({"cursor": "garbage"}, 400),
            ({}, 400),
            ({"ids": ["1"] * 101}, 400),
            ({"ids": "1"}, 400),
        ):
            answer = await http.post("/read", json=body, headers=headers)
            assert answer.status_code == expected, body
        assert (await http.get("/alerts")).status_code == 401
        assert (await http.post("/read", json={"all": True})).status_code == 401
    assert (await listed(gateway, token))["unread"] == 1


async def test_list_is_paged_through_the_gateway_and_all_of_it_can_be_read(
    gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    await shop.complete(customer, 5)
    first = await listed(gateway, token, "?limit=3")
    rest = await listed(gateway, token, f"?limit=3&before={first['before']}")
    assert [one["event"]["seq"] for one in first["alerts"] + rest["alerts"]] == [5, 4, 3, 2, 1]
    assert rest["before"] is None
    one = first["alerts"][1]["event"]["id"]
    assert (await mark_read(gateway, token, ids=[one]))["unread"] == 4
    assert (await mark_read(gateway, token, all=True))["unread"] == 0
    assert (await mark_read(gateway, token, all=True))["unread"] == 0
    states = {entry["state"] for entry in (await listed(gateway, token))["alerts"]}
    assert states == {"read"}


async def test_list_is_for_pages_of_allowed_origins_alone(
    customer: str, token: str, module_processes: Processes, sender: Any
) -> None:
    gateway = module_processes.start_receiver(sender=sender, allowed_origins="https://shop.example")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        ours = await http.get("/alerts", headers=headers | {"Origin": "https://shop.example"})
        assert ours.headers["access-control-allow-origin"] == "https://shop.example"
        assert ours.headers["cache-control"] == "no-store"
        foreign = await http.get("/alerts", headers=headers | {"Origin": "https://evil.example"})
        assert foreign.status_code == 403
        asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        asking["Access-Control-Request-Headers"] = "authorization,content-type"
        assert (await http.options("/read", headers=asking)).status_code == 200
        cookie = {"Cookie": f"orderbell_token={token}"}
        assert (await http.get("/alerts", headers=cookie)).status_code == 200
        assert (await http.post("/read", json={"all": True}, headers=cookie)).status_code == 401
        with_origin = cookie | {"Origin": "https://shop.example"}
        assert (await http.post("/read", json={"all": True}, headers=with_origin)).status_code == 200


async def test_while_the_sender_is_away_the_list_is_too_and_comes_back_with_it(
    customer: str, token: str, module_processes: Processes
) -> None:
    lone = module_processes.start_sender()
    gateway = module_processes.start_receiver(sender=lone)
    assert (await listed(gateway, token))["alerts"] == []
    lone.process.kill()
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20) as http:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await http.get("/alerts", headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert (await http.post("/read", json={"all": True}, headers=headers)).status_code == 503
    await await_until(lambda: lone.process.poll() is not None)


async def test_alert_that_no_device_shows_is_offered_again_where_that_is_set(
    shop: Shop, customer: str, token: str, module_processes: Processes, sender: Any
) -> None:
    gateway = module_processes.start_receiver(sender=sender, ring_again_seconds="0.5")
    async with WebSocketDriver().connected(gateway, token) as client:
        await shop.complete(customer)
        assert await client.receive_notice("ring") == {"cursor": f"customer:{customer}=1.1"}
        await client.report_seen(f"customer:{customer}=1.1")
        rung = len(client.noticed("ring"))
        await shop.complete(customer)
        async with asyncio.timeout(20):
            while len(client.noticed("ring")) == rung or "=1.1" in client.noticed("ring")[-1]["cursor"]:
                await client.receive()
        assert client.noticed("ring")[-1]["cursor"] == f"customer:{customer}=1.2"
