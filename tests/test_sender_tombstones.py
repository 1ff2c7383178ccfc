from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sender.digest import identity_of
from sender.tombstones import Fault, Row
from shared.channels import Channel
from shared.cursors import Place
from shared.events import MAX_EVENT_BYTES, SOURCE, Draft, parse_event

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
RECORDED = "2026-11-23T14:25:01.000Z"
ALICE = Channel("customer:alice")
PLACE = Place(1, 42)
EVENT = {"specversion": "1.0", "id": "soup-7", "source": "/kitchen", "type": "t", "channel": ALICE}


def draft(**more: object) -> Draft:
    return parse_event(EVENT | more, now=NOW)


def row(text: bytes, *, event_id: str = "soup-7") -> Row:
    return Row(ALICE, PLACE, identity_of("/kitchen", event_id), RECORDED, text)


def padded(size: int) -> bytes:
    text = draft(data={"x": ""}).text(PLACE)
    return text.replace(b'"x":""', b'"x":"%b"' % (b"x" * (size - len(text))))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"data": {"naïve": "☃", "seq": 7, "channel": "customer:bob"}},
        {"data_base64": "AAAA"},
        {"data": None, "subject": "1042", "epoche": 3},
    ],
)
def test_what_the_door_takes_has_no_fault(more: dict[str, Any]) -> None:
    sound = row(draft(**more).text(PLACE))
    assert sound.fault() is None
    assert sound.sound_text() == sound.text


def test_64_kib_are_published_and_one_byte_more_is_not() -> None:
    assert row(padded(MAX_EVENT_BYTES)).fault() is None
    assert row(padded(MAX_EVENT_BYTES + 1)).fault() is Fault.TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"lunch",
        b"[]",
        b"42",
        b"{}",
        draft().text(PLACE)[:-1],
        draft().text(PLACE) * 2,
        b" " + draft().text(PLACE),
        b"\xef\xbb\xbf" + draft().text(PLACE),
        draft(data="caf\xe9").text(PLACE).decode().encode("latin-1"),
        draft(data="\0").text(PLACE).replace(b"\\u0000", b"\0"),
        draft().text(PLACE).replace(b'"specversion":"1.0",', b""),
        draft().text(PLACE).replace(b'"1.0"', b'"0.3"'),
        draft().text(PLACE).replace(b'"soup-7"', b"7"),
        draft(data=0).text(PLACE).replace(b'"data":0', b'"data":' + b"[" * 9_000 + b"]" * 9_000),
    ],
)
def test_what_is_no_cloud_event_in_utf_8_can_not_be_published(text: bytes) -> None:
    assert row(text).fault() is Fault.NOT_AN_EVENT


@pytest.mark.parametrize("place", [Place(1, 41), Place(2, 42)])
def test_event_that_claims_another_place_can_not_be_published(place: Place) -> None:
    """Browsers would believe it, and wait for ever for the events between."""
    assert row(draft().text(place)).fault() is Fault.NOT_AN_EVENT


def test_event_that_claims_another_channel_can_not_be_published() -> None:
    assert row(draft(channel="customer:bob").text(PLACE)).fault() is Fault.NOT_AN_EVENT


def test_tombstone_names_the_event_it_replaces_and_is_valid_in_the_same_place() -> None:
    large = row(padded(100_000))
    tombstone = row(large.sound_text())
    assert tombstone.fault() is None
    assert json.loads(tombstone.text) == {
        "specversion": "1.0",
        "id": "soup-7",
        "source": "/kitchen",
        "type": "orderbell.tombstone",
        "time": "2026-11-23T14:25:00.000Z",
        "datacontenttype": "application/json",
        "channel": ALICE,
        "epoch": 1,
        "seq": 42,
        "data": {"reason": "too-large"},
    }


def test_tombstone_of_a_beginning_is_that_of_the_whole() -> None:
    """A text that is too large is never read to its end."""
    text = padded(200_000)
    assert row(text).sound_text() == row(text[: MAX_EVENT_BYTES + 1]).sound_text()


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b'{"id":"soup-7"}',
        b'{"id":"soup-7","source":"/other"}',
        b'{"data":{"id":"x","source":"y"},"id":"soup-7","source":"/kitchen"}',
        b'{"id":"\xff","source":"/kitchen"}',
        b'{"id":"soup-7","source":"/kitchen',
    ],
)
def test_text_that_the_digest_does_not_confirm_is_not_believed(text: bytes) -> None:
    event = json.loads(row(text).sound_text())
    assert (event["source"], event["id"]) == (SOURCE, identity_of("/kitchen", "soup-7"))
    assert (event["time"], event["data"]) == (RECORDED, {"reason": "not-an-event"})


def test_time_that_is_none_becomes_that_of_the_record() -> None:
    text = b'{"id":"soup-7","source":"/kitchen","time":"lunch"}'
    event = json.loads(row(text).sound_text())
    assert (event["id"], event["time"]) == ("soup-7", RECORDED)
