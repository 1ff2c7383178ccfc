"""Channels: which texts name one."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.channels import (
    MAX_CHANNEL,
    MAX_NAME,
    InvalidChannel,
    customer_channel,
    is_name,
    is_private,
    name_in,
    parse_channel,
    topic_channel,
)

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=MAX_NAME)
# Customers' names of identity providers and people, beside those of the older rule.
REAL = [
    "alice",
    "A-1_b.2@example.com",
    "auth0|5f7c",
    "google-oauth2|103547991597142817347",
    "alice+news@shop.example",
    "urn:user:42",
    "{6f9619ff-8b86-d011-b42d-00c04fc964ff}",
    "2026/1042",
    "Zoë, 寿司 🔔",
    " ",
    "100%",
    "a~b",
    "\u200b",
    "🔔" * MAX_NAME,
]


@given(NAMES)
@example(REAL[-1])
def test_every_name_makes_two_channels_and_is_found_in_them_again(name: str) -> None:
    assert is_name(name)
    for channel in (customer_channel(name), topic_channel(name)):
        assert parse_channel(channel) == channel
        assert name_in(channel) == name
        assert len(channel) <= MAX_CHANNEL


@given(NAMES)
def test_a_channel_is_safe_in_keys_cursors_and_urls(name: str) -> None:
    assert re.fullmatch(r"customer:[A-Za-z0-9._@%-]+", customer_channel(name))


@pytest.mark.parametrize("name", REAL)
def test_name(name: str) -> None:
    assert is_name(name)
    assert name_in(customer_channel(name)) == name


@given(st.from_regex(r"[A-Za-z0-9._@-]{1,128}", fullmatch=True))
def test_older_names_stay_as_they_are(name: str) -> None:
    assert customer_channel(name) == f"customer:{name}"


def test_the_text_of_the_contract() -> None:
    assert customer_channel("auth0|5f7c") == "customer:auth0%7C5f7c"
    assert customer_channel("alice+news@shop.example") == "customer:alice%2Bnews@shop.example"
    assert topic_channel("é/{a,b}~") == "topic:%C3%A9%2F%7Ba%2Cb%7D%7E"


@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.long)])
def test_each_character_there_is_has_one_spelling_or_none(step: int) -> None:
    for number in (*range(0x2000), *range(0x2000, sys.maxunicode + 1, step)):
        character = chr(number)
        assert is_name(character) == (unicodedata.category(character) not in ("Cc", "Cs")), hex(number)
        if is_name(character):
            channel = customer_channel(character)
            assert (parse_channel(channel), name_in(channel)) == (channel, character)


@given(st.text("%0123456789ABCDEFabcdef.~", min_size=1, max_size=40))
@example("%C0%AF")
@example("%ED%A0%80")
def test_a_channel_has_no_second_spelling(encoded: str) -> None:
    try:
        channel = parse_channel(f"customer:{encoded}")
    except InvalidChannel:
        return
    assert customer_channel(name_in(channel)) == channel


@pytest.mark.parametrize("name", ["", "x" * 129, "🔔" * 129, "a\n", "\x00", "\x7f", "a\x85", "\ud800"])
def test_not_a_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidChannel):
        customer_channel(name)
    with pytest.raises(InvalidChannel):
        topic_channel(name)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("customer:auth0|5f7c", "customer:auth0%7C5f7c"),
        ("customer:auth0%7c5f7c", "customer:auth0%7C5f7c"),
        ("topic:%61", "topic:a"),
        ("customer:a%2Eb", "customer:a.b"),
        ("customer:100%", "customer:100%25"),
    ],
)
def test_another_spelling_is_refused_and_the_right_one_named(text: str, advice: str) -> None:
    with pytest.raises(InvalidChannel) as caught:
        parse_channel(text)
    assert str(caught.value).endswith(advice)


@pytest.mark.parametrize(
    "text",
    [
        "%C0%AF",
        "%E0%80%AF",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%00",
        "%0A",
        "%7F",
        "%C2%85",
        "%C3",
        "%",
        "%4",
        "%GG",
    ],
)
def test_what_encodes_no_name_is_no_channel(text: str) -> None:
    with pytest.raises(InvalidChannel):
        parse_channel(f"customer:{text}")


@pytest.mark.parametrize(
    "text", ["", "alice", ":alice", "customer:", "Customer:a", "order:1", " topic:a", "topic:a\n"]
)
def test_not_a_channel(text: str) -> None:
    with pytest.raises(InvalidChannel):
        parse_channel(text)


def test_message_quotes_no_more_than_a_line() -> None:
    with pytest.raises(InvalidChannel) as caught:
        parse_channel("x" * 100_000)
    assert len(str(caught.value)) < 300


def test_only_a_customers_channel_is_private() -> None:
    assert is_private(customer_channel("alice"))
    assert not is_private(topic_channel("customer"))
