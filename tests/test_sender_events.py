"""`POST /events`: CloudEvents over HTTP, in three modes, good and bad."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event  # the reference SDK
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary, to_structured  # and as it was until lately
from cloudevents.v1.http import CloudEvent as OlderEvent
from starlette.datastructures import Headers

from sender import outbox
from sender.http import binding
from shared.events import InvalidEvent
from tests.senders import counted_transactions, one_database, postgres_is_long

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/kitchen",
    "type": "menu.changed",
    "channel": "topic:menu",
    "data": {"dish": "Margherita"},
}


async def post(sender: RunningSender, event: Any, content_type: str = STRUCTURED, **headers: str) -> Any:
    content = event if isinstance(event, bytes) else json.dumps(event).encode()
    return await sender.client.post(
        "/events", content=content, headers={"Content-Type": content_type, **headers}
    )


async def recorded(sender: RunningSender) -> list[Any]:
    waiting = await sender.database.read(partial(outbox.unpublished, limit=2000))
    return [json.loads(event.entry.text) for event in waiting]


async def test_structured_event_is_accepted_and_answered_with_its_cursor(sender: RunningSender) -> None:
    response = await post(sender, EVENT)
    assert response.status_code == 202
    result = {"status": "accepted", "source": "/kitchen", "id": "1", "cursor": "topic:menu=1.1"}
    assert response.json() == {"results": [result]}
    (event,) = await recorded(sender)
    assert event["data"] == {"dish": "Margherita"}
    assert event["time"] == "2026-11-23T14:25:00.000Z"
    assert event["traceparent"].startswith("00-")


async def test_repeated_event_is_one_even_in_another_trace_at_another_time(sender: RunningSender) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await post(sender, EVENT, traceparent=trace)
    sender.clock.advance(minutes=1)
    again = await post(sender, dict(reversed(EVENT.items())))
    assert again.status_code == 202
    assert again.json()["results"][0]["status"] == "duplicate"
    assert again.json()["results"][0]["cursor"] == "topic:menu=1.1"
    (event,) = await recorded(sender)
    assert event["traceparent"] == trace


async def test_waiting_single_events_are_recorded_together_and_get_separate_answers(
    sender: RunningSender,
) -> None:
    events = [{**EVENT, "id": str(n), "channel": f"topic:{n % 3}"} for n in range(30)]
    repeated, other = events[0], {**events[1], "data": {"dish": "Funghi"}}
    with counted_transactions() as transactions:
        answers = await asyncio.gather(*(post(sender, event) for event in [*events, repeated, other]))
    assert len(transactions) < 0.75 * len(answers)
    # Which of the two comes first is not promised.
    assert sorted([answers[1].status_code, answers[31].status_code]) == [202, 409]
    results = [answer.json()["results"][0] for answer in answers if answer.status_code == 202]
    assert sorted(result["status"] for result in results) == ["accepted"] * 30 + ["duplicate"]
    cursors = [answers[n].json()["results"][0]["cursor"] for n in (0, 30)]
    assert cursors[0] == cursors[1]
    assert len(await recorded(sender)) == 30


async def test_waiting_batches_are_recorded_together_and_each_gets_its_own_results(
    sender: RunningSender,
) -> None:
    batches = [[{**EVENT, "id": f"{b}-{n}", "channel": f"topic:{n}"} for n in range(5)] for b in range(20)]
    shared = {**EVENT, "id": "shared", "channel": "topic:shared"}
    requests = [(post(sender, [*batch, {"id": 3}, shared], BATCH)) for batch in batches]
    with counted_transactions() as transactions:
        answers = await asyncio.gather(*requests, post(sender, {**EVENT, "id": "alone"}))
    assert len(transactions) < 0.75 * len(answers)
    results = [answer.json()["results"] for answer in answers]
    for batch, told in zip(batches, results, strict=False):
        assert [result["id"] for result in told] == [*(event["id"] for event in batch), None, "shared"]
        assert [result["status"] for result in told[:6]] == ["accepted"] * 5 + ["refused"]
        for n, result in enumerate(told[:5]):
            assert result["cursor"].startswith(f"topic:{n}=1.")
    last = sorted(told[6]["status"] for told in results[:20])
    assert last == ["accepted"] + ["duplicate"] * 19
    assert {told[6]["cursor"] for told in results[:20]} == {"topic:shared=1.1"}
    assert [result["id"] for result in results[20]] == ["alone"]
    assert len(await recorded(sender)) == 20 * 5 + 2


async def test_other_content_under_the_same_identity_is_a_conflict(sender: RunningSender) -> None:
    await post(sender, EVENT)
    for other in ({"data": {"dish": "Quattro"}}, {"channel": "customer:alice"}):
        response = await post(sender, EVENT | other)
        assert response.status_code == 409
        assert response.json()["type"] == "urn:orderbell:problem:event-conflict"
    assert len(await recorded(sender)) == 1


async def test_bad_events_of_a_batch_are_reported_and_the_good_ones_taken(sender: RunningSender) -> None:
    batch = [
        EVENT,
        EVENT | {"id": "2", "specversion": "0.3"},
        {"id": 3},
        "no event",
        EVENT | {"id": "4", "channel": "customer:alice"},
        EVENT | {"data": "other"},
        EVENT | {"id": "5", "data": "x" * 66_000},
        EVENT,
        EVENT | {"id": "6"},
    ]
    response = await post(sender, batch, BATCH)
    assert response.status_code == 202
    results = response.json()["results"]
    assert [(result["status"], result["id"], result.get("cursor")) for result in results] == [
        ("accepted", "1", "topic:menu=1.1"),
        ("refused", "2", None),
        ("refused", None, None),
        ("refused", None, None),
        ("accepted", "4", "customer:alice=1.1"),
        ("refused", "1", None),
        ("refused", "5", None),
        ("duplicate", "1", "topic:menu=1.1"),
        ("accepted", "6", "topic:menu=1.2"),
    ]
    assert all(result["error"] for result in results if result["status"] == "refused")
    assert [event["id"] for event in await recorded(sender)] == ["1", "4", "6"]


async def test_a_thousand_events_are_one_batch(sender: RunningSender) -> None:
    batch = [EVENT | {"id": str(n), "channel": f"customer:{n % 7}"} for n in range(1000)]
    results = (await post(sender, batch, BATCH)).json()["results"]
    assert [result["status"] for result in results] == ["accepted"] * 1000
    assert len(await recorded(sender)) == 1000


@one_database
async def test_more_than_a_thousand_are_refused_whole(sender: RunningSender) -> None:
    response = await post(sender, [EVENT | {"id": str(n)} for n in range(1001)], BATCH)
    assert response.status_code == 413
    assert await recorded(sender) == []


@one_database
async def test_empty_batch_is_nothing_to_do(sender: RunningSender) -> None:
    response = await post(sender, [], BATCH)
    assert (response.status_code, response.json()) == (202, {"results": []})


@one_database
@pytest.mark.parametrize(
    "change",
    [
        {"specversion": None},
        {"specversion": "2.0"},
        {"id": None},
        {"id": ""},
        {"source": None},
        {"type": None},
        {"channel": None},
        {"channel": "menu"},
        {"channel": "topic:a b"},
        {"channel": "customer:{alice}"},
        {"epoch": 3},
        {"seq": 3},
        {"Upper": "x"},
        {"time": "yesterday"},
        {"nested": {"a": 1}},
        {"data_base64": "AA=="},
    ],
)
async def test_event_against_the_rules_is_refused_and_not_stored(
    sender: RunningSender, change: dict[str, Any]
) -> None:
    response = await post(sender, EVENT | change)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:orderbell:problem:invalid-event"
    assert await recorded(sender) == []


@one_database
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b'{"a": NaN}', 400),
        (b'{"a": Infinity}', 400),
        (b'{"a": 1e400}', 400),
        (b'{"a": "\xff"}', 400),
        (b'{"a": "\\ud800"}', 400),
        (b'{"data": ' + b"[" * 60 + b"]" * 60 + b"}", 400),
        (b'{"data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400),
        (b" " * 100_000, 413),
    ],
)
async def test_body_that_is_no_json_is_refused(sender: RunningSender, body: bytes, status: int) -> None:
    response = await post(sender, body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


@postgres_is_long
async def test_35_event_of_64_kib_is_taken_and_one_byte_more_is_not(sender: RunningSender) -> None:
    async def size_taken(length: int) -> Any:
        return await post(sender, EVENT | {"id": str(length), "data": "x" * length})

    lengths = range(65_000, 65_536)
    low, high = lengths[0], lengths[-1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if (await size_taken(middle)).status_code == 202 else (low, middle)
    refused = await size_taken(high)
    assert (refused.status_code, refused.json()["type"]) == (413, "urn:orderbell:problem:event-too-large")
    longest = max(len(json.dumps(event, separators=(",", ":"))) for event in await recorded(sender))
    assert 65_536 - 40 <= longest <= 65_536  # the place may still become longer


@one_database
async def test_body_is_read_no_further_than_its_limit(sender: RunningSender) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 10_000

    response = await sender.client.post("/events", content=endless(), headers={"Content-Type": STRUCTURED})
    assert response.status_code == 413
    assert sent <= 12


@one_database
@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json", "multipart/form-data", STRUCTURED + "; charset=latin-1"],
)
async def test_other_content_types_are_refused(sender: RunningSender, content_type: str) -> None:
    response = await post(sender, EVENT, content_type)
    assert (response.status_code, response.headers["content-type"]) == (415, "application/problem+json")


@one_database
async def test_content_types_may_have_parameters(sender: RunningSender) -> None:
    assert (await post(sender, EVENT, 'Application/CloudEvents+JSON; charset="UTF-8"')).status_code == 202


# Binary mode

NOTHING = binding.MediaType("", "")
BINARY = {f"ce-{name}": str(value) for name, value in EVENT.items() if name != "data"}


@one_database
async def test_binary_json_becomes_data(sender: RunningSender) -> None:
    response = await post(sender, {"dish": "☃"}, "application/json; charset=utf-8", **BINARY)
    assert response.json()["results"][0]["cursor"] == "topic:menu=1.1"
    (event,) = await recorded(sender)
    assert event["data"] == {"dish": "☃"}
    assert event["datacontenttype"] == "application/json; charset=utf-8"


@one_database
async def test_binary_bytes_become_base64(sender: RunningSender) -> None:
    await post(sender, b"\x00\xff", "image/png", **BINARY)
    (event,) = await recorded(sender)
    assert (event["data_base64"], event["datacontenttype"]) == ("AP8=", "image/png")
    assert "data" not in event


@one_database
async def test_binary_without_a_body_has_no_data(sender: RunningSender) -> None:
    response = await sender.client.post("/events", headers=BINARY)
    assert response.status_code == 202
    (event,) = await recorded(sender)
    assert not {"data", "data_base64", "datacontenttype"} & set(event)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"quoted \\"text\\""', 'quoted "text"'),
        ('"%25"', "%"),
        ("100%", "100%"),
        ("%41%2542", "A%42"),
        ("Käse €".encode().decode("latin-1"), "Käse €"),  # as some SDKs send it: UTF-8, not encoded
    ],
)
def test_header_values_are_unquoted_then_percent_decoded_once(header: str, text: str) -> None:
    event = binding.binary_event(Headers({"ce-subject": header}), NOTHING, b"")
    assert event == {"subject": text}


@pytest.mark.parametrize(
    "headers",
    [
        [(b"ce-id", b"1"), (b"ce-id", b"2")],
        [(b"ce-data", b"x")],
        [(b"ce-subject", b"%ff")],
        [(b"ce-datacontenttype", b"text/plain"), (b"content-type", b"text/html")],
    ],
)
def test_headers_that_contradict_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidEvent):
        binding.binary_event(Headers(raw=headers), binding.MediaType("text/plain", ""), b"x")


@pytest.mark.parametrize(
    ("content_type", "body", "content"),
    [
        ("application/json", b"[1]", {"data": [1]}),
        ("application/json; charset=UTF-8", b'"a"', {"data": "a"}),
        ("text/json", b"null", {"data": None}),
        ("application/vnd.acme.order.v2+json;v=1", b"{}", {"data": {}}),
        ("", b'{"a": 1}', {"data": {"a": 1}}),
        ("", "Käse".encode(), {"data_base64": "S8Okc2U="}),
        ("", b"\xff", {"data_base64": "/w=="}),
        ("text/plain", "Käse".encode(), {"data": "Käse"}),
        ("text/plain;charset=UTF-8", b'{"a": 1}', {"data": '{"a": 1}'}),
        ("text/plain", b"\xff", {"data_base64": "/w=="}),
        ("text/plain; charset=iso-8859-1", b"\xe4", {"data_base64": "5A=="}),
        ("application/xml", b"<a/>", {"data": "<a/>"}),
        ("image/svg+xml", b"<svg/>", {"data": "<svg/>"}),
        ("application/octet-stream", b"{}", {"data_base64": "e30="}),
        ("application/json", b"", {}),
    ],
)
@one_database
async def test_binary_data_becomes_what_it_is(
    sender: RunningSender, content_type: str, body: bytes, content: dict[str, Any]
) -> None:
    headers = BINARY | ({"Content-Type": content_type} if content_type else {})
    response = await sender.client.post("/events", content=body, headers=headers)
    assert response.status_code == 202, response.text
    (event,) = await recorded(sender)
    assert {name: event[name] for name in ("data", "data_base64") if name in event} == content
    assert event.get("datacontenttype") == (content_type or None)


@one_database
@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json; charset=utf-16", "{}".encode("utf-16"), 415),
        ("application/json", b'{"a":1,"a":2}', 400),
        ("", b'{"a":1,"a":2}', 400),
        ("application/cloudevents+avro", b"x", 415),
    ],
)
async def test_binary_data_that_is_not_what_it_says_is_refused(
    sender: RunningSender, content_type: str, body: bytes, status: int
) -> None:
    headers = BINARY | ({"Content-Type": content_type} if content_type else {})
    assert (await sender.client.post("/events", content=body, headers=headers)).status_code == status
    assert await recorded(sender) == []


@one_database
async def test_content_type_decides_before_ce_headers(sender: RunningSender) -> None:
    response = await post(sender, EVENT, STRUCTURED, **BINARY | {"ce-id": "other"})
    assert response.json()["results"][0]["id"] == "1"


@one_database
async def test_types_of_the_system_are_refused_at_the_door(sender: RunningSender) -> None:
    alone = await post(sender, EVENT | {"type": "orderbell.reset"})
    assert (alone.status_code, alone.json()["type"]) == (400, "urn:orderbell:problem:invalid-event")
    binary = await post(sender, {}, "application/json", **BINARY | {"ce-type": "orderbell.bye"})
    assert binary.status_code == 400
    batch = await post(sender, [EVENT | {"type": "orderbell.seen"}, EVENT], BATCH)
    assert [result["status"] for result in batch.json()["results"]] == ["refused", "accepted"]
    assert [event["type"] for event in await recorded(sender)] == ["menu.changed"]


@one_database
@pytest.mark.parametrize(
    "event",
    [
        b'{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t","channel":"topic:menu"}',
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","channel":"topic:menu","data":{"a":{"b":1,"b":2}}}',
    ],
)
async def test_a_name_twice_is_refused_in_every_mode(sender: RunningSender, event: bytes) -> None:
    assert (await post(sender, event)).status_code == 400
    assert (await post(sender, b"[" + event + b"]", BATCH)).status_code == 400
    assert await recorded(sender) == []


# As other implementations send them


def reference_event() -> CloudEvent:
    attributes = {"id": "7", "source": "/kitchen", "type": "t", "channel": "topic:menu", "subject": "Käse €"}
    return CloudEvent(attributes | {"datacontenttype": "application/json"}, {"a": [1, None]})


@pytest.mark.parametrize("encode", [to_binary_event, to_structured_event])
@one_database
async def test_events_of_the_reference_sdk_arrive_whole(sender: RunningSender, encode: Any) -> None:
    message = encode(reference_event())
    response = await sender.client.post("/events", content=message.body, headers=message.headers)
    assert response.status_code == 202, response.text
    (event,) = await recorded(sender)
    assert (event["id"], event["subject"], event["data"]) == ("7", "Käse €", {"a": [1, None]})


@one_database
@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])  # httpx's, or that of Python's own http.client
@pytest.mark.parametrize("data", [{"a": [1, None]}, "text", [1], "🔔 Käse"])
@pytest.mark.parametrize("types", [{}, {"datacontenttype": "application/json"}])
async def test_binary_events_of_the_older_sdk_arrive_as_json(
    sender: RunningSender, data: object, types: dict[str, str], charset: str
) -> None:
    """Unless asked to, it sends no Content-Type, although its data is JSON; and it encodes no header."""
    attributes = {"type": "t", "source": "/kitchen", "channel": "topic:menu", "subject": "100 % Käse"}
    made, body = to_binary(OlderEvent(attributes | types, data))
    headers = [(name.encode(), value.encode(charset)) for name, value in made.items()]
    response = await sender.client.post("/events", content=body, headers=headers)
    assert response.status_code == 202, response.text
    (event,) = await recorded(sender)
    assert (event["data"], event["subject"]) == (data, "100 % Käse")
    assert "data_base64" not in event


@one_database
async def test_structured_events_of_the_older_sdk_arrive_as_json(sender: RunningSender) -> None:
    attributes = {"type": "t", "source": "/kitchen", "channel": "topic:menu", "comexampleextension1": "x"}
    headers, body = to_structured(OlderEvent(attributes, {"a": 1}))
    response = await sender.client.post("/events", content=body, headers=headers)
    assert response.status_code == 202, response.text
    (event,) = await recorded(sender)
    assert (event["data"], event["comexampleextension1"]) == ({"a": 1}, "x")


async def test_recording_the_same_event_from_many_callers_is_one_place(sender: RunningSender) -> None:
    answers = await asyncio.gather(*(post(sender, EVENT) for _ in range(8)))
    results = [answer.json()["results"][0] for answer in answers]
    assert {result["cursor"] for result in results} == {"topic:menu=1.1"}
    assert sorted(result["status"] for result in results) == ["accepted"] + ["duplicate"] * 7
