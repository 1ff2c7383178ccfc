"""Cursors: "the last event I had", as one text for every transport, gateway and API.

`customer:alice=1.42` is the place epoch 1, seq 42 in that channel; `=1.0` is before its first event.
Cursors of several channels are joined by commas; a comma in a name is percent-encoded (shared/channels.py).

In a URL a channel or a cursor may stand as it is, because all its characters are allowed there: in
`?after=customer:auth0%7C5f7c=1.42` the escape belongs to the cursor. Or a URL library has encoded it once
more: `?after=customer%3Aauth0%257C5f7c%3D1.42`. A text that is a valid cursor as it stands is taken as that.
Either way a text names one customer. Only doubly encoded names could be confused: for them, encode the colon.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from shared.channels import CHANNEL, Channel, as_in_a_channel
from shared.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_NUMBER = 2**53 - 1  # what a browser's number holds exactly
MAX_CHANNELS = 100  # in one text; bounds what one client can ask for

_CURSOR = re.compile(rf"({CHANNEL})=([1-9][0-9]{{0,15}})\.(0|[1-9][0-9]{{0,15}})")


class InvalidCursor(CallerError, ValueError):
    """A text that is not the cursor of any event."""


class Place(NamedTuple):
    """A place in one channel. Places compare in their order: epoch first, then seq."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


class Cursor(NamedTuple):
    channel: Channel
    place: Place

    def __str__(self) -> str:
        return f"{self.channel}={self.place}"


def parse_cursor(text: str) -> Cursor:
    """Raises `InvalidCursor`."""
    match = _CURSOR.fullmatch(text)
    if not match:
        raise InvalidCursor(f"not a cursor: {text[:160]!r}; expected <channel>=<epoch>.<seq>")
    channel, epoch, seq = match[1], int(match[2]), int(match[3])
    if max(epoch, seq) > MAX_NUMBER:
        raise InvalidCursor(f"not a cursor: {text[:160]!r}; numbers end at 2^53 - 1")
    return Cursor(Channel(channel), Place(epoch, seq))


def parse_cursors(text: str) -> dict[Channel, Place]:
    """The places that a joined text names, one a channel; an empty text names none.

    Raises `InvalidCursor`, also for a channel named twice.
    """
    if not text:
        return {}
    parts = text.split(",", MAX_CHANNELS)
    if len(parts) > MAX_CHANNELS:
        raise InvalidCursor(f"more than {MAX_CHANNELS} cursors in one text")
    places = dict(parse_cursor(part) for part in parts)
    if len(places) < len(parts):
        raise InvalidCursor("a channel is named twice")
    return places


def format_cursors(places: Mapping[Channel, Place] | Iterable[Cursor]) -> str:
    pairs = places.items() if hasattr(places, "items") else places
    return ",".join(f"{channel}={place}" for channel, place in pairs)


def parse_after(query: str, *, name: str = "after") -> dict[Channel, Place]:
    """The places in `after`, or another parameter, of a URL's query that is not decoded yet.

    None where it is absent or empty; all of them if it is given several times. Raises `InvalidCursor`.
    """
    if name not in query:
        return {}
    pairs = (part.partition("=") for part in query.split("&"))
    after = ",".join([value for key, _, value in pairs if key == name and value])
    try:
        return parse_cursors(as_in_a_channel(after))
    except InvalidCursor:
        return parse_cursors(unquote_plus(after))
