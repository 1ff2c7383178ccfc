"""Extents: which of a channel's events a customer has seen, not necessarily everything up to one place.

A later alert may be on one device's screen while an earlier one waits elsewhere. So an extent is a place, up
to which everything was seen, and a few ranges of seqs beyond it. Extents are merged as sets: the union does
not depend on the order of devices' reports. When the hole before a range is filled, the place moves to the
end of the range.

The text extends the cursor's: `customer:alice=1.40+42+45-47` is everything up to 1.40, and 42, 45, 46, 47.
A plain cursor is an extent without ranges; `=1.0+5` is the fifth event alone.

Ranges are bounded: only the newest `MAX_RANGES` are kept. A dropped range counts as unseen, so it may pop up
again on another device; nothing unseen ever counts as seen. Ranges are dropped only if there are that many
holes, each an alert that no device has shown, and only until these are filled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from shared.channels import CHANNEL, Channel
from shared.cursors import MAX_CHANNELS, MAX_NUMBER, InvalidCursor, Place

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RANGES = 64  # beyond the place; with 16 digits a number, 2,176 characters
MAX_RANGES_TEXT = MAX_RANGES * 34

_RANGES = r"(?:\+[1-9][0-9]{0,15}(?:-[1-9][0-9]{0,15})?)*"
_RANGE = re.compile(r"\+([0-9]+)(?:-([0-9]+))?")
_EXTENT = re.compile(rf"({CHANNEL})=([1-9][0-9]{{0,15}})\.(0|[1-9][0-9]{{0,15}})({_RANGES})")
RANGES = re.compile(_RANGES)


class Range(NamedTuple):
    """Seqs, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"+{self.first}" if self.first == self.last else f"+{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Extent:
    """Everything up to `place`, and ranges `beyond` it: of its epoch, ascending, with a hole before each."""

    place: Place
    beyond: tuple[Range, ...] = ()

    @classmethod
    def of(cls, place: Place, ranges: Iterable[Range]) -> Extent:
        """From ranges in any order; they may touch or overlap."""
        seq, kept = place.seq, list[Range]()
        for first, last in sorted(ranges):
            if first <= seq + 1:
                seq = max(seq, last)
            elif kept and first <= kept[-1].last + 1:
                kept[-1] = Range(kept[-1].first, max(kept[-1].last, last))
            else:
                kept.append(Range(first, last))
        return cls(Place(place.epoch, seq), tuple(kept[-MAX_RANGES:]))

    @property
    def last(self) -> Place:
        """The newest event in it."""
        return Place(self.place.epoch, self.beyond[-1].last) if self.beyond else self.place

    def __contains__(self, place: Place) -> bool:
        if place <= self.place:
            return True
        return place.epoch == self.place.epoch and any(
            first <= place.seq <= last for first, last in self.beyond
        )

    def union(self, other: Extent) -> Extent:
        """Of two epochs, the newer one counts: all events of the older are past."""
        if self.place.epoch != other.place.epoch:
            return max(self, other, key=lambda extent: extent.place.epoch)
        if not self.beyond and not other.beyond:
            return self if self.place >= other.place else other
        return Extent.of(max(self.place, other.place), (*self.beyond, *other.beyond))

    def since(self, older: Extent) -> list[Range]:
        """What was added to an older extent, whose union with something this is."""
        start = older.place.seq if older.place.epoch == self.place.epoch else 0
        had = older.beyond if older.place.epoch == self.place.epoch else ()
        added = []
        for first, last in (Range(start + 1, self.place.seq), *self.beyond):
            for one in had:
                if first <= one.first <= last or first <= one.last <= last:
                    if first < one.first:
                        added.append(Range(first, one.first - 1))
                    first = one.last + 1
            if first <= last:
                added.append(Range(first, last))
        return added

    def ranges_text(self) -> str:
        return "".join(map(str, self.beyond))

    def __str__(self) -> str:
        return f"{self.place}{self.ranges_text()}"


class Seen(NamedTuple):
    """What was seen of one channel."""

    channel: Channel
    extent: Extent

    def __str__(self) -> str:
        return f"{self.channel}={self.extent}"


def parse_ranges(text: str) -> tuple[Range, ...]:
    """Of `+42+45-47`. Raises `InvalidCursor`."""
    ranges = tuple(Range(int(first), int(last or first)) for first, last in _RANGE.findall(text))
    if len(ranges) > MAX_RANGES:
        raise InvalidCursor(f"more than {MAX_RANGES} ranges beyond a cursor")
    if any(first > last or last > MAX_NUMBER for first, last in ranges):
        raise InvalidCursor(f"not ranges of events: {text[:160]!r}")
    return ranges


def parse_seen(text: str) -> Seen:
    """Raises `InvalidCursor`."""
    match = _EXTENT.fullmatch(text)
    if not match:
        raise InvalidCursor(f"not a cursor: {text[:160]!r}; expected <channel>=<epoch>.<seq>")
    channel, epoch, seq = match[1], int(match[2]), int(match[3])
    if max(epoch, seq) > MAX_NUMBER:
        raise InvalidCursor(f"not a cursor: {text[:160]!r}; numbers end at 2^53 - 1")
    return Seen(Channel(channel), Extent.of(Place(epoch, seq), parse_ranges(match[4])))


def parse_all_seen(text: str) -> list[Seen]:
    """What a joined text names, one a channel; an empty text names none.

    Raises `InvalidCursor`, also for a channel named twice.
    """
    if not text:
        return []
    parts = text.split(",", MAX_CHANNELS)
    if len(parts) > MAX_CHANNELS:
        raise InvalidCursor(f"more than {MAX_CHANNELS} cursors in one text")
    found = sorted(map(parse_seen, parts), key=lambda seen: seen.channel)
    if any(one.channel == other.channel for one, other in pairwise(found)):
        raise InvalidCursor("a channel is named twice")
    return found
