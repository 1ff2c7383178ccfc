"""Channels: the address of events and of their order.

`customer:<id>` is private to the customer that a token names as `sub`; `topic:<name>` is shared by
all whose token lists it.
"""

from __future__ import annotations

import re
from typing import NewType

Channel = NewType("Channel", str)

NAME = r"[A-Za-z0-9._@-]{1,128}"  # no colon, brace, comma, glob or space: safe in keys, cursors and URLs
_CHANNEL = re.compile(rf"(?:customer|topic):{NAME}")
_NAME = re.compile(NAME)


class InvalidChannel(ValueError):
    """A text that names no channel, or an id that can't be part of one."""


def parse_channel(text: str) -> Channel:
    """Raises `InvalidChannel`."""
    if not _CHANNEL.fullmatch(text):
        raise InvalidChannel(f"not a channel: {text[:160]!r}; expected customer:<id> or topic:<name>")
    return Channel(text)


def is_name(text: str) -> bool:
    """Whether the text may stand for a customer, a topic or an order."""
    return _NAME.fullmatch(text) is not None


def customer_channel(customer_id: str) -> Channel:
    """Raises `InvalidChannel`."""
    return parse_channel(f"customer:{customer_id}")


def topic_channel(name: str) -> Channel:
    """Raises `InvalidChannel`."""
    return parse_channel(f"topic:{name}")


def is_private(channel: Channel) -> bool:
    """Whether the channel is one customer's own; only those have a seen cursor."""
    return channel.startswith("customer:")
