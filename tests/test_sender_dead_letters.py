from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import literal, select, update

from sender import dead_letters, history, outbox, recording
from sender.database.tables import dead_letters as table
from sender.database.tables import events
from sender.digest import identity_of
from sender.generation import begin_epoch
from sender.retention import Pace, Retention
from sender.tombstones import Fault
from shared.channels import Channel
from shared.cursors import Cursor, Place
from shared.events import parse_event
from shared.redis.channel_log import NewestEvent
from tests.senders import one_database, postgres_is_long

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

ALICE, BOB = Channel("customer:alice"), Channel("customer:bob")
LARGE = json.dumps({"data": "x" * 200_000})


async def record(sender: RunningSender, *channels: Channel) -> None:
    def work(connection: Connection) -> None:
        for number, channel in enumerate(channels):
            event = {"specversion": "1.0", "id": str(number), "source": "/test", "type": "t"}
            draft = parse_event(event | {"channel": channel}, now=sender.clock())
            recording.record_once(connection, [recording.arrival(draft, "")], now=sender.clock())

    await sender.database.write(work)


async def spoil(sender: RunningSender, *seqs: int, text: str = LARGE) -> None:
    """Change the texts past the API, as a repair by hand may do."""

    def work(connection: Connection) -> None:
        connection.execute(update(events).where(events.c.seq.in_(seqs)).values(text=literal(text)))

    await sender.database.write(work)


async def positions(sender: RunningSender) -> list[int]:
    waiting = await sender.database.read(partial(outbox.unpublished, limit=100))
    return [event.position for event in waiting]


async def give_up(sender: RunningSender, refusal: str = "") -> list[dead_letters.GivenUp]:
    work = partial(
        dead_letters.give_up, positions=await positions(sender), now=sender.clock(), refusal=refusal
    )
    return await sender.database.write(work)


async def texts(sender: RunningSender) -> list[dict[str, Any]]:
    waiting = await sender.database.read(partial(outbox.unpublished, limit=100))
    assert [event.fault for event in waiting] == [None] * len(waiting)
    return [json.loads(event.entry.text) for event in waiting]


async def listed(sender: RunningSender, query: str = "") -> dict[str, Any]:
    answer = await sender.client.get(f"/dead-letters{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_event_with_a_fault_is_kept_and_its_tombstone_waits_in_its_place(sender: RunningSender) -> None:
    await record(sender, ALICE, ALICE, ALICE)
    before = await texts(sender)
    await spoil(sender, 2)
    sender.clock.advance(seconds=5)
    assert await give_up(sender) == [(Cursor(ALICE, Place(1, 2)), Fault.TOO_LARGE)]
    after = await texts(sender)
    assert (after[0], after[2]) == (before[0], before[2])
    assert (after[1]["type"], after[1]["seq"], after[1]["data"]) == (
        "orderbell.tombstone",
        2,
        {"reason": "too-large"},
    )
    identity = identity_of("/test", "1")
    assert await listed(sender) == {
        "dead_letters": [
            {
                "cursor": "customer:alice=1.2",
                "source": "/orderbell/sender",
                "id": identity,
                "reason": "too-large",
                "detail": "",
                "recorded_at": "2026-11-23T14:25:00.000Z",
                "given_up_at": "2026-11-23T14:25:05.000Z",
                "size": len(LARGE),
                "beginning": LARGE[:1000],
            }
        ],
        "before": None,
    }


async def test_sound_event_is_given_up_only_where_redis_refused_it(sender: RunningSender) -> None:
    await record(sender, ALICE)
    assert await give_up(sender) == []
    assert await give_up(sender, "ERR no") == [(Cursor(ALICE, Place(1, 1)), Fault.REFUSED)]
    (tombstone,) = await texts(sender)
    assert (tombstone["source"], tombstone["id"]) == ("/test", "0")
    (dead,) = (await listed(sender))["dead_letters"]
    assert (dead["reason"], dead["detail"], dead["id"]) == ("refused", "ERR no", "0")


async def test_what_was_published_meanwhile_is_not_given_up(sender: RunningSender) -> None:
    await record(sender, ALICE)
    (position,) = await positions(sender)
    published = [NewestEvent(1, position)]
    await sender.database.write(partial(outbox.mark_published, published=published))
    work = partial(dead_letters.give_up, positions=[position], now=sender.clock(), refusal="ERR no")
    assert await sender.database.write(work) == []


@postgres_is_long
async def test_tombstone_that_is_refused_too_leaves_the_original_kept(sender: RunningSender) -> None:
    await record(sender, ALICE)
    await spoil(sender, 1)
    await give_up(sender)
    await give_up(sender, "ERR no")
    (dead,) = (await listed(sender))["dead_letters"]
    assert (dead["reason"], dead["size"]) == ("too-large", len(LARGE))
    assert await sender.database.read(lambda connection: original(connection)) == LARGE


def original(connection: Connection) -> str:
    return str(connection.execute(select(table.c.text)).scalar_one())


async def test_list_comes_in_pages_newest_first(sender: RunningSender) -> None:
    await record(sender, *[ALICE] * 5)
    await spoil(sender, 1, 2, 3, 4, 5)
    await give_up(sender)
    cursors, before = [], ""
    while True:
        page = await listed(sender, f"?limit=2{before}")
        cursors.append([dead["cursor"].partition(".")[2] for dead in page["dead_letters"]])
        if page["before"] is None:
            break
        before = f"&before={page['before']}"
    assert cursors == [["5", "4"], ["3", "2"], ["1"]]


@one_database
async def test_list_is_for_those_with_a_key_and_for_questions_it_knows(sender: RunningSender) -> None:
    anonymous = await sender.client.get("/dead-letters", headers={"Authorization": ""})
    assert anonymous.status_code == 401
    for query in ("before=0", "limit=0", "channel=customer:alice"):
        refused = await sender.client.get(f"/dead-letters?{query}")
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")


async def test_new_epoch_takes_sound_events_along_and_leaves_no_other_in_the_way(
    sender: RunningSender,
) -> None:
    await record(sender, ALICE, ALICE, ALICE)
    await spoil(sender, 2)
    assert await sender.database.write(partial(begin_epoch, after=1)) == 2
    assert await give_up(sender) == [(Cursor(ALICE, Place(2, 2)), Fault.TOO_LARGE)]
    assert [(event["epoch"], event["seq"]) for event in await texts(sender)] == [(2, 1), (2, 2), (2, 3)]


async def test_tombstone_moves_into_a_new_epoch(sender: RunningSender) -> None:
    await record(sender, ALICE)
    await spoil(sender, 1)
    await give_up(sender)
    await sender.database.write(partial(begin_epoch, after=6))
    (tombstone,) = await texts(sender)
    assert (tombstone["type"], tombstone["epoch"]) == ("orderbell.tombstone", 7)


@postgres_is_long
async def test_history_gives_the_tombstone_before_anybody_has_given_up(sender: RunningSender) -> None:
    await record(sender, ALICE, ALICE, BOB)
    await spoil(sender, 2, text=LARGE)
    body = {"after": ["customer:alice=1.0", "customer:bob=1.0"]}
    before = await sender.client.post("/history", json=body)
    alice, bob = before.json()["channels"]
    assert [event["type"] for event in alice["events"]] == ["t", "orderbell.tombstone"]
    assert [event["type"] for event in bob["events"]] == ["t"]
    await give_up(sender)
    after = await sender.client.post("/history", json=body)
    assert after.content == before.content


@pytest.mark.parametrize("text", ["lunch", "{}", '{"a":'])
async def test_text_that_is_no_json_breaks_no_history(sender: RunningSender, text: str) -> None:
    await record(sender, ALICE, BOB)
    await spoil(sender, 1, text=text)  # of both
    answer = await sender.client.post("/history", json={"after": ["customer:alice=1.0", "customer:bob=1.0"]})
    types = [event["type"] for channel in answer.json()["channels"] for event in channel["events"]]
    assert types == ["orderbell.tombstone"] * 2


@postgres_is_long
async def test_completed_order_whose_event_is_malformed_answers_with_the_tombstone(
    sender: RunningSender,
) -> None:
    await sender.place("1")
    await sender.complete("1")
    await spoil(sender, 1, text="lunch")
    again = await sender.complete("1")
    assert (again.status_code, again.json()["event"]["type"]) == (200, "orderbell.tombstone")


async def test_dead_letters_are_kept_for_the_historys_time_since_they_were_given_up(
    sender: RunningSender,
) -> None:
    await record(sender, ALICE)
    await spoil(sender, 1)
    sender.clock.advance(days=30)  # Redis was away
    await give_up(sender)
    trusting = Pace(doubt_seconds=0)
    retention = Retention(sender.database, sender.clock, history_days=7, pace=trusting)
    sender.clock.advance(days=6)
    await retention.sweep()
    assert len((await listed(sender))["dead_letters"]) == 1
    sender.clock.advance(days=1, seconds=1)
    await retention.sweep()
    assert (await listed(sender))["dead_letters"] == []


@postgres_is_long
async def test_metrics_count_what_is_kept(sender: RunningSender) -> None:
    await record(sender, ALICE, ALICE)
    await spoil(sender, 1, 2)
    await give_up(sender)
    assert "orderbell_dead_letters_kept 2.0" in (await sender.client.get("/metrics")).text


@postgres_is_long
async def test_history_reads_one_event_alone(sender: RunningSender) -> None:
    await record(sender, ALICE, ALICE)
    found = await sender.database.read(partial(history.find, channel=ALICE, seq=2))
    assert found is not None
    assert found.place == Place(1, 2)
    assert await sender.database.read(partial(history.find, channel=ALICE, seq=3)) is None


async def test_event_that_was_given_up_is_no_unread_alert(sender: RunningSender) -> None:
    alice = Channel("customer:alice")
    await record(sender, alice, alice)
    await spoil(sender, 1)
    await give_up(sender)
    answer = await sender.client.get(f"/channels/{alice}/alerts")
    assert answer.json()["unread"] == 1
    assert [alert["event"]["seq"] for alert in answer.json()["alerts"]] == [2]
