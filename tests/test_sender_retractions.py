"""Taking alerts back, and cancelling orders."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.senders import one_database, postgres_is_long
from tests.test_sender_alerts import complete, history, listed, mark_read, post, states, unread

if TYPE_CHECKING:
    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

MENU = "topic:menu"


async def retract(sender: RunningSender, **body: Any) -> Any:
    response = await sender.client.post("/retractions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_retraction_is_an_event_of_the_channel_and_its_alert_stays_in_the_history(
    sender: RunningSender,
) -> None:
    await complete(sender, 2)
    retracted = (await history(sender))[0]
    answer = await retract(sender, order_id="alice-1", reason="the oven is broken")
    assert answer["alert"] == "customer:alice=1.1"
    event = answer["event"]
    assert (event["type"], event["subject"]) == ("orderbell.retracted", "alice-1")
    assert (event["channel"], event["epoch"], event["seq"]) == ("customer:alice", 1, 3)
    assert event["data"] == {
        "cursor": "customer:alice=1.1",
        "id": retracted["id"],
        "source": retracted["source"],
        "reason": "the oven is broken",
        "unread": 1,
        "as_of": "customer:alice=1.3",
    }
    assert await history(sender) == [retracted, (await history(sender))[1], event]
    assert await states(sender) == {"2": "unseen", "1": "retracted"}
    assert await unread(sender) == (1, "customer:alice=1.3")


@postgres_is_long
async def test_repeated_retraction_is_the_same_event_whatever_its_reason(sender: RunningSender) -> None:
    await complete(sender, 1)
    first = await retract(sender, order_id="alice-1", reason="one")
    assert await retract(sender, order_id="alice-1", reason="two") == first
    by_event = {name: first["event"]["data"][name] for name in ("source", "id")}
    assert await retract(sender, **by_event) == first
    assert len(await history(sender)) == 2


async def test_racing_retractions_record_one(sender: RunningSender) -> None:
    await complete(sender, 1)
    answers = await asyncio.gather(*(retract(sender, order_id="alice-1") for _ in range(5)))
    assert [answer == answers[0] for answer in answers] == [True] * 5
    assert len(await history(sender)) == 2


async def test_event_of_a_caller_is_retracted_by_its_source_and_id_in_a_topic_too(
    sender: RunningSender,
) -> None:
    await post(sender, "soup", channel=MENU)
    answer = await retract(sender, source="/kitchen", id="soup")
    assert (answer["alert"], answer["event"]["seq"]) == ("topic:menu=1.1", 2)
    assert "unread" not in answer["event"]["data"]
    body = await listed(sender, MENU)
    assert [one["state"] for one in body["alerts"]] == ["retracted"]


@pytest.mark.parametrize(
    "body", [{"order_id": "never"}, {"source": "/kitchen", "id": "never"}, {"order_id": "open"}]
)
@postgres_is_long
async def test_what_is_unknown_or_has_no_alert_is_not_found(sender: RunningSender, body: Any) -> None:
    await sender.place("open")
    response = await sender.client.post("/retractions", json=body)
    assert response.status_code == 404
    assert response.json()["type"] == "urn:orderbell:problem:unknown-alert"


@postgres_is_long
async def test_retraction_itself_cannot_be_retracted(sender: RunningSender) -> None:
    await complete(sender, 1)
    event = (await retract(sender, order_id="alice-1"))["event"]
    response = await sender.client.post("/retractions", json={"source": event["source"], "id": event["id"]})
    assert response.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "1"},
        {"source": "/kitchen"},
        {"order_id": "1", "id": "1", "source": "/kitchen"},
        {"order_id": "1", "reason": "x" * 501},
        {"order_id": 1},
        {"order": "1"},
    ],
)
@one_database
async def test_retraction_that_names_nothing_or_too_much_is_refused(sender: RunningSender, body: Any) -> None:
    response = await sender.client.post("/retractions", json=body)
    assert (response.status_code, response.json()["type"]) == (400, "urn:orderbell:problem:invalid-body")


@postgres_is_long
async def test_same_idempotency_key_with_another_body_is_refused(sender: RunningSender) -> None:
    await complete(sender, 2)
    headers = {"Idempotency-Key": "k"}
    ask = sender.client.post
    first = await ask("/retractions", json={"order_id": "alice-1"}, headers=headers)
    again = await ask("/retractions", json={"order_id": "alice-1"}, headers=headers)
    other = await ask("/retractions", json={"order_id": "alice-2"}, headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (200, 200, 422)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


@postgres_is_long
async def test_alert_of_an_erased_customer_is_unknown(sender: RunningSender) -> None:
    await complete(sender, 1)
    event = (await history(sender))[0]
    await sender.client.delete("/customers/alice")
    for body in ({"order_id": "alice-1"}, {"source": event["source"], "id": event["id"]}):
        assert (await sender.client.post("/retractions", json=body)).status_code == 404


async def test_retracted_alert_stays_retracted_when_it_is_read_or_replaced(sender: RunningSender) -> None:
    await post(sender, "1")
    await retract(sender, source="/kitchen", id="1")
    await mark_read(sender, cursors=["customer:alice=1.2"])
    await post(sender, "2", replaces="1")
    assert await states(sender) == {"3": "unseen", "1": "retracted"}


@postgres_is_long
async def test_event_of_the_longest_id_can_be_retracted(sender: RunningSender) -> None:
    await post(sender, "x" * 60_000)
    answer = await retract(sender, source="/kitchen", id="x" * 60_000)
    assert answer["event"]["data"]["cursor"] == "customer:alice=1.1"
    assert "id" not in answer["event"]["data"]


async def test_cancelled_order_takes_its_alert_back_and_stays_cancelled(sender: RunningSender) -> None:
    await complete(sender, 1)
    first = await sender.client.post("/orders/alice-1/cancel", json={"reason": "no soup"})
    assert first.status_code == 200
    order, event = first.json()["order"], first.json()["event"]
    assert (order["status"], order["cancelled_at"]) == ("cancelled", "2026-11-23T14:25:00.000Z")
    assert (event["type"], event["data"]["reason"]) == ("orderbell.retracted", "no soup")
    sender.clock.advance(minutes=1)
    assert (await sender.client.post("/orders/alice-1/cancel")).json() == first.json()
    again = await sender.complete("alice-1")
    assert (again.status_code, again.json()["event"]["seq"]) == (200, 1)
    assert len(await history(sender)) == 2


@postgres_is_long
async def test_cancelled_open_order_never_alerts(sender: RunningSender) -> None:
    await sender.place("1")
    answer = (await sender.client.post("/orders/1/cancel")).json()
    assert (answer["order"]["status"], answer["event"]) == ("cancelled", None)
    refused = await sender.complete("1")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:orderbell:problem:order-cancelled")
    assert await history(sender) == []
    assert (await sender.client.post("/orders/2/cancel")).status_code == 404


async def test_orders_are_listed_by_whether_they_were_cancelled(sender: RunningSender) -> None:
    for order_id in ("open", "done", "cancelled", "taken-back"):
        await sender.place(order_id)
    for order_id in ("done", "taken-back"):
        await sender.complete(order_id)
    for order_id in ("cancelled", "taken-back"):
        await sender.client.post(f"/orders/{order_id}/cancel")

    async def ids(status: str) -> list[str]:
        body = (await sender.client.get("/orders", params={"status": status})).json()
        assert {order["status"] for order in body["orders"]} == {status}
        return [order["order_id"] for order in body["orders"]]

    assert await ids("open") == ["open"]
    assert await ids("completed") == ["done"]
    assert await ids("cancelled") == ["taken-back", "cancelled"]
