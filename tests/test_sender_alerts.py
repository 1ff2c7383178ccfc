"""Alerts at a sender: which are unread, and what became of each."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from sender import alerts
from sender.database.tables import alert_states
from shared.channels import Channel
from tests.senders import one_database, postgres_is_long, run_sender
from tests.test_sender_retention import outbox_is_empty, retention_of
from tests.waiting import await_until

if TYPE_CHECKING:
    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

ALICE = Channel("customer:alice")


async def complete(sender: RunningSender, count: int, customer: str = "alice", first: int = 1) -> None:
    for n in range(first, first + count):
        assert (await sender.place(f"{customer}-{n}", customer)).status_code == 201
        assert (await sender.complete(f"{customer}-{n}")).status_code == 200


async def post(sender: RunningSender, event_id: str, **attributes: Any) -> Any:
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/kitchen",
        "type": "dish.news",
        "channel": ALICE,
    }
    response = await sender.client.post(
        "/events",
        content=json.dumps(event | {"channel": ALICE} | attributes),
        headers={"content-type": "application/cloudevents+json"},
    )
    assert response.status_code == 202, response.text
    return response.json()["results"][0]


async def listed(sender: RunningSender, channel: str = ALICE, **query: Any) -> Any:
    response = await sender.client.get(f"/channels/{channel}/alerts", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def states(sender: RunningSender) -> dict[str, str]:
    """The states by seq."""
    body = await listed(sender)
    return {one["cursor"].rpartition(".")[2]: one["state"] for one in body["alerts"]}


async def mark_read(sender: RunningSender, **body: Any) -> Any:
    response = await sender.client.post("/read", json=body)
    assert response.status_code == 200, response.text
    return response.json()["counts"]


async def unread(sender: RunningSender, channel: str = ALICE) -> tuple[int, str]:
    """The unread alerts by both calls, which must agree."""
    response = await sender.client.post("/unread", json={"channels": [channel]})
    (count,) = response.json()["counts"]
    body = await listed(sender, channel)
    assert (count["unread"], count["as_of"]) == (body["unread"], body["as_of"])
    return count["unread"], count["as_of"]


async def history(sender: RunningSender, channel: str = ALICE) -> list[Any]:
    response = await sender.client.get(f"/channels/{channel}/events", params={"limit": 1000})
    assert response.status_code == 200, response.text
    events: list[Any] = response.json()["events"]
    return events


async def test_every_alert_is_unread_until_it_is_read_up_to_a_cursor(sender: RunningSender) -> None:
    await complete(sender, 3)
    assert await unread(sender) == (3, "customer:alice=1.3")
    assert await mark_read(sender, cursors=["customer:alice=1.2"]) == [
        {"channel": ALICE, "unread": 1, "as_of": "customer:alice=1.4"}
    ]
    assert await unread(sender) == (1, "customer:alice=1.4")
    assert await states(sender) == {"3": "unseen", "2": "read", "1": "read"}


@postgres_is_long
async def test_reading_is_an_event_of_the_channel_that_carries_the_count(sender: RunningSender) -> None:
    await complete(sender, 2)
    await mark_read(sender, cursors=["customer:alice=1.1"])
    event = (await history(sender))[-1]
    assert (event["type"], event["seq"]) == ("orderbell.read", 3)
    assert event["data"] == {
        "cursor": "customer:alice=1.1",
        "alone": [],
        "unread": 1,
        "as_of": "customer:alice=1.3",
    }


async def test_single_alert_is_read_by_its_id_and_the_others_stay_unread(sender: RunningSender) -> None:
    await complete(sender, 3)
    event_id = (await history(sender))[1]["id"]
    (count,) = await mark_read(sender, ids=[event_id, "of-nothing"], customer_id="alice")
    assert count["unread"] == 2
    assert await states(sender) == {"3": "unseen", "2": "read", "1": "unseen"}
    assert (await history(sender))[-1]["data"]["alone"] == ["customer:alice=1.2"]
    (count,) = await mark_read(sender, cursors=[count["as_of"]])
    assert count["unread"] == 0
    assert set((await states(sender)).values()) == {"read"}


async def test_alerts_that_are_read_alone_leave_no_rows_behind_them(sender: RunningSender) -> None:
    """Counting reads all rows of the channel's unread part."""

    async def rows() -> int:
        kept = select(func.count()).select_from(alert_states)
        return int(await sender.database.read(lambda connection: connection.execute(kept).scalar_one()))

    await complete(sender, 6)
    ids = [event["id"] for event in await history(sender)]
    for n, event_id in enumerate(ids[1:], 1):  # all but the first
        await mark_read(sender, ids=[event_id], customer_id="alice")
        assert (await unread(sender))[0] == 6 - n
    assert await rows() == 10
    await mark_read(sender, ids=[ids[0]], customer_id="alice")
    assert (await unread(sender))[0] == 0
    assert await rows() == 0
    await complete(sender, 1, first=7)
    assert (await unread(sender))[0] == 1
    assert await states(sender) == {"13": "unseen", **{str(n): "read" for n in range(1, 7)}}


async def test_alerts_read_alone_beyond_one_that_expired_or_was_replaced_leave_no_rows_either(
    sender: RunningSender,
) -> None:
    async def rows() -> list[str]:
        kept = select(alert_states.c.state).order_by(alert_states.c.seq)
        return list(await sender.database.read(lambda connection: connection.execute(kept).scalars().all()))

    await post(sender, "over", expirytime="2020-01-01T00:00:00Z")
    await sender.database.write(partial(alerts.expire, now=sender.clock()))
    await post(sender, "soup")
    await post(sender, "stew", replaces="soup")
    await complete(sender, 2)
    for event_id in ("stew", *(event["id"] for event in (await history(sender))[-2:])):
        await mark_read(sender, ids=[event_id], customer_id="alice")
    assert (await unread(sender))[0] == 0
    assert await rows() == ["expired", "replaced"]


@postgres_is_long
async def test_reading_again_changes_nothing_and_records_nothing(sender: RunningSender) -> None:
    await complete(sender, 2)
    first = await mark_read(sender, cursors=["customer:alice=1.2"])
    assert await mark_read(sender, cursors=["customer:alice=1.1"]) == first
    assert await mark_read(sender, cursors=["customer:alice=1.2"]) == first
    assert len(await history(sender)) == 3


@pytest.mark.parametrize("cursor", ["customer:alice=1.9", "customer:alice=2.1", "customer:bob=1.1"])
@postgres_is_long
async def test_what_was_never_there_cannot_be_read(sender: RunningSender, cursor: str) -> None:
    await complete(sender, 2)
    await mark_read(sender, cursors=[cursor])
    assert await unread(sender) == (2, "customer:alice=1.2")


@pytest.mark.parametrize(
    "body",
    [
        {"cursors": ["topic:menu=1.1"]},
        {"cursors": ["garbage"]},
        {"ids": ["1"]},
        {"ids": ["1"] * 101, "customer_id": "alice"},
        {"cursor": "customer:alice=1.1"},
    ],
)
@postgres_is_long
async def test_what_cannot_be_read_is_refused_and_marks_nothing(sender: RunningSender, body: Any) -> None:
    await complete(sender, 1)
    response = await sender.client.post("/read", json=body)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert await unread(sender) == (1, "customer:alice=1.1")


async def test_racing_readers_end_with_one_count_for_all(sender: RunningSender) -> None:
    await complete(sender, 5)
    ids = [event["id"] for event in await history(sender)]
    reads = [mark_read(sender, ids=[one], customer_id="alice") for one in ids[2:]]
    await asyncio.gather(*reads, *(mark_read(sender, cursors=[f"customer:alice=1.{n}"]) for n in (1, 2, 1)))
    count, as_of = await unread(sender)
    assert count == 0
    told = [event["data"] for event in await history(sender) if event["type"] == "orderbell.read"]
    assert [one["unread"] for one in told] == sorted((one["unread"] for one in told), reverse=True)
    assert told[-1]["as_of"] == as_of


@postgres_is_long
async def test_seen_alerts_are_listed_as_seen_and_stay_unread(sender: RunningSender) -> None:
    await complete(sender, 2)
    await sender.client.post("/seen", json={"cursors": ["customer:alice=1.1"]})
    assert await states(sender) == {"2": "unseen", "1": "seen"}
    assert (await unread(sender))[0] == 2


async def test_list_is_paged_newest_first_without_gap_or_repeat(sender: RunningSender) -> None:
    await complete(sender, 7)
    await mark_read(sender, cursors=["customer:alice=1.3"])
    seqs, before = [], None
    for _ in range(10):
        body = await listed(sender, limit=2, **({"before": before} if before else {}))
        seqs += [one["event"]["seq"] for one in body["alerts"]]
        assert len(body["alerts"]) <= 2
        before = body["before"]
        if before is None:
            break
    assert seqs == [7, 6, 5, 4, 3, 2, 1]


@postgres_is_long
async def test_list_of_a_channel_without_events_is_empty(sender: RunningSender) -> None:
    assert await listed(sender, "customer:nobody") == {
        "alerts": [],
        "unread": 0,
        "as_of": "customer:nobody=1.0",
        "before": None,
    }


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=x", "before=customer:bob=1.1", "after=1"])
@one_database
async def test_list_refuses_what_it_does_not_know(sender: RunningSender, query: str) -> None:
    response = await sender.client.get(f"/channels/{ALICE}/alerts?{query}")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")


async def test_alert_whose_time_is_over_is_expired_and_no_longer_unread(sender: RunningSender) -> None:
    await post(sender, "1", expirytime="2026-11-23T15:25:30+01:00")  # in half a minute
    await post(sender, "2")
    assert (await unread(sender))[0] == 2
    sender.clock.advance(seconds=31)
    assert (await unread(sender))[0] == 1
    assert await states(sender) == {"2": "unseen", "1": "expired"}


async def test_expiry_is_recorded_once_with_the_count_and_its_place(sender: RunningSender) -> None:
    for event_id in ("1", "2"):
        await post(sender, event_id, expirytime="2026-11-23T14:25:30Z")
    await post(sender, "3", expirytime="2026-11-23T14:35:30Z")
    expire = partial(alerts.expire, now=sender.clock())
    assert await sender.database.write(expire) is False
    sender.clock.advance(seconds=30)
    assert await sender.database.write(partial(alerts.expire, now=sender.clock())) is True
    assert await sender.database.write(partial(alerts.expire, now=sender.clock())) is False
    event = (await history(sender))[-1]
    assert (event["type"], event["seq"]) == ("orderbell.expired", 4)
    assert event["data"] == {
        "alone": ["customer:alice=1.1", "customer:alice=1.2"],
        "unread": 1,
        "as_of": "customer:alice=1.4",
    }
    assert await unread(sender) == (1, "customer:alice=1.4")


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize("by_cursor", [True, False])
@postgres_is_long
async def test_reading_an_expired_alert_changes_nothing(
    sender: RunningSender, swept: bool, by_cursor: bool
) -> None:
    moment = "2026-11-23T14:26:00Z"
    answer = await sender.client.post("/orders", json={"order_id": "1", "customer_id": "alice"})
    assert answer.status_code == 201
    event = (await sender.complete("1", json={"expirytime": moment})).json()["event"]
    sender.clock.advance(minutes=2)
    if swept:
        assert await sender.database.write(partial(alerts.expire, now=sender.clock())) is True
    assert await states(sender) == {"1": "expired"}
    body = (
        {"cursors": ["customer:alice=1.1"]} if by_cursor else {"ids": [event["id"]], "customer_id": "alice"}
    )
    for _ in range(2):
        (await sender.client.post("/read", json=body)).raise_for_status()
        assert await states(sender) == {"1": "expired"}
        assert (await unread(sender))[0] == 0
        found = (await sender.client.get("/channels/customer:alice/events")).json()["events"]
        assert "orderbell.read" not in [one["type"] for one in found]


@pytest.mark.parametrize("alone", [True, False])
async def test_alert_that_was_read_is_listed_as_expired_afterwards_and_no_device_is_notified(
    sender: RunningSender, alone: bool
) -> None:
    """The list must not show as valid what no longer is."""
    await post(sender, "1", expirytime="2026-11-23T14:25:30Z")
    if alone:
        await mark_read(sender, ids=["1"], customer_id="alice")
    else:
        await mark_read(sender, cursors=["customer:alice=1.1"])
    assert await states(sender) == {"1": "read"}
    sender.clock.advance(minutes=1)
    await sender.database.write(partial(alerts.expire, now=sender.clock()))
    assert [event["type"] for event in await history(sender)] == ["dish.news", "orderbell.read"]
    assert await states(sender) == {"1": "expired"}
    assert (await unread(sender))[0] == 0


@pytest.mark.parametrize(
    "attributes",
    [{"expirytime": "tomorrow"}, {"popuntil": 5}, {"expirytime": "2026-11-23T14:25:00"}, {"replaces": 7}],
)
@one_database
async def test_lifetime_that_is_no_time_is_refused(sender: RunningSender, attributes: Any) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a", "channel": ALICE} | attributes
    response = await sender.client.post(
        "/events", content=json.dumps(event), headers={"content-type": "application/cloudevents+json"}
    )
    assert (response.status_code, response.json()["type"]) == (400, "urn:orderbell:problem:invalid-event")


async def test_replacement_takes_the_place_of_what_it_names_in_list_and_count(sender: RunningSender) -> None:
    await post(sender, "oven", subject="1042")
    await post(sender, "other")
    await post(sender, "ready", replaces="oven")
    assert await states(sender) == {"3": "unseen", "2": "unseen"}
    assert (await unread(sender))[0] == 2
    assert len(await history(sender)) == 3


async def test_replacement_by_subject_takes_the_place_of_all_before_it(sender: RunningSender) -> None:
    await post(sender, "1", subject="1042")
    await post(sender, "2", subject="1042")
    await post(sender, "3", subject="1043")
    await post(sender, "4", subject="1042", source="/till")
    await post(sender, "5", subject="1042", replaces=True)
    assert await states(sender) == {"5": "unseen", "4": "unseen", "3": "unseen"}
    assert (await unread(sender))[0] == 3


@postgres_is_long
async def test_replacement_of_something_unknown_is_an_alert_of_its_own(sender: RunningSender) -> None:
    await post(sender, "1", replaces="nothing")
    await post(sender, "2", replaces="2")
    assert (await unread(sender))[0] == 2


@postgres_is_long
async def test_repeated_replacement_replaces_nothing_more(sender: RunningSender) -> None:
    await post(sender, "1", subject="a")
    await post(sender, "2", subject="a", replaces=True)
    await post(sender, "3", subject="a")
    assert (await post(sender, "2", subject="a", replaces=True))["status"] == "duplicate"
    assert await states(sender) == {"3": "unseen", "2": "unseen"}


@postgres_is_long
async def test_erased_customer_has_no_alerts_and_comes_back_with_none(sender: RunningSender) -> None:
    await complete(sender, 3)
    event_id = (await history(sender))[1]["id"]
    await mark_read(sender, ids=[event_id], customer_id="alice")
    assert (await sender.client.delete("/customers/alice")).status_code == 200
    assert (await listed(sender))["alerts"] == []
    assert (await unread(sender))[0] == 0
    await complete(sender, 1, first=9)
    assert await unread(sender) == (1, "customer:alice=1.5")


async def test_what_the_history_has_pruned_is_neither_listed_nor_counted(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_sender(database_url, redis_url, key_prefix) as sender:
        await complete(sender, 3)
        ids = [event["id"] for event in await history(sender)]
        await mark_read(sender, ids=ids[1:2], customer_id="alice")
        sender.clock.advance(days=6)
        await complete(sender, 2, first=4)
        await complete(sender, 1, customer="bob")
        await await_until(lambda: outbox_is_empty(sender))
        sender.clock.advance(days=2)
        await complete(sender, 1, customer="carol")
        await retention_of(sender).sweep()
        assert await states(sender) == {"6": "unseen", "5": "unseen"}
        assert await unread(sender) == (2, "customer:alice=1.6")
        looked = await sender.database.read(alerts.look)
        assert looked.last is None
        pruned = await sender.database.write(partial(alerts.prune, up_to=looked.gone))
        assert pruned == 2  # the one that was read, and that event
        assert await unread(sender) == (2, "customer:alice=1.6")


async def test_count_is_that_of_the_list_whatever_happened(sender: RunningSender) -> None:
    await complete(sender, 6)
    ids = [event["id"] for event in await history(sender)]
    await mark_read(sender, ids=[ids[4]], customer_id="alice")
    await sender.client.post("/retractions", json={"order_id": "alice-2"})
    await mark_read(sender, cursors=["customer:alice=1.1"])
    await sender.client.post("/retractions", json={"order_id": "alice-1"})
    await sender.client.post("/retractions", json={"order_id": "alice-5"})
    await post(sender, "new", replaces="nothing")
    body = await listed(sender)
    open_still = [one for one in body["alerts"] if one["state"] in ("unseen", "seen")]
    assert body["unread"] == len(open_still) == 4
