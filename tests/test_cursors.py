"""Cursors: one text, there and back."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import MAX_NAME, Channel, customer_channel, topic_channel
from shared.cursors import (
    MAX_CHANNELS,
    MAX_NUMBER,
    Cursor,
    InvalidCursor,
    Place,
    format_cursors,
    parse_after,
    parse_cursor,
    parse_cursors,
)

ALICE = customer_channel("alice")
MENU = topic_channel("menu")

places = st.builds(Place, st.integers(1, MAX_NUMBER), st.integers(0, MAX_NUMBER))
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=MAX_NAME)
channels = st.one_of(names.map(customer_channel), names.map(topic_channel))


@given(channels, places)
def test_cursor_survives_its_text(channel: Channel, place: Place) -> None:
    cursor = Cursor(channel, place)
    assert parse_cursor(str(cursor)) == cursor


@given(st.dictionaries(channels, places, max_size=MAX_CHANNELS))
def test_joined_cursors_survive_their_text(joined: dict[Channel, Place]) -> None:
    text = format_cursors(joined)
    assert parse_cursors(text) == joined
    assert format_cursors(Cursor(*item) for item in joined.items()) == text


@given(places, places)
def test_places_follow_each_other_by_epoch_then_seq(a: Place, b: Place) -> None:
    assert (a < b) == (a.epoch < b.epoch or (a.epoch == b.epoch and a.seq < b.seq))


@given(st.text(max_size=80))
def test_any_text_is_a_cursor_or_is_refused(text: str) -> None:
    try:
        cursor = parse_cursor(text)
    except InvalidCursor:
        return
    assert str(cursor) == text


def test_the_text_of_the_contract() -> None:
    assert parse_cursor("customer:alice=1.42") == Cursor(ALICE, Place(1, 42))
    assert parse_cursors("customer:alice=1.42,topic:menu=1.0") == {ALICE: Place(1, 42), MENU: Place(1, 0)}
    assert parse_cursors("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "customer:alice",
        "customer:alice=",
        "customer:alice=1",
        "customer:alice=1.",
        "customer:alice=.1",
        "customer:alice=0.1",  # epochs begin with 1
        "customer:alice=01.1",
        "customer:alice=1.01",
        "customer:alice=-1.1",
        "customer:alice=1.-1",
        "customer:alice=1.1e3",
        "customer:alice=1.1 ",
        "customer:alice=1.1\n",
        "customer:alice=1.\u0661",  # a digit, but not one of ours
        f"customer:alice=1.{MAX_NUMBER + 1}",
        f"customer:alice={MAX_NUMBER + 1}.1",
        "customer:alice=1." + "9" * 5000,
        "order:1=1.1",
        "=1.1",
        "customer:alice=1.1,topic:menu=1.1",
    ],
)
def test_not_a_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor):
        parse_cursor(text)


@pytest.mark.parametrize(
    "text", [",", "topic:a=1.1,", ",topic:a=1.1", "topic:a=1.1,,topic:b=1.1", "topic:a=1.1, topic:b=1.1"]
)
def test_not_joined_cursors(text: str) -> None:
    with pytest.raises(InvalidCursor):
        parse_cursors(text)


def test_a_channel_named_twice_is_refused() -> None:
    with pytest.raises(InvalidCursor, match="twice"):
        parse_cursors("topic:a=1.1,topic:a=1.2")


def test_as_many_channels_as_allowed_and_no_more() -> None:
    text = ",".join(f"topic:t{n}=1.1" for n in range(MAX_CHANNELS))
    assert len(parse_cursors(text)) == MAX_CHANNELS
    with pytest.raises(InvalidCursor, match="more than"):
        parse_cursors(text + ",topic:more=1.1")


@given(st.dictionaries(channels, places, min_size=1, max_size=5))
def test_a_url_takes_cursors_as_they_are_and_as_libraries_encode_them(joined: dict[Channel, Place]) -> None:
    text = format_cursors(joined)
    assert parse_after(f"limit=3&after={text}") == joined
    assert parse_after(urlencode({"after": text, "limit": 3})) == joined
    assert parse_after("after=" + quote(text, safe="")) == joined


def test_a_url_may_name_each_cursor_by_itself() -> None:
    assert parse_after("after=topic:a=1.1&limit=3&after=&after=topic%3Ab%3D1.2") == {
        topic_channel("a"): Place(1, 1),
        topic_channel("b"): Place(1, 2),
    }
    with pytest.raises(InvalidCursor, match="twice"):
        parse_after("after=topic:a=1.1&after=topic:a=1.2")


@pytest.mark.parametrize("query", ["", "after=", "limit=3", "before=topic:a=1.1", "x=after"])
def test_a_url_may_name_no_cursor(query: str) -> None:
    assert parse_after(query) == {}


@pytest.mark.parametrize("value", ["customer:a|b=1.1", "customer:a%7cb=1.1", "customer%3Aa%7Cb%3D1.1", "%FF"])
def test_another_spelling_in_a_url_is_refused(value: str) -> None:
    with pytest.raises(InvalidCursor):
        parse_after(f"after={value}")
