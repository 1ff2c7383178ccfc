"""Channels: the address of events and of their order.

`customer:<id>` is private to the customer that a token names as `sub`; `topic:<name>` is shared by
all whose token lists it.

An id or a name is any text of 1 to 128 characters without control characters. In a channel every byte of
its UTF-8 that is not one of `A-Z a-z 0-9 . _ @ -` is percent-encoded: so a channel is safe in Redis' keys,
in cursors and in URLs, and a comma, a brace or a slash in an id means nothing there. Each channel has one
spelling. Any other (lower-case hex, an unneeded escape, overlong UTF-8) is
refused rather than corrected: two spellings of one customer would be two rows, two keys, two counts. Case and
Unicode's forms are kept: `Alice` and `alice`, or `é` as one character or as two, are two customers.
"""

from __future__ import annotations

import re
from typing import NewType
from urllib.parse import unquote

from shared.errors import CallerError

Channel = NewType("Channel", str)

MAX_NAME = 128  # characters
MAX_CHANNEL = len("customer:") + MAX_NAME * len("%F0%9F%94%94")  # characters of a channel's text

# One character of a name, in the only way that a channel may spell it, by the table of RFC 3629, 4.
_ESCAPED = "|".join(
    (
        "%(?:2[0-9A-CF]|3[A-F]|5[B-E]|60|7[B-E])",  # ASCII that is neither plain nor a control character
        "%C2%[AB][0-9A-F]",  # U+0080 to U+009F are control characters, too
        "%(?:C[3-9A-F]|D[0-9A-F])%[89AB][0-9A-F]",
        "%E0%[AB][0-9A-F]%[89AB][0-9A-F]",
        "%(?:E[1-9A-CEF]%[89AB]|ED%[89])[0-9A-F]%[89AB][0-9A-F]",  # no surrogates
        "%(?:F0%[9AB]|F[1-3]%[89AB]|F4%8)[0-9A-F]%[89AB][0-9A-F]%[89AB][0-9A-F]",
    )
)
_PLAIN_NAME = rf"[A-Za-z0-9._@-]{{1,{MAX_NAME}}}"
ENCODED_NAME = rf"(?:[A-Za-z0-9._@-]|{_ESCAPED}){{1,{MAX_NAME}}}"
# Plain names are tried first: nearly all are plain, and they match ten times as fast.
CHANNEL = rf"(?:customer|topic):(?:{_PLAIN_NAME}|{ENCODED_NAME})"
NAME = rf"[^\x00-\x1f\x7f-\x9f]{{1,{MAX_NAME}}}"  # for texts that came as UTF-8, which has no surrogates

_CHANNEL = re.compile(CHANNEL)
_NAME = re.compile(rf"(?!.*[\ud800-\udfff]){NAME}")
_PLAIN = re.compile(_PLAIN_NAME)
_TO_ENCODE = re.compile(rb"[^A-Za-z0-9._@-]")


class InvalidChannel(CallerError, ValueError):
    """A text that is not a channel, or an id that can't be part of one."""


def parse_channel(text: str) -> Channel:
    """Raises `InvalidChannel`."""
    if not _CHANNEL.fullmatch(text):
        raise InvalidChannel(f"not a channel: {text[:160]!r}; {_advice(text)}")
    return Channel(text)


def is_name(text: str) -> bool:
    """Whether the text may stand for a customer, a topic or an order."""
    return _NAME.fullmatch(text) is not None


def customer_channel(customer_id: str) -> Channel:
    """Raises `InvalidChannel`."""
    return Channel(f"customer:{_encode(customer_id)}")


def topic_channel(name: str) -> Channel:
    """Raises `InvalidChannel`."""
    return Channel(f"topic:{_encode(name)}")


def name_in(channel: Channel) -> str:
    """The customer's id, or the topic's name, as it was before it was encoded."""
    return unquote(channel.partition(":")[2])


def is_private(channel: Channel) -> bool:
    """Whether the channel is one customer's own; only those have a seen cursor."""
    return channel.startswith("customer:")


def as_in_a_channel(text: str) -> str:
    """A part of a URL that is a channel, or cursors, and may have been normalised on its way."""
    # RFC 3986, 2.3: to a URL `~` and `%7E` are the same. Everything else that we encode stays encoded.
    return text.replace("~", "%7E")


def _encode(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    if not is_name(name):
        raise InvalidChannel(f"not 1 to {MAX_NAME} characters without control characters: {name[:160]!r}")
    return _TO_ENCODE.sub(_escape, name.encode()).decode()


def _escape(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte[0][0]


def _advice(text: str) -> str:
    """The correct spelling of the channel that the text may mean."""
    kind, _, name = text[:65].partition(":")
    meant = unquote(name)
    if kind in ("customer", "topic") and len(text) <= 64 and is_name(meant) and "\ufffd" not in meant:
        return f"its name must be percent-encoded: {kind}:{_encode(meant)}"
    return "expected customer:<id> or topic:<name>, percent-encoded"
