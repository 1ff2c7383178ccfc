"""Sending an alert again: as a new event that replaces the first."""

from __future__ import annotations

from typing import Any

import pytest

from shared.channels import customer_channel
from tests.senders import RunningSender, one_database

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
