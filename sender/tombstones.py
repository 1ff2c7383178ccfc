"""Tombstones: what takes the place of an event that can't be published.

The door lets no such event in. But a row may come past it: from an import, a repair by hand, an older
version, a disk that went bad. It must not block what follows; nor may its place stay empty, for a hole in the
seqs is a loss to everybody behind the sender. So every text is judged on its way out of the database, and
where it has a fault a small event goes out in its place, under the same id and source.

A tombstone is made from its row and nothing else. So history may hand it out before the relay has stored it
(sender/dead_letters.py), and it is the same.
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
_BEGINNING = 8 * 1024  # bytes of a text in which its id, source and time are looked for


class Fault(Enum):
    """Why an event can't be published."""

    TOO_LARGE = "too-large"
    NOT_AN_EVENT = "not-an-event"  # no JSON in UTF-8, or no CloudEvent, or not of this channel and place
    REFUSED = "refused"  # by Redis, again and again, which took others at the same time


class Origin(NamedTuple):
    """What an event was, whatever has become of its text."""

    source: str
    id: str
    time: str


class Row(NamedTuple):
    """An event as the database has it; of a text that is too large, a beginning that is."""

    channel: Channel
    place: Place
    identity: str
    recorded_at: str
    text: bytes

    def fault(self) -> Fault | None:
        if len(self.text) > MAX_EVENT_BYTES:
            return Fault.TOO_LARGE
        try:
            self.text.decode()  # msgspec does not look into the texts that it passes over
            event = _decode(self.text)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return Fault.NOT_AN_EVENT
        said = (event.channel, event.epoch, event.seq)
        # Gateways tell a live message by its brace.
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
        """As the text says it, if the digest agrees; else what we know."""
        beginning = self.text[:_BEGINNING]
        source, event_id, time = (_attribute(beginning, name) for name in ("source", "id", "time"))
        if source and event_id and identity_of(source, event_id) == self.identity:
            return Origin(source, event_id, time if time and is_time(time) else self.recorded_at)
        return Origin(SOURCE, self.identity, self.recorded_at)


class _Event(msgspec.Struct):
    """What every event says of itself."""

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
    """The first text of that name; it need not be the event's own."""
    if match := _ATTRIBUTES[name].search(beginning):
        try:
            return msgspec.json.decode(match[1], type=str)
        except (UnicodeDecodeError, msgspec.DecodeError):
            pass
    return None


def read(dialect: str, table: str = "events") -> str:
    """SQL: the table's text, as a `Row` wants it."""
    if dialect == "sqlite":
        # It keeps what it is given as text, and Python's driver fails on what is not UTF-8.
        return f"substr(CAST({table}.text AS BLOB), 1, {_READ})"
    return f"left({table}.text, {_READ})"


def row(channel: str, epoch: int, seq: int, identity: str, recorded_at: str, text: bytes | str) -> Row:
    """From the columns, in that order."""
    encoded = text.encode() if isinstance(text, str) else text
    return Row(Channel(channel), Place(epoch, seq), identity, recorded_at, encoded)
