"""Tombstones: small events that take the place of events that can't be published.

The API accepts no such event. But a row may get around it: by an import, a repair by hand, an older version,
a bad disk. It must not block the events after it; nor may its place stay empty, because a hole in the seqs
looks like a loss to gateways and browsers. So every text is checked on its way out of the database, and if it
has a fault, a tombstone goes out in its place, under the same id and source.

A tombstone is made from its row alone. So history can return it before the relay has stored it
(sender/dead_letters.py), and both are equal.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Literal, NamedTuple

import msgspec

from sender.digest import identity_of
from shared.channels import Channel
from shared.cursors import Place
from shared.events import MAX_EVENT_BYTES, SOURCE, tombstone
from shared.times import is_time

_READ = MAX_EVENT_BYTES + 1  # characters or bytes: enough to see that a text is too large
_BEGINNING = 8 * 1024  # bytes of a text that are searched for its id, source and time


class Fault(Enum):
    """Why an event can't be published."""

    TOO_LARGE = "too-large"
    NOT_AN_EVENT = "not-an-event"  # not JSON in UTF-8, not a CloudEvent, or of another channel or place
    REFUSED = "refused"  # repeatedly by Redis, which accepted others at the same time


class Origin(NamedTuple):
    """An event's origin, even if its text is damaged."""

    source: str
    id: str
    time: str


class Row(NamedTuple):
    """An event's row; of a text that is too large, a beginning that is still too large."""

    channel: Channel
    place: Place
    identity: str
    recorded_at: str
    text: bytes

    def fault(self) -> Fault | None:
        if len(self.text) > MAX_EVENT_BYTES:
            return Fault.TOO_LARGE
        try:
            self.text.decode()  # msgspec does not check the strings that it skips
            event = _decode(self.text)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return Fault.NOT_AN_EVENT
        said = (event.channel, event.epoch, event.seq)
        # Gateways recognise a live event by its brace.
        sound = self.text.startswith(b"{") and said == (self.channel, *self.place)
        return None if sound else Fault.NOT_AN_EVENT

    def sound_text(self) -> bytes:
        """The event, or its tombstone."""
        fault = self.fault()
        return self.text if fault is None else self.tombstone(fault)

    def tombstone(self, fault: Fault) -> bytes:
        source, event_id, time = self.origin()
        return tombstone(event_id, source, time, self.channel, fault.value).text(self.place)

    def origin(self) -> Origin:
        """From the text if it matches the digest; else from the row."""
        beginning = self.text[:_BEGINNING]
        source, event_id, time = (_attribute(beginning, name) for name in ("source", "id", "time"))
        if source and event_id and identity_of(source, event_id) == self.identity:
            return Origin(source, event_id, time if time and is_time(time) else self.recorded_at)
        return Origin(SOURCE, self.identity, self.recorded_at)


class _Event(msgspec.Struct):
    """The attributes that every event has."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    channel: str
    epoch: int
    seq: int


_decode = msgspec.json.Decoder(_Event).decode
_ATTRIBUTES = {
    name: re.compile(rb'"%b"\s*:\s*("(?:[^"\\]|\\.)*")' % name.encode()) for name in ("source", "id", "time")
}


def _attribute(beginning: bytes, name: str) -> str | None:
    """The first string with that name; it need not be the event's own."""
    if match := _ATTRIBUTES[name].search(beginning):
        try:
            return msgspec.json.decode(match[1], type=str)
        except (UnicodeDecodeError, msgspec.DecodeError):
            pass
    return None


def read(dialect: str, table: str = "events") -> str:
    """SQL: the table's text, in the form that a `Row` needs."""
    if dialect == "sqlite":
        # SQLite stores any bytes as text, and Python's driver fails on those that are not UTF-8.
        return f"substr(CAST({table}.text AS BLOB), 1, {_READ})"
    return f"left({table}.text, {_READ})"


def row(channel: str, epoch: int, seq: int, identity: str, recorded_at: str, text: bytes | str) -> Row:
    """From the columns, in that order."""
    encoded = text.encode() if isinstance(text, str) else text
    return Row(Channel(channel), Place(epoch, seq), identity, recorded_at, encoded)
