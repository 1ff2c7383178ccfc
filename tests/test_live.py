"""Live messages, from bytes to values."""

from __future__ import annotations

import pytest

from shared.cursors import MAX_NUMBER, Place
from shared.events import Entry
from shared.extents import Extent, Range
from shared.redis.live import ErasedNotice, SeenNotice, message_of, parse_live


def test_an_event_is_parsed_as_it_was_written() -> None:
    entry = Entry(Place(2, 41), b'{"message":"\xc3\xa9 1 2 {"}')
    assert parse_live(message_of(entry)) == entry


def test_what_was_seen_may_have_ranges_beyond_a_place() -> None:
    assert parse_live(b"seen 1 40+42+45-47") == SeenNotice(
        Extent.of(Place(1, 40), [Range(42, 42), Range(45, 47)])
    )
    assert parse_live(b"seen 1 40+47-45") is None


def test_an_erasure_may_name_its_time() -> None:
    assert parse_live(b"erased") == ErasedNotice()
    assert parse_live(b"erased 1500") == ErasedNotice(1.5)


@pytest.mark.parametrize(
    "message",
    [b"", b"hello", b"1 2", b"1 2 ", b"0 1 {}", b"1 0 {}", b"01 1 {}", b"1 -1 {}", b"1  1 {}", b" 1 1 {}",
     b"1 1 []", b"seen 1", b"seen 1 2 ", b"seen 0 1", b"seen 1 2\n", b"\xff",
     b"1 9007199254740992 {}", b"9999999999999999 1 {}", b"seen 1 9007199254740992",
     b"seen 9999999999999999 0"],
)  # fmt: skip
def test_message_that_no_sender_published_is_none(message: bytes) -> None:
    assert parse_live(message) is None


def test_numbers_of_events_end_where_those_of_cursors_do() -> None:
    last = Place(MAX_NUMBER, MAX_NUMBER)
    assert parse_live(b"%d %d {}" % last) == Entry(last, b"{}")
    assert parse_live(b"seen %d %d" % last) == SeenNotice(Extent(last))
