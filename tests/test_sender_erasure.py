"""Erasing a customer: nothing that names them stays, other customers lose nothing, no place is used twice."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, select, text

from sender import dead_letters, generation, outbox
from sender.database.tables import metadata
from shared.channels import customer_channel
from shared.redis.live import ERASED
from tests.senders import one_database, postgres_is_long, run_sender

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = 'alice|"née" 100%'
OTHERS = ['Alice|"née" 100%', "alice|", 'alice|"née" 100', "bob"]


async def order(sender: RunningSender, order_id: str, customer: str, **headers: str) -> Any:
    body = {"order_id": order_id, "customer_id": customer, "data": {"note": f"for {customer}"}}
    placed = await sender.client.post("/orders", json=body, headers=headers)
    assert placed.status_code == 201, placed.text
    completed = await sender.client.post(f"/orders/{order_id}/complete", headers=headers)
    assert completed.status_code == 200, completed.text
    return completed.json()["event"]


async def erase(sender: RunningSender, customer: str) -> Any:
    path = customer_channel(customer).removeprefix("customer:")
    answer = await sender.client.delete(f"/customers/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def history_of(sender: RunningSender, customer: str) -> Any:
    answer = await sender.client.post("/history", json={"after": [customer_channel(customer)]})
    [channel] = answer.json()["channels"]
    return channel


async def backlog(sender: RunningSender) -> int:
    return (await sender.database.read(outbox.backlog)).size


async def published(sender: RunningSender) -> None:
    async with asyncio.timeout(10):
        while await backlog(sender):  # each turn waits for the database
            pass


def naming(connection: Connection, name: str) -> list[str]:
    """The tables that contain it, once for each row."""
    there = MetaData()
    there.reflect(connection, schema=metadata.schema)
    assert {table.name for table in metadata.sorted_tables} <= {table.name for table in there.sorted_tables}
    return [
        table.name
        for table in there.sorted_tables
        for row in connection.execute(select(table))
        if any(name in str(value) for value in row)
    ]


async def test_nothing_names_the_customer_afterwards_and_others_keep_all(sender: RunningSender) -> None:
    channel = customer_channel(ALICE)
    for number, customer in enumerate([ALICE, *OTHERS, ALICE]):
        await order(sender, f"order-{number}", customer, **{"Idempotency-Key": f"key-{number}"})
    await sender.client.post("/seen", json={"cursors": [f"{channel}=1.1"]}, headers={"Idempotency-Key": "s"})
    await published(sender)
    for name in (channel, "for alice|"):
        assert len(await sender.database.read(partial(naming, name=name))) > 3

    report = await erase(sender, ALICE)
    assert (report["orders"], report["events"], report["redis"]) == (2, 2, "erased")
    assert report["answers"] == 5  # two orders placed, two completed, one seen
    assert await sender.database.read(partial(naming, name=channel)) == []
    assert await sender.database.read(partial(naming, name='alice|\\"née\\" 100%')) == []
    for key in (sender.names.log, sender.names.head, sender.names.seen):
        assert await sender.redis.exists(key(channel)) == 0
    for customer in OTHERS:
        other = customer_channel(customer)
        listed = (await sender.client.get("/orders", params={"customer_id": customer})).json()
        assert (len(listed["orders"]), listed["as_of"]) == (1, f"{other}=1.1")
        assert await sender.redis.exists(sender.names.log(other)) == 1
    for number in (1, 2, 3, 4):
        again = await sender.client.post(
            f"/orders/order-{number}/complete", headers={"Idempotency-Key": f"key-{number}"}
        )
        assert again.headers["idempotency-replayed"] == "true"


@postgres_is_long
async def test_erasing_again_finds_nothing(sender: RunningSender) -> None:
    await order(sender, "1", "alice")
    await erase(sender, "alice")
    nothing = {"orders": 0, "events": 0, "dead_letters": 0, "answers": 0, "redis": "erased"}
    assert await erase(sender, "alice") == nothing
    assert await erase(sender, "nobody") == nothing


async def test_a_customer_who_comes_back_gets_no_place_twice_and_old_cursors_get_a_reset(
    sender: RunningSender,
) -> None:
    for number in range(3):
        await order(sender, f"{number}", "alice")
    for round_of in (1, 2):
        last = 3 if round_of == 1 else 5
        await erase(sender, "alice")
        listed = (await sender.client.get("/orders", params={"customer_id": "alice"})).json()
        assert listed == {"orders": [], "as_of": f"customer:alice=1.{last}", "before": None}
        for number in range(2):
            event = await order(sender, f"{round_of}-{number}", "alice")
            assert event["seq"] == last + 1 + number
        for old in range(last):
            gone = await sender.client.get(f"/channels/customer:alice/events?after=customer:alice=1.{old}")
            assert (gone.status_code, gone.json()["reset"]) == (410, "pruned")
        read = await sender.client.get(f"/channels/customer:alice/events?after=customer:alice=1.{last}")
        assert [event["seq"] for event in read.json()["events"]] == [last + 1, last + 2]
        await published(sender)
        head = await sender.redis.hgetall(sender.names.head(customer_channel("alice")))
        # Forgetting a second time may delete it, too: then Redis knows nothing, but never another event.
        assert head.get(b"seq") in (b"%d" % (last + 2), None)


async def test_customer_without_an_event_is_known_to_be_erased_until_the_first_one(
    sender: RunningSender,
) -> None:
    await sender.client.post("/orders", json={"order_id": "open", "customer_id": "alice"})
    assert (await history_of(sender, "alice"))["erased"] is False
    await erase(sender, "alice")
    assert (await history_of(sender, "alice"))["erased"] is True
    event = await order(sender, "1", "alice")
    after = await history_of(sender, "alice")
    assert (after["erased"], after["events"], event["seq"]) == (False, [event], 1)


@postgres_is_long
async def test_a_customer_who_comes_back_without_a_cursor_gets_what_is_new_and_no_reset(
    sender: RunningSender,
) -> None:
    await order(sender, "1", "alice")
    await erase(sender, "alice")
    event = await order(sender, "2", "alice")
    channel = await history_of(sender, "alice")
    assert (channel.get("reset"), channel["events"]) == (None, [event])


@postgres_is_long
async def test_the_database_is_not_taken_for_one_that_went_back(sender: RunningSender) -> None:
    """The newest event of all is the erased customer's, and Redis knows it as the newest."""
    await order(sender, "1", "bob")
    await order(sender, "2", "alice")
    await published(sender)
    newest = await sender.database.read(generation.newest)
    await erase(sender, "alice")
    assert await sender.database.read(partial(generation.has, known=newest))
    event = await order(sender, "3", "bob")
    await published(sender)
    assert (event["epoch"], event["seq"]) == (1, 2)
    assert sender.counted("orderbell_epoch_changes_total") == 0


@postgres_is_long
async def test_what_waits_in_the_outbox_is_erased_and_not_published(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        await order(sender, "1", "alice")
        await order(sender, "2", "bob")
        assert (await erase(sender, "alice"))["events"] == 1
        assert await backlog(sender) == 1


async def test_a_repeated_event_of_an_erased_customer_is_not_recorded_again(sender: RunningSender) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "channel": "customer:alice"}
    headers = {"Content-Type": "application/cloudevents+json"}
    assert (await sender.client.post("/events", json=event, headers=headers)).status_code == 202
    await erase(sender, "alice")
    again = await sender.client.post("/events", json=event, headers=headers)
    assert "erased:" not in again.text
    assert again.status_code == 409
    read = (await sender.client.get("/channels/customer:alice/events")).json()
    assert read["events"] == []


async def test_dead_letters_of_the_customer_go_too(sender: RunningSender) -> None:
    def give_up(connection: Connection) -> object:
        waiting = "INSERT INTO outbox SELECT position, epoch FROM events WHERE channel = 'customer:alice'"
        connection.execute(text(waiting))
        position = connection.execute(text("SELECT max(position) FROM events")).scalar_one()
        return dead_letters.give_up(connection, [position], now=sender.clock.now, refusal="too hot")

    await order(sender, "1", "alice")
    await published(sender)
    await sender.database.write(give_up)
    assert len((await sender.client.get("/dead-letters")).json()["dead_letters"]) == 1
    assert (await erase(sender, "alice"))["dead_letters"] == 1
    assert (await sender.client.get("/dead-letters")).json()["dead_letters"] == []


@postgres_is_long
async def test_keys_that_a_relay_was_writing_meanwhile_go_a_moment_later(sender: RunningSender) -> None:
    await order(sender, "1", "alice")
    await published(sender)
    await erase(sender, "alice")
    log = sender.names.log(customer_channel("alice"))
    await sender.redis.xadd(log, {"e": "late"}, id="1-0")
    async with asyncio.timeout(20):
        while await sender.redis.exists(log):
            pass


@postgres_is_long
async def test_erasure_ends_live_connections_through_redis(sender: RunningSender) -> None:
    live = sender.names.live(customer_channel("alice"))
    async with sender.redis.pubsub() as pubsub:
        await pubsub.subscribe(live)
        await erase(sender, "alice")
        async with asyncio.timeout(20):
            while (message := await pubsub.get_message(timeout=5)) is None or message["type"] != "message":
                pass
    assert message["data"] == ERASED


@postgres_is_long
async def test_without_redis_it_is_pending_and_says_so(database_url: str, key_prefix: str) -> None:
    async with run_sender(database_url, "redis://127.0.0.1:1/0", key_prefix) as sender:
        await order(sender, "1", "alice")
        assert (await erase(sender, "alice"))["redis"] == "pending"


@one_database
@pytest.mark.parametrize("path", ["%00", "a%0Ab", "%C3", "x" * 129])
async def test_what_is_no_customer_id_is_refused(sender: RunningSender, path: str) -> None:
    answer = await sender.client.delete(f"/customers/{path}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:orderbell:problem:invalid-customer")
