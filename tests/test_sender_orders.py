"""Orders, asked for through the API, on both databases."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sender import orders, outbox
from tests.senders import one_database, postgres_is_long

if TYPE_CHECKING:
    from sender.outbox import Waiting
    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def recorded(sender: RunningSender) -> list[Waiting]:
    return await sender.database.read(partial(outbox.unpublished, limit=1000))


def problem(response: Any) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return str(response.json()["type"].removeprefix("urn:orderbell:problem:"))


@postgres_is_long
async def test_placed_order_is_open(sender: RunningSender) -> None:
    response = await sender.place("1042", items=["Margherita"])
    assert response.status_code == 201
    assert response.json() == {
        "order_id": "1042",
        "customer_id": "alice",
        "status": "open",
        "created_at": "2026-11-23T14:25:00.000Z",
        "completed_at": None,
        "data": {"items": ["Margherita"]},
    }


async def test_same_order_again_is_answered_as_before(sender: RunningSender) -> None:
    first = await sender.place("1042", a=1, b=2)
    again = await sender.place("1042", b=2, a=1)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


@pytest.mark.parametrize(("customer", "data"), [("bob", {"a": 1}), ("alice", {"a": 2}), ("alice", {})])
@postgres_is_long
async def test_same_order_id_with_other_content_is_a_conflict(
    sender: RunningSender, customer: str, data: dict[str, int]
) -> None:
    await sender.place("1042", a=1)
    response = await sender.place("1042", customer, **data)
    assert (response.status_code, problem(response)) == (409, "order-conflict")
    listed = (await sender.client.get("/orders")).json()["orders"]
    assert [(order["customer_id"], order["data"]) for order in listed] == [("alice", {"a": 1})]


async def test_orders_placed_in_one_batch_get_separate_answers(sender: RunningSender) -> None:
    def placing(order_id: str, customer_id: str = "alice", **data: object) -> orders.Placing:
        return orders.Placing(order_id, customer_id, data, sender.clock())

    await sender.place("old", a=1)
    batch = [
        placing("new", a=1),
        placing("old", a=1),
        placing("new", a=1),
        placing("new", "bob", a=1),
        placing("old", a=2),
        placing("wrong", message=1),
        placing("large", a="x" * 70_000),
        placing("wrong", message="right"),
    ]
    outcomes = await sender.database.write(partial(orders.place_all, placings=batch))
    assert [o.new if isinstance(o, orders.Placed) else type(o).__name__ for o in outcomes] == [
        True,
        False,
        False,
        "OrderConflict",
        "OrderConflict",
        "InvalidOrder",
        "EventTooLarge",
        True,
    ]
    listed = (await sender.client.get("/orders")).json()["orders"]
    assert {order["order_id"]: order["customer_id"] for order in listed} == dict.fromkeys(
        ("old", "new", "wrong"), "alice"
    )


async def test_same_order_by_many_at_the_same_time_is_placed_once(sender: RunningSender) -> None:
    answers = await asyncio.gather(
        *(sender.place("1042", a=1) for _ in range(20)), sender.place("1042", "bob")
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201, 409]


async def test_completion_records_the_event_it_answers_with(sender: RunningSender) -> None:
    await sender.place("1042", items=["Margherita"], table=7)
    sender.clock.advance(minutes=8)
    headers = {"traceparent": TRACEPARENT}
    response = await sender.complete("1042", json={"data": {"table": 8, "shelf": "B"}}, headers=headers)
    assert response.status_code == 200
    order, event = response.json()["order"], response.json()["event"]
    assert (order["status"], order["completed_at"]) == ("completed", "2026-11-23T14:33:00.000Z")
    assert order["data"] == {"items": ["Margherita"], "table": 7}
    assert event["id"]
    assert {name: event[name] for name in event if name != "id"} == {
        "specversion": "1.0",
        "source": "/orderbell/sender",
        "type": "order.completed",
        "subject": "1042",
        "time": "2026-11-23T14:33:00.000Z",
        "datacontenttype": "application/json",
        "traceparent": TRACEPARENT,
        "channel": "customer:alice",
        "epoch": 1,
        "seq": 1,
        "data": {
            "order_id": "1042",
            "customer_id": "alice",
            "message": "Order 1042 is complete",
            "items": ["Margherita"],
            "table": 8,
            "shelf": "B",
        },
    }
    (waiting,) = await recorded(sender)
    assert json.loads(waiting.entry.text) == event


@postgres_is_long
async def test_caller_words_the_message_but_cannot_name_another_customer(sender: RunningSender) -> None:
    data = {"message": "Yours, Alice", "customer_id": "bob", "order_id": "7"}
    await sender.client.post("/orders", json={"order_id": "1042", "customer_id": "alice", "data": data})
    event = (await sender.complete("1042")).json()["event"]
    assert event["data"] == {"order_id": "1042", "customer_id": "alice", "message": "Yours, Alice"}


@pytest.mark.parametrize("traceparent", ["", "00-0-0-01", "00-" + "0" * 32 + "-" + "1" * 16 + "-01"])
@one_database
async def test_without_a_trace_the_event_starts_one(sender: RunningSender, traceparent: str) -> None:
    await sender.place("1042")
    event = (await sender.complete("1042", headers={"traceparent": traceparent})).json()["event"]
    version, trace, span, flags = event["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert trace != "0" * 32


async def test_completing_twice_is_one_event(sender: RunningSender) -> None:
    await sender.place("1042")
    first = await sender.complete("1042")
    sender.clock.advance(hours=1)
    again = await sender.complete("1042", json={"data": {"other": True}})
    assert first.json() == again.json()
    assert len(await recorded(sender)) == 1


async def test_completing_from_many_callers_at_once_is_one_event(sender: RunningSender) -> None:
    await sender.place("1042")
    responses = await asyncio.gather(*(sender.complete("1042") for _ in range(10)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert len(await recorded(sender)) == 1


async def test_orders_of_one_customer_completed_at_once_have_seqs_without_holes(
    sender: RunningSender,
) -> None:
    ids = [str(number) for number in range(30)]
    for order_id in ids:
        await sender.place(order_id, f"c{int(order_id) % 3}")
    responses = await asyncio.gather(*(sender.complete(order_id) for order_id in [*ids, "unknown", *ids]))
    assert [response.status_code for response in responses].count(404) == 1
    places = {
        (e["channel"], e["seq"]) for r in responses if r.status_code == 200 for e in [r.json()["event"]]
    }
    assert places == {(f"customer:c{c}", seq) for c in range(3) for seq in range(1, 11)}


@pytest.mark.parametrize("order_id", ["nobodys", "a%00b", "%F0%9F%8D%95", "x" * 129])
@postgres_is_long
async def test_unknown_order_is_not_found(sender: RunningSender, order_id: str) -> None:
    response = await sender.complete(order_id)
    assert (response.status_code, problem(response)) == (404, "unknown-order")


@postgres_is_long
async def test_order_that_no_event_could_carry_is_refused_and_not_stored(sender: RunningSender) -> None:
    response = await sender.place("1042", text="x" * 65_400)
    assert (response.status_code, problem(response)) == (413, "event-too-large")
    assert (await sender.client.get("/orders")).json()["orders"] == []


@postgres_is_long
async def test_completion_too_large_for_an_event_completes_nothing(sender: RunningSender) -> None:
    await sender.place("1042", text="x" * 40_000)
    response = await sender.complete("1042", json={"data": {"more": "x" * 40_000}})
    assert (response.status_code, problem(response)) == (413, "event-too-large")
    assert await recorded(sender) == []
    assert (await sender.complete("1042")).status_code == 200


@one_database
async def test_message_that_is_no_text_is_refused(sender: RunningSender) -> None:
    response = await sender.place("1042", message=["not", "a", "text"])
    assert (response.status_code, problem(response)) == (400, "invalid-order")
    await sender.place("1042")
    response = await sender.complete("1042", json={"data": {"message": 7}})
    assert (response.status_code, problem(response)) == (400, "invalid-order")
    assert await recorded(sender) == []


async def test_orders_are_listed_newest_first_with_the_cursor_of_their_customer(
    sender: RunningSender,
) -> None:
    for order_id, customer in (("1", "alice"), ("2", "bob"), ("3", "alice")):
        await sender.place(order_id, customer)
    await sender.complete("1")

    async def listed(**query: str) -> tuple[list[str], str | None]:
        answer = (await sender.client.get("/orders", params=query)).json()
        return [order["order_id"] for order in answer["orders"]], answer["as_of"]

    assert await listed() == (["3", "2", "1"], None)
    assert await listed(customer_id="alice") == (["3", "1"], "customer:alice=1.1")
    assert await listed(customer_id="alice", status="open") == (["3"], "customer:alice=1.1")
    assert await listed(customer_id="nobody") == ([], "customer:nobody=1.0")
    assert await listed(status="completed") == (["1"], None)


async def test_long_lists_come_in_pages(sender: RunningSender) -> None:
    for number in range(5):
        await sender.place(str(number))
    pages, before = [], None
    while True:
        query = {"limit": "2"} | ({"before": before} if before else {})
        answer = (await sender.client.get("/orders", params=query)).json()
        pages.append([order["order_id"] for order in answer["orders"]])
        before = answer["before"]
        if before is None:
            break
    assert pages == [["4", "3"], ["2", "1"], ["0"]]


@postgres_is_long
async def test_page_before_an_unknown_order_is_not_found(sender: RunningSender) -> None:
    response = await sender.client.get("/orders", params={"before": "nobodys"})
    assert (response.status_code, problem(response)) == (404, "unknown-order")


@one_database
@pytest.mark.parametrize(
    "query",
    [
        "customer_id=a%09b",
        "customer_id=",
        "status=lost",
        "limit=0",
        "limit=1001",
        "limit=x",
        "custmer=a",
        "limit=1&limit=2",
    ],
)
async def test_bad_query_is_refused(sender: RunningSender, query: str) -> None:
    response = await sender.client.get(f"/orders?{query}")
    assert (response.status_code, problem(response)) == (400, "invalid-query")


async def test_snapshot_of_orders_and_cursor_never_disagree(sender: RunningSender) -> None:
    """The number of completed orders always equals the cursor's seq, however reads and writes interleave."""
    ids = [str(number) for number in range(30)]
    for order_id in ids:
        await sender.place(order_id)
    query = {"customer_id": "alice", "status": "completed"}

    async def check() -> None:
        for _ in range(20):
            answer = (await sender.client.get("/orders", params=query)).json()
            assert answer["as_of"] == f"customer:alice=1.{len(answer['orders'])}"

    await asyncio.gather(check(), *(sender.complete(order_id) for order_id in ids))
