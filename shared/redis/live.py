"""Live messages, and the numbers in Redis: bytes to values and back, without I/O.

A message of `ob:live:{<channel>}` is an event (`<epoch> <seq> <JSON>`), what the customer has seen (`seen
<epoch> <seq>`, `seen <epoch> <seq>+<ranges>`), or `erased` (signed: `erased <ms since 1970>`). Anything
else was not published by a sender of ours and gives None here, as does a number that no place can have.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shared.cursors import MAX_NUMBER, Place
from shared.events import Entry
from shared.extents import RANGES, Extent, parse_ranges
from shared.redis.signatures import unsigned

# How the message of the event at (epoch, seq) begins, up to and including the brace of its JSON. If one
# particular event is expected, comparing with this takes a fraction of the time of `parse_live`.
LIVE_BEGINNING = b"%d %d {"
ERASED = b"erased"

_DIGITS = 16  # of a number, at most
_ZERO = ord("0")
_EVENT = re.compile(rb"([1-9][0-9]{0,15}) ([1-9][0-9]{0,15}) (?=\{)")
# Gateways of versions before ranges understand only the first form; the script publishes both.
_SEEN = re.compile(rb"seen ([1-9][0-9]{0,15}) (0|[1-9][0-9]{0,15})(\+[0-9+-]+)?")
_ERASED_AT = re.compile(rb"erased ([1-9][0-9]{0,15})")


class SeenNotice(NamedTuple):
    """What the customer has seen."""

    extent: Extent


class ErasedNotice(NamedTuple):
    """The customer was erased: their connections must end."""

    at: float | None = None  # seconds since 1970; signed notices have it, so that none can be replayed later


def parse_live(message: bytes) -> Entry | SeenNotice | ErasedNotice | None:
    """A live message's content.

    A signature in front is skipped; if there are keys, it was checked and removed before.
    """
    message = unsigned(message)
    if match := _EVENT.match(message):
        place = place_of(match[1], match[2])
        return Entry(place, message[match.end() :]) if place else None
    if match := _SEEN.fullmatch(message):
        extent = extent_of(match[1], match[2], match[3] or b"")
        return SeenNotice(extent) if extent else None
    if match := _ERASED_AT.fullmatch(message):
        return ErasedNotice(int(match[1]) / 1000)
    return ErasedNotice() if message == ERASED else None


def message_of(entry: Entry) -> bytes:
    """The live message of an event."""
    return b"%d %d %b" % (*entry.place, entry.text)


def extent_of(epoch: bytes, seq: bytes, ranges: bytes) -> Extent | None:
    place = place_of(epoch, seq)
    if place is None or not ranges:
        return Extent(place) if place else None
    try:
        text = ranges.decode("ascii")
        return Extent.of(place, parse_ranges(text)) if RANGES.fullmatch(text) else None
    except ValueError:
        return None


def place_of(epoch: bytes | None, seq: bytes | None) -> Place | None:
    at, n = number_of(epoch), number_of(seq)
    return Place(at, n) if at and n is not None else None


def number_of(text: bytes | None) -> int | None:
    """Without a pattern: a gateway reads hundreds of heads a second when it checks for missed events."""
    if text is None or not text.isdigit() or len(text) > _DIGITS or (text[0] == _ZERO and len(text) > 1):
        return None
    number = int(text)
    return number if number <= MAX_NUMBER else None
