"""Events: which ones the sender accepts, and the text that all others pass on unread."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given

from shared.channels import customer_channel
from shared.cursors import MAX_NUMBER, Place
from shared.events import (
    MAX_EVENT_BYTES,
    ORDER_COMPLETED,
    SOURCE,
    EventTooLarge,
    InvalidEvent,
    is_traceparent,
    order_completed,
    parse_event,
)
from tests.test_json import json_values

NOW = datetime(2026, 11, 23, 14, 25, 0, 123_456, tzinfo=UTC)
ALICE = customer_channel("alice")
LAST = Place(MAX_NUMBER, MAX_NUMBER)
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/kitchen",
    "type": "menu.changed",
    "channel": "topic:menu",
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def text_of(**attributes: Any) -> dict[str, Any]:
    """The final text of EVENT with these attributes, decoded again."""
    decoded: dict[str, Any] = json.loads(parse_event({**EVENT, **attributes}, now=NOW).text(Place(1, 42)))
    return decoded


# --- a caller's event


def test_text_has_the_attributes_the_place_and_then_the_data() -> None:
    draft = parse_event({**EVENT, "data": {"dish": "soup"}, "time": "2026-11-23T14:25:00Z"}, now=NOW)
    assert draft.text(Place(1, 42)) == (
        b'{"specversion":"1.0","id":"e-1","source":"/kitchen","type":"menu.changed","time":"2026-11-23T14:25:00Z",'
        b'"channel":"topic:menu","epoch":1,"seq":42,"data":{"dish":"soup"}}'
    )
    assert (draft.id, draft.source, draft.type, draft.channel) == (
        "e-1",
        "/kitchen",
        "menu.changed",
        "topic:menu",
    )


def test_event_without_data_and_time() -> None:
    assert text_of() == {**EVENT, "time": "2026-11-23T14:25:00.123Z", "epoch": 1, "seq": 42}


def test_data_may_be_null_and_attributes_of_null_are_absent() -> None:
    text = text_of(data=None, subject=None)
    assert text["data"] is None
    assert "subject" not in text


@given(json_values)
def test_data_arrives_as_it_was_given(data: object) -> None:
    assert text_of(data=data)["data"] == data


@pytest.mark.parametrize("event", [None, [], "event", 1, True])
def test_event_is_an_object(event: object) -> None:
    with pytest.raises(InvalidEvent, match="object"):
        parse_event(event, now=NOW)


@pytest.mark.parametrize("version", [None, "", "0.3", "1.1", "1", 1.0, 1])
def test_specversion_is_ours(version: object) -> None:
    with pytest.raises(InvalidEvent, match="specversion"):
        parse_event({**EVENT, "specversion": version}, now=NOW)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "channel"])
def test_required_attribute_is_missing(name: str) -> None:
    with pytest.raises(InvalidEvent, match=name):
        parse_event({k: v for k, v in EVENT.items() if k != name}, now=NOW)


@pytest.mark.parametrize("name", ["id", "source", "type", "channel"])
@pytest.mark.parametrize("value", ["", None, 1, True, ["x"], {}])
def test_required_attribute_is_no_text(name: str, value: object) -> None:
    with pytest.raises(InvalidEvent, match=name):
        parse_event({**EVENT, name: value}, now=NOW)


@pytest.mark.parametrize("name", ["subject", "datacontenttype", "dataschema", "time"])
@pytest.mark.parametrize("value", ["", 1, True])
def test_optional_attribute_is_a_text(name: str, value: object) -> None:
    with pytest.raises(InvalidEvent, match=name):
        parse_event({**EVENT, name: value}, now=NOW)


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "with-dash", "ä", "a b"])
def test_attribute_name(name: str) -> None:
    with pytest.raises(InvalidEvent, match="attribute names"):
        parse_event({**EVENT, name: "x"}, now=NOW)


@pytest.mark.parametrize("value", [1.5, [1], {"a": 1}, 2**31, -(2**31) - 1])
def test_extension_value_of_no_attribute_type(value: object) -> None:
    with pytest.raises(InvalidEvent, match="shop"):
        parse_event({**EVENT, "shop": value}, now=NOW)


@pytest.mark.parametrize("value", ["a\nb", "\x00", "\x7f", "\x85"])
@pytest.mark.parametrize("name", ["id", "subject", "shop"])
def test_control_characters_in_attributes(name: str, value: str) -> None:
    with pytest.raises(InvalidEvent, match="control characters"):
        parse_event({**EVENT, name: value}, now=NOW)


@pytest.mark.parametrize("value", ["7", 7, -7, True, 2**31 - 1])
def test_extensions_are_kept(value: object) -> None:
    assert text_of(shop=value)["shop"] == value


@pytest.mark.parametrize("name", ["epoch", "seq"])
def test_the_place_is_not_the_callers(name: str) -> None:
    with pytest.raises(InvalidEvent, match="set by the sender"):
        parse_event({**EVENT, name: 1}, now=NOW)


@pytest.mark.parametrize("channel", ["menu", "order:1", "topic:", "topic:a b", "topic:{a}"])
def test_channel_must_be_one(channel: str) -> None:
    with pytest.raises(InvalidEvent, match="not a channel"):
        parse_event({**EVENT, "channel": channel}, now=NOW)


@pytest.mark.parametrize("time", ["2026-11-23T14:25:00Z", "2026-11-23t14:25:00.5z", "2016-12-31T23:59:60Z"])
def test_time_stays_as_its_caller_wrote_it(time: str) -> None:
    assert text_of(time=time)["time"] == time


@pytest.mark.parametrize("time", ["yesterday", "2026-11-23T14:25:00", "2026-11-23T14:25:60Z"])
def test_not_a_time(time: str) -> None:
    with pytest.raises(InvalidEvent, match="time"):
        parse_event({**EVENT, "time": time}, now=NOW)


@pytest.mark.parametrize("type", ["orderbell.reset", "orderbell.tombstone", "orderbell.", "orderbell.new"])
def test_types_of_the_system_are_refused_from_callers(type: str) -> None:
    with pytest.raises(InvalidEvent, match="Orderbell's own"):
        parse_event({**EVENT, "type": type}, now=NOW)
    with pytest.raises(InvalidEvent, match="Orderbell's own"):
        parse_event({**EVENT, "type": type, "time": "2026-11-23T14:25:00Z", "extension": 3}, now=NOW)


@pytest.mark.parametrize("type", ["orderbell", "orderbells.rung", "com.orderbell.reset", "Orderbell.reset"])
def test_types_that_only_look_like_it_are_taken(type: str) -> None:
    assert text_of(type=type)["type"] == type


def test_data_and_data_base64_exclude_each_other() -> None:
    with pytest.raises(InvalidEvent, match="exclude"):
        parse_event({**EVENT, "data": 1, "data_base64": "AA=="}, now=NOW)


@pytest.mark.parametrize("value", [1, [], True, "not base64!", "AAA", "AA==\n"])
def test_data_base64_is_base64(value: object) -> None:
    with pytest.raises(InvalidEvent, match="data_base64"):
        parse_event({**EVENT, "data_base64": value}, now=NOW)


def test_data_base64_is_kept() -> None:
    encoded = base64.b64encode(bytes(range(256))).decode()
    assert text_of(data_base64=encoded)["data_base64"] == encoded


def test_largest_event_fits_wherever_its_place_will_be() -> None:
    room = MAX_EVENT_BYTES - len(parse_event({**EVENT, "data": ""}, now=NOW).text(LAST))
    draft = parse_event({**EVENT, "data": "x" * room}, now=NOW)
    assert len(draft.text(LAST)) == MAX_EVENT_BYTES
    with pytest.raises(EventTooLarge):
        parse_event({**EVENT, "data": "x" * (room + 1)}, now=NOW)


def test_size_counts_bytes_not_characters() -> None:
    with pytest.raises(EventTooLarge):
        parse_event({**EVENT, "data": "é" * (MAX_EVENT_BYTES // 2)}, now=NOW)


# --- the event of a completed order


def test_order_completed() -> None:
    draft = order_completed("1042", ALICE, {"order_id": "1042"}, now=NOW, traceparent=TRACEPARENT)
    text = json.loads(draft.text(Place(1, 42)))
    assert text.pop("id") == draft.id
    assert text == {
        "specversion": "1.0",
        "source": SOURCE,
        "type": ORDER_COMPLETED,
        "subject": "1042",
        "time": "2026-11-23T14:25:00.123Z",
        "datacontenttype": "application/json",
        "traceparent": TRACEPARENT,
        "channel": "customer:alice",
        "epoch": 1,
        "seq": 42,
        "data": {"order_id": "1042"},
    }


def test_every_completed_order_has_an_id_of_its_own() -> None:
    ids = [order_completed("1", ALICE, {}, now=NOW, traceparent=None).id for _ in range(100)]
    assert len(set(ids)) == 100
    assert ids == sorted(ids)  # UUIDv7


def test_order_completed_that_is_too_large() -> None:
    with pytest.raises(EventTooLarge):
        order_completed("1", ALICE, {"note": "x" * MAX_EVENT_BYTES}, now=NOW, traceparent=None)


# --- small parts


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT.upper(), False),
        ("01" + TRACEPARENT[2:], False),
        (TRACEPARENT + "-00", False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", False),
        ("", False),
    ],
)
def test_traceparent(text: str, *, valid: bool) -> None:
    assert is_traceparent(text) is valid


# --- the CloudEvents SDK reads what we write


@pytest.mark.parametrize("data", [{"dish": "soup"}, [1, 2], "text", None])
def test_cloudevents_sdk_reads_our_text(data: object) -> None:
    attributes = {
        **EVENT,
        "subject": "1042",
        "shop": "7",
        "datacontenttype": "application/json",
        "data": data,
    }
    text = parse_event(attributes, now=NOW).text(Place(1, 42))
    message = HTTPMessage(headers={"content-type": "application/cloudevents+json"}, body=text)
    event = from_structured_event(message, JSONFormat())
    assert event.get_id() == "e-1"
    assert event.get_source() == "/kitchen"
    assert event.get_time() == NOW.replace(microsecond=123_000)
    assert event.get_extension("channel") == "topic:menu"
    assert event.get_extension("seq") == 42
    assert event.get_data() == data
