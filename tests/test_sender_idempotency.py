from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from sender import idempotency, outbox, pruning
from tests.claims import claim
from tests.senders import API_KEY, counted_transactions, one_database, postgres_is_long

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sender.database.protocol import Database
    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

ORDER = {"order_id": "1042", "customer_id": "alice"}


async def post(sender: RunningSender, path: str, body: Any, key: str = "a-key", **headers: str) -> Any:
    return await sender.client.post(path, json=body, headers={"Idempotency-Key": key, **headers})


async def test_repetition_gets_the_first_answer(sender: RunningSender) -> None:
    first = await post(sender, "/orders", ORDER)
    again = await post(sender, "/orders", ORDER)
    with claim("a repetition gets the first answer"):
        assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_lost_answer_of_a_completion_is_replayed_and_completes_nothing(sender: RunningSender) -> None:
    await sender.place("1042")
    first = await post(sender, "/orders/1042/complete", {"data": {"shelf": 3}})
    again = await post(sender, "/orders/1042/complete", {"data": {"shelf": 3}})
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert (await sender.database.read(outbox.backlog)).size == 1


EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "channel": "topic:menu"}


@pytest.mark.parametrize(
    ("path", "body", "other", "content_type"),
    [
        ("/orders", ORDER, {**ORDER, "customer_id": "bob"}, "application/json"),
        ("/orders/1042/complete", {}, {"data": {"a": 1}}, "application/json"),
        ("/events", EVENT, {**EVENT, "id": "2"}, "application/cloudevents+json"),
        ("/seen", {"cursors": []}, {"cursors": ["customer:alice=1.1"]}, "application/json"),
        ("/history", {"after": []}, {"after": ["customer:alice"]}, "application/json"),
    ],
)
@postgres_is_long
async def test_02_same_key_with_another_body_is_refused(
    sender: RunningSender, path: str, body: Any, other: Any, content_type: str
) -> None:
    await sender.place("1042")
    headers = {"Content-Type": content_type}
    assert (await post(sender, path, body, **headers)).status_code < 300
    refused = await post(sender, path, other, **headers)
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:orderbell:problem:idempotency-key-reused"
    assert (await post(sender, path, body, **headers)).status_code < 300


@one_database
@pytest.mark.parametrize(
    ("path", "first", "again", "content_type"),
    [
        ("/orders", b'{"order_id":"1","customer_id":"a"}', b'{ "customer_id" : "a",\n"order_id":"1" }', ""),
        (
            "/orders",
            b'{"order_id":"\xc3\xa9","customer_id":"a"}',
            b'{"customer_id":"a","order_id":"\\u00e9"}',
            "",
        ),
        ("/orders/1042/complete", b'{"data":{"a":[1],"b":2}}', b'{"data":{"b":2,"a":[ 1 ]}}', ""),
        ("/orders/1042/complete", b"", b" { } ", ""),
        ("/seen", b'{"cursors":[]}', b'{"cursors": [ ]}', ""),
        (
            "/events",
            b'{"specversion":"1.0","id":"1","source":"/s","type":"t","channel":"topic:menu"}',
            b'{"channel":"topic:menu","type":"t","source":"/s","id":"1","specversion":"1.0"}\r\n',
            "application/cloudevents+json",
        ),
    ],
)
async def test_same_request_spaced_and_ordered_in_another_way_gets_the_same_answer(
    sender: RunningSender, path: str, first: bytes, again: bytes, content_type: str
) -> None:
    await sender.place("1042")
    headers = {"Idempotency-Key": "a-key", "Content-Type": content_type or "application/json"}
    answers = [await sender.client.post(path, content=body, headers=headers) for body in (first, again)]
    assert answers[0].status_code < 300
    assert (answers[1].status_code, answers[1].content) == (answers[0].status_code, answers[0].content)
    assert answers[1].headers["idempotency-replayed"] == "true"


@postgres_is_long
async def test_a_repetition_of_what_an_older_version_answered_is_known_by_its_bytes(
    sender: RunningSender,
) -> None:
    first = await post(sender, "/orders", ORDER)
    await sender.database.write(
        lambda connection: connection.execute(text("UPDATE idempotency SET content = NULL"))
    )
    again = await post(sender, "/orders", ORDER)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert (await post(sender, "/orders", {**ORDER, "customer_id": "bob"})).status_code == 422


@postgres_is_long
async def test_attributes_of_a_binary_event_count_as_its_body(sender: RunningSender) -> None:
    attributes = {f"ce-{name}": value for name, value in EVENT.items()}
    first = await post(sender, "/events", {"a": 1}, **attributes)
    refused = await post(sender, "/events", {"a": 1}, **attributes | {"ce-id": "2"})
    assert (first.status_code, refused.status_code) == (202, 422)


@postgres_is_long
async def test_key_means_something_only_for_its_path(sender: RunningSender) -> None:
    assert (await post(sender, "/orders", ORDER)).status_code == 201
    assert (await post(sender, "/orders/1042/complete", ORDER)).status_code == 400
    assert (await post(sender, "/orders/1042/complete", {})).status_code == 200


def test_key_means_something_only_for_its_api_key_method_and_path() -> None:
    scopes = {
        idempotency.claim(*whose, "a-key", b"", b"").scope
        for whose in [("k", "POST", "/a"), ("l", "POST", "/a"), ("k", "PUT", "/a"), ("k", "POST", "/b")]
    }
    assert len(scopes) == 4
    assert API_KEY not in "".join(scopes)


async def test_02_racing_repetitions_take_effect_once(sender: RunningSender) -> None:
    await sender.place("1042")
    path = "/orders/1042/complete"
    answers = await asyncio.gather(*(post(sender, path, {"data": {"n": 1}}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [("idempotency-replayed" in answer.headers) for answer in answers].count(False) == 1


async def test_racing_bodies_under_one_key_let_one_through(sender: RunningSender) -> None:
    bodies = [{"order_id": str(number), "customer_id": "alice"} for number in range(8)]
    answers = await asyncio.gather(*(post(sender, "/orders", body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 7
    assert len((await sender.client.get("/orders")).json()["orders"]) == 1


@postgres_is_long
async def test_failed_request_may_be_sent_again_corrected(sender: RunningSender) -> None:
    assert (await post(sender, "/orders/1042/complete", {})).status_code == 404
    await sender.place("1042")
    assert (await post(sender, "/orders/1042/complete", {"data": {"a": 1}})).status_code == 200


@postgres_is_long
async def test_what_only_reads_is_read_anew(sender: RunningSender) -> None:
    before = await post(sender, "/history", {"after": ["topic:menu=1.0"]})
    await post(sender, "/events", EVENT, "other-key", **{"Content-Type": "application/cloudevents+json"})
    after = await post(sender, "/history", {"after": ["topic:menu=1.0"]})
    assert before.json()["channels"][0]["events"] == []
    assert len(after.json()["channels"][0]["events"]) == 1


BODY, NOW = b"{}", datetime(2026, 11, 23, tzinfo=UTC)


def asked(item: str, key: str | None, body: bytes = BODY) -> idempotency.Asked[str]:
    claim = idempotency.claim("k", "POST", "/", key, body, body) if key else None
    return idempotency.Asked(item, claim, NOW)


class Work:
    """Fails for the items that a test names, and notes what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, connection: Any, items: Sequence[str]) -> list[str | Exception]:
        self.given += items
        return [ValueError(item) if item.startswith("bad") else item for item in items]

    async def ask(self, database: Database, *all_asked: idempotency.Asked[str]) -> list[tuple[str, bool]]:
        """The answer to each, and whether it is an earlier answer."""

        def answer(result: str) -> idempotency.Answer:
            return idempotency.Answer(200, result.encode())

        outcomes = await database.write(lambda c: idempotency.once_all(c, all_asked, self, answer))
        return [
            (o.answer.body.decode(), o.replayed)
            if isinstance(o, idempotency.Answered)
            else (type(o).__name__, False)
            for o in outcomes
        ]


async def test_repetitions_in_one_batch_and_in_the_next_get_the_first_answer(sender: RunningSender) -> None:
    work = Work()
    told = await work.ask(
        sender.database, asked("first", "a"), asked("second", "a"), asked("alone", None), asked("other", "b")
    )
    assert told == [("first", False), ("first", True), ("alone", False), ("other", False)]
    assert await work.ask(sender.database, asked("third", "a"), asked("new", "c")) == [
        ("first", True),
        ("new", False),
    ]
    assert work.given == ["first", "alone", "other", "new"]


@postgres_is_long
async def test_what_failed_in_a_batch_may_be_repeated_in_the_same(sender: RunningSender) -> None:
    work = Work()
    told = await work.ask(
        sender.database, asked("bad", "a"), asked("good", "a", b"[]"), asked("again", "a", b"[]")
    )
    assert told == [("ValueError", False), ("good", False), ("good", True)]


@postgres_is_long
async def test_a_thousand_repetitions_of_what_fails_in_one_batch_fail_once(sender: RunningSender) -> None:
    """They are one request; each run of it would be a few statements while all callers wait."""
    work = Work()
    told = await work.ask(sender.database, *[asked("bad", "a")] * 1_000, asked("good", "b"))
    assert told == [("ValueError", False)] * 1_000 + [("good", False)]
    assert work.given == ["bad", "good"]


@postgres_is_long
async def test_a_thousand_bodies_that_fail_under_one_key_do_not_fail_the_rest_of_their_batch(
    sender: RunningSender,
) -> None:
    work = Work()
    told = await work.ask(sender.database, *(asked(f"bad {n}", "a", b"%d" % n) for n in range(1_000)))
    assert told == [("ValueError", False)] * 1_000


async def test_a_key_with_two_bodies_in_one_batch_is_the_first_ones(sender: RunningSender) -> None:
    work = Work()
    told = await work.ask(sender.database, asked("first", "a"), asked("second", "a", b"[]"))
    assert told == [("first", False), ("KeyReused", False)]
    assert work.given == ["first"]


async def test_requests_with_keys_that_wait_are_done_together(sender: RunningSender) -> None:
    """With a transaction for each (on PostgreSQL, a connection for each), the relay waited behind all of
    them.
    """
    placings = [post(sender, "/orders", {**ORDER, "order_id": str(n)}, key=str(n)) for n in range(40)]
    with counted_transactions() as transactions:
        placed = await asyncio.gather(*placings, *(post(sender, "/orders", ORDER) for _ in range(5)))
    assert {answer.status_code for answer in placed} == {201}
    assert sum("idempotency-replayed" in answer.headers for answer in placed) == 4
    assert len(transactions) < 0.75 * len(placed)
    completions = [post(sender, f"/orders/{n}/complete", {}, key=f"c{n}") for n in [*range(20)] * 2]
    with counted_transactions() as transactions:
        completed = await asyncio.gather(*completions)
    assert {answer.status_code for answer in completed} == {200}
    assert len(transactions) < 0.75 * len(completed)
    assert (await sender.database.read(outbox.backlog)).size == 20


@one_database
@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_unusable_key_is_refused(sender: RunningSender, key: str) -> None:
    response = await post(sender, "/orders", ORDER, key)
    assert response.status_code == 400
    assert response.json()["type"] == "urn:orderbell:problem:invalid-idempotency-key"


@pytest.mark.parametrize("key", ["\u00e9", "a\x7fb", "a\nb"])
def test_key_beyond_printable_ascii_is_refused(key: str) -> None:
    with pytest.raises(idempotency.InvalidKey):
        idempotency.claim("k", "POST", "/", key, b"", b"")


async def test_keys_are_forgotten_after_their_time(sender: RunningSender) -> None:
    def work(connection: Any) -> idempotency.Answer:
        return idempotency.Answer(200, b"{}")

    now = datetime(2026, 11, 23, tzinfo=UTC)
    claim = idempotency.claim("k", "POST", "/", "a-key", b"", b"")
    once = partial(idempotency.once, claim=claim, work=work, now=now)
    assert not (await sender.database.write(once)).replayed
    assert await sender.database.write(partial(pruning.prune_keys, before=now, limit=10)) == 0
    assert (await sender.database.write(once)).replayed
    later = datetime(2026, 11, 24, 0, 1, tzinfo=UTC)
    assert await sender.database.write(partial(pruning.prune_keys, before=later, limit=10)) == 1
    assert not (await sender.database.write(once)).replayed
