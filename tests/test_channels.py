"""Channels: which texts name one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import (
    NAME,
    InvalidChannel,
    customer_channel,
    is_name,
    is_private,
    parse_channel,
    topic_channel,
)


@given(st.from_regex(NAME, fullmatch=True))
def test_every_name_makes_two_channels(name: str) -> None:
    assert is_name(name)
    assert parse_channel(f"customer:{name}") == customer_channel(name)
    assert parse_channel(f"topic:{name}") == topic_channel(name)


@pytest.mark.parametrize("name", ["a", "alice", "alice@example.com", "A-1_b.2", "x" * 128])
def test_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 129,
        "a b",
        "a:b",
        "a,b",
        "a=1",
        "a{b",
        "a}",
        "a*",
        "a/b",
        "a%20b",
        "é",
        "a\n",
        "\x00",
        "a\u200b",
    ],
)
def test_not_a_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidChannel):
        customer_channel(name)
    with pytest.raises(InvalidChannel):
        topic_channel(name)


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
