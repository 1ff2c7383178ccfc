"""Sending an alert again: as a new event that replaces the first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from sender.database.tables import events
from sender.retention import Pace
from shared.channels import customer_channel
from tests.senders import RunningSender, one_database, postgres_is_long
from tests.test_sender_retention import outbox_is_empty, retention_of
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")


async def order(sender: RunningSender, order_id: str = "1042") -> Any:
    await sender.place(order_id)
    return (await sender.complete(order_id, json={"data": {"message": "ready"}})).json()["event"]


async def listed(sender: RunningSender) -> list[dict[str, Any]]:
    answer = await sender.client.get(f"/channels/{ALICE}/alerts")
    alerts: list[dict[str, Any]] = answer.json()["alerts"]
    return alerts


async def resend(sender: RunningSender, **asked: str) -> Any:
    answer = await sender.client.post("/resends", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_alert_sent_again_is_a_new_event_and_takes_the_firsts_place_in_the_list(
    sender: RunningSender,
) -> None:
    event = await order(sender)
    await sender.client.post("/seen", json={"cursors": [f"{ALICE}=1.1"]})
    sender.clock.advance(minutes=5)
    again = await resend(sender, order_id="1042")
    assert again["cursor"] == f"{ALICE}=1.2"
    same = ("source", "type", "subject", "channel", "data", "datacontenttype")
    assert {name: again["event"][name] for name in same} == {name: event[name] for name in same}
    assert again["event"]["id"] != event["id"]
    assert again["event"]["replaces"] == event["id"]
    assert again["event"]["time"] > event["time"]
    assert [(one["event"]["id"], one["state"]) for one in await listed(sender)] == [
        (again["event"]["id"], "unseen")
    ]


@postgres_is_long
async def test_an_alert_sent_a_third_time_replaces_the_second(sender: RunningSender) -> None:
    await order(sender)
    second = await resend(sender, order_id="1042")
    third = await resend(sender, order_id="1042")
    assert third["event"]["replaces"] == second["event"]["id"]
    assert len(await listed(sender)) == 1


@one_database
async def test_an_alert_that_expired_is_sent_again_without_its_end(sender: RunningSender) -> None:
    soup = {
        "specversion": "1.0",
        "id": "soup",
        "source": "/kitchen",
        "type": "soup",
        "channel": ALICE,
        "expirytime": "2026-11-23T14:26:00Z",
    }
    headers = {"Content-Type": "application/cloudevents+json"}
    assert (await sender.client.post("/events", json=soup, headers=headers)).status_code == 202
    sender.clock.advance(hours=1)
    again = await resend(sender, source="/kitchen", id="soup")
    assert "expirytime" not in again["event"]
    assert [one["state"] for one in await listed(sender)] == ["unseen"]


@one_database
async def test_what_was_taken_back_or_is_no_alert_is_not_sent_again(sender: RunningSender) -> None:
    await order(sender)
    retraction = (await sender.client.post("/retractions", json={"order_id": "1042"})).json()["event"]
    await sender.place("open")
    for asked, status in (
        ({"order_id": "1042"}, 409),
        ({"order_id": "open"}, 404),
        ({"order_id": "unknown"}, 404),
        ({"source": "/orderbell/sender", "id": "unknown"}, 404),
        ({"source": retraction["source"], "id": retraction["id"]}, 404),
        ({"source": "/orderbell/sender"}, 400),
        ({}, 400),
    ):
        answer = await sender.client.post("/resends", json=asked)
        assert answer.status_code == status, (asked, answer.text)
    assert [one["state"] for one in await listed(sender)] == ["retracted"]


@one_database
async def test_one_key_sends_again_once(sender: RunningSender) -> None:
    await order(sender)
    headers = {"Idempotency-Key": "again"}
    answers = [
        await sender.client.post("/resends", json={"order_id": "1042"}, headers=headers) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"


async def cancel(sender: RunningSender, order_id: str = "1042") -> Any:
    answer = await sender.client.post(f"/orders/{order_id}/cancel")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def retract(sender: RunningSender, **asked: str) -> Any:
    answer = await sender.client.post("/retractions", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def unread(sender: RunningSender) -> int:
    answer = await sender.client.post("/unread", json={"channels": [ALICE]})
    count: int = answer.json()["counts"][0]["unread"]
    return count


async def news(sender: RunningSender, name: str, **attributes: Any) -> dict[str, str]:
    event = {"specversion": "1.0", "id": name, "source": "/kitchen", "type": "dish.news", "channel": ALICE}
    headers = {"Content-Type": "application/cloudevents+json"}
    answer = await sender.client.post("/events", json=event | attributes, headers=headers)
    assert answer.status_code == 202, answer.text
    return {"source": "/kitchen", "id": name}


@pytest.mark.parametrize("way", ["cancel", "retract the order", "retract the first event"])
@postgres_is_long
async def test_what_was_sent_again_is_taken_back_with_its_order(sender: RunningSender, way: str) -> None:
    event = await order(sender)
    for _ in range(2):
        last = (await resend(sender, order_id="1042"))["cursor"]
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "cancel": lambda: cancel(sender),
        "retract the order": lambda: retract(sender, order_id="1042"),
        "retract the first event": lambda: retract(sender, source=event["source"], id=event["id"]),
    }
    first = await ways[way]()
    assert first["event"]["data"]["cursor"] == last
    assert (first["event"]["data"]["unread"], await unread(sender)) == (0, 0)
    assert [(one["cursor"], one["state"]) for one in await listed(sender)] == [(last, "retracted")]
    assert (await ways[way]())["event"] == first["event"]


@one_database
async def test_taking_back_an_event_takes_back_what_has_replaced_it(sender: RunningSender) -> None:
    first = await news(sender, "1", subject="soup")
    await news(sender, "2", replaces="1", subject="soup")
    await news(sender, "3", replaces=True, subject="soup")
    other = await news(sender, "4")
    assert (await retract(sender, **first))["alert"] == f"{ALICE}=1.3"
    assert [(one["event"]["id"], one["state"]) for one in await listed(sender)] == [
        (other["id"], "unseen"),
        ("3", "retracted"),
    ]
    assert await unread(sender) == 1


@one_database
async def test_an_order_whose_first_alert_is_no_longer_kept_takes_back_the_one_sent_again(
    sender: RunningSender,
) -> None:
    await order(sender)
    await resend(sender, order_id="1042")
    sender.clock.advance(days=5)
    third = await resend(sender, order_id="1042")
    await order(sender, "1043")
    await await_until(lambda: outbox_is_empty(sender))
    sender.clock.advance(days=3)
    await retention_of(sender, Pace(doubt_seconds=0)).sweep()
    traced = (await sender.client.get("/trace", params={"order_id": "1042"})).json()["alerts"]
    assert [(one["event"]["cursor"], one["event"]["deleted"]) for one in traced] == [
        (f"{ALICE}=1.1", True),
        (third["cursor"], False),
    ]
    assert (await cancel(sender))["event"]["data"]["cursor"] == third["cursor"]
    assert [one["state"] for one in await listed(sender)] == ["unseen", "retracted"]


@one_database
async def test_an_order_that_was_cancelled_is_not_sent_again_and_says_so(sender: RunningSender) -> None:
    await order(sender)
    await resend(sender, order_id="1042")
    await cancel(sender)
    answer = await sender.client.post("/resends", json={"order_id": "1042"})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orderbell:problem:not-resendable")
    assert answer.json()["detail"] == (
        "order 1042 was cancelled: its alert was taken back and is not sent again"
    )


@one_database
async def test_trace_of_an_order_shows_each_time_it_was_sent(sender: RunningSender) -> None:
    event = await order(sender)
    await resend(sender, order_id="1042")
    await resend(sender, order_id="1042")
    by_event = {"event_id": event["id"]}

    async def traced(**asked: str) -> list[tuple[str, str]]:
        answer = await sender.client.get("/trace", params=asked)
        return [(one["event"]["cursor"], one["verdict"]) for one in answer.json()["alerts"]]

    before = [(f"{ALICE}=1.1", "replaced"), (f"{ALICE}=1.2", "replaced")]
    assert (await traced(order_id="1042"))[:2] == before
    await cancel(sender)
    assert await traced(order_id="1042") == [*before, (f"{ALICE}=1.3", "retracted")]
    assert await traced(**by_event) == await traced(order_id="1042")


@one_database
async def test_erasing_a_customer_erases_what_was_sent_again(sender: RunningSender) -> None:
    await order(sender)
    again = await resend(sender, order_id="1042")
    assert (await sender.client.delete("/customers/alice")).status_code == 200
    assert await listed(sender) == []
    body = {"source": again["event"]["source"], "id": again["event"]["id"]}
    assert (await sender.client.post("/retractions", json=body)).status_code == 404


@one_database
async def test_where_what_was_sent_again_could_not_be_published_the_first_alert_is_taken_back(
    sender: RunningSender,
) -> None:
    await order(sender)
    again = await resend(sender, order_id="1042")
    buried = json.dumps(again["event"] | {"type": "orderbell.tombstone"})
    statement = update(events).where(events.c.seq == 2).values(text=buried)
    await sender.database.write(lambda connection: connection.execute(statement))
    first = await cancel(sender)
    assert first["event"]["data"]["cursor"] == f"{ALICE}=1.1"
    assert (await cancel(sender))["event"] == first["event"]
