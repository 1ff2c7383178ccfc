"""History: a channel's events as the database keeps them, and whether a cursor can still be honoured.

Every answer comes from one snapshot, so its head and its events belong together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import select, text

from sender import beginnings, tombstones
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, channels
from sender.generation import current_epoch
from shared.channels import Channel, is_private
from shared.cursors import Cursor, Place
from shared.events import Entry
from shared.extents import Extent, parse_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one answer."""

    channel_bytes: int = 2**20  # of one channel; the event that reaches the limit is included
    all_bytes: int = 2**24  # of all channels together
    at_once: int = 256  # events read at a time; with 64 KiB each, 16 MiB


USUAL = Sizes()


class Reset(Enum):
    """Why a cursor can't be honoured."""

    PRUNED = "pruned"  # events after it are deleted
    EPOCH = "epoch"  # the database has gone back since
    FUTURE = "future"  # no event has had that place yet


@dataclass(frozen=True, slots=True)
class State:
    """A channel's state in the database."""

    head: Place
    pruned_seq: int
    seen: Extent
    erased: bool = False  # its customer was erased, and nothing has begun since
    fresh_after: int | None = None  # no earlier event of this epoch must be shown any more; None: unknown

    def check(self, place: Place) -> Reset | None:
        """Why reading cannot continue after the place; None if it can."""
        if place.epoch != self.head.epoch:
            return Reset.EPOCH
        if place.seq > self.head.seq:
            return Reset.FUTURE
        return Reset.PRUNED if place.seq < self.pruned_seq else None

    def has_seen(self, place: Place) -> bool:
        """Whether it is known that the customer has seen the event; of a past epoch, that is forgotten."""
        return place.epoch == self.seen.place.epoch and place in self.seen

    def continuation(self, place: Place, reset: Reset | None) -> Place:
        """Where reading continues after a reset: at the head, because the page reloads what was before it.

        There are two exceptions, because what happens in the meantime must pop up. If all events since the
        channel's beginning are kept, an earlier place does not prove that any was missed
        (sender/beginnings.py), so reading continues with the first. And the place of a past epoch proves that
        none of this epoch was handed over, so reading continues with the first that nobody has seen.
        """
        if reset is Reset.PRUNED and beginnings.is_beginning(self.pruned_seq):
            return Place(self.head.epoch, self.pruned_seq)
        is_past = reset is Reset.EPOCH and place.epoch < self.head.epoch
        if is_past and self.fresh_after is not None and self.fresh_after >= self.pruned_seq:
            return Place(self.head.epoch, self.fresh_after)
        return self.head


class Request(NamedTuple):
    """Events of a channel after a place; None means its customer's seen cursor, for a topic its head."""

    channel: Channel
    after: Place | None


class Wanted(NamedTuple):
    """A channel's events after the part's start up to its end, for the request with that number."""

    number: int
    channel: Channel
    part: range


@dataclass(frozen=True, slots=True)
class ChannelHistory:
    """One channel's answer: `entries` follow `after` without a hole, oldest first."""

    channel: Channel
    after: Place
    as_of: Place
    seen: Extent | None  # None for topics
    reset: Reset | None
    entries: tuple[Entry, ...]
    erased: bool


def head(connection: Connection, channel: Channel) -> Cursor:
    """The channel's newest place; seq 0 if it never had an event."""
    return Cursor(channel, states(connection, [channel])[channel].head)


def states(connection: Connection, names: Sequence[Channel]) -> dict[Channel, State]:
    """The state of each channel, including those that never had an event."""
    epoch = current_epoch(connection)
    rows = connection.execute(_STATES[connection.dialect.name], {"channels": list(names)})
    found = {Channel(row.channel): _state(epoch, row) for row in rows}
    if unknown := [channel for channel in names if channel not in found]:
        for channel, beginning in beginnings.beginnings(connection, unknown).items():
            head = Place(epoch, beginning.after)
            found[channel] = State(head, head.seq, Extent(head), erased=beginning.erased)
    return {channel: found[channel] for channel in names}


def _state(epoch: int, row: Any) -> State:
    return State(
        Place(epoch, row.seq),
        row.pruned_seq if row.epoch == epoch else row.seq,  # events of a past epoch count as deleted
        _seen(row.seen_epoch, row.seen_seq, row.seen_beyond) if row.seen_epoch else Extent(Place(epoch, 0)),
        fresh_after=row.seen_seq if row.seen_epoch == epoch else None,
    )


def _seen(epoch: int, seq: int, beyond: str) -> Extent:
    return Extent(Place(epoch, seq), parse_ranges(beyond) if beyond else ())


def oldest(connection: Connection, channel: Channel) -> Place:
    """The place before the oldest event kept."""
    state = states(connection, [channel])[channel]
    return Place(state.head.epoch, state.pruned_seq)


def read(
    connection: Connection, requests: Sequence[Request], *, limit: int, sizes: Sizes = USUAL
) -> list[ChannelHistory]:
    """Answers in the order requested. Each has at most `limit` events and about `Sizes.channel_bytes`.

    Together they have about `Sizes.all_bytes`; the last channels may therefore get fewer events, or none.
    """
    found = states(connection, [request.channel for request in requests])
    starts = [_start(request, found[request.channel]) for request in requests]
    wanted = [
        Wanted(number, channel, range(start.seq, min(found[channel].head.seq, start.seq + limit)))
        for number, ((channel, _), start) in enumerate(zip(requests, starts, strict=True))
        if found[channel].check(start) is None
    ]
    entries = _read_wanted(connection, wanted, sizes)
    return [
        _answer(channel, start, found[channel], entries.get(number, []))
        for number, ((channel, _), start) in enumerate(zip(requests, starts, strict=True))
    ]


def read_some(
    connection: Connection, wanted: Mapping[Channel, range], *, at_once: int = USUAL.at_once
) -> dict[Channel, list[Entry]]:
    """The first kept events after each range's start up to its end; `at_once` of them in all.

    A channel missing from the answer did not fit. One without events has none left: they are deleted.
    """
    known = states(connection, list(wanted))
    parts = [
        Wanted(number, channel, range(max(part.start, known[channel].pruned_seq), part.stop))
        for number, (channel, part) in enumerate(wanted.items())
    ]
    some = next(_rounds(parts, at_once), [])
    nothing = [one for one in parts if not one.part]
    found: dict[Channel, list[Entry]] = {one.channel: [] for one in (*nothing, *some)}
    for number, entry in _read_round(connection, some):
        found[parts[number].channel].append(entry)
    return found


def find(connection: Connection, channel: Channel, seq: int) -> Entry | None:
    """One event, whether or not a cursor before it can still be honoured."""
    found = _read_round(connection, [Wanted(0, channel, range(seq - 1, seq))])
    return next((entry for _, entry in found), None)


def between(connection: Connection, channel: Channel, after: int, last: int) -> list[Entry]:
    """The kept events after one seq up to another, oldest first; for a few hundred at most."""
    return [entry for _, entry in _read_round(connection, [Wanted(0, channel, range(after, last))])]


def _start(request: Request, state: State) -> Place:
    if request.after is not None:
        return request.after
    return state.seen.place if is_private(request.channel) else state.head


def _answer(channel: Channel, start: Place, state: State, entries: Sequence[Entry]) -> ChannelHistory:
    seen, reset = state.seen if is_private(channel) else None, state.check(start)
    as_of = state.continuation(start, reset)
    return ChannelHistory(channel, start, as_of, seen, reset, tuple(entries), state.erased)


def _read_wanted(connection: Connection, wanted: Sequence[Wanted], sizes: Sizes) -> dict[int, list[Entry]]:
    """The events of each part by its number, within the limits of bytes."""
    entries: dict[int, list[Entry]] = {}
    read: Counter[int] = Counter()  # bytes
    for some in _rounds(wanted, sizes.at_once):
        open_still = [one for one in some if read[one.number] < sizes.channel_bytes]
        for number, entry in _read_round(connection, open_still):
            if read[number] < sizes.channel_bytes:
                entries.setdefault(number, []).append(entry)
                read[number] += len(entry.text)
        if read.total() >= sizes.all_bytes:
            break
    return entries


def _rounds(wanted: Sequence[Wanted], size: int) -> Iterator[list[Wanted]]:
    """The same, in rounds of at most `size` events; a part that is cut continues in the next round."""
    some: list[Wanted] = []
    room = size
    for number, channel, part in wanted:
        while part:
            some.append(Wanted(number, channel, part[:room]))
            part, room = part[room:], room - len(part[:room])
            if not room:
                yield some
                some, room = [], size
    if some:
        yield some


def _read_round(connection: Connection, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Entry]]:
    if not wanted:
        return
    parts = [(number, channel, part.start, part.stop) for number, channel, part in wanted]
    given = {"wanted": msgspec.json.encode(parts).decode()}
    for number, *columns in connection.execute(_READ[connection.dialect.name], given):
        row = tombstones.row(*columns)
        # Text that is not JSON would break the whole answer; one too large, the connections that receive it.
        yield number, Entry(row.place, row.sound_text())


_STATES = {
    dialect: select(channels).where(is_among(dialect, channels.c.channel, "channels")) for dialect in DIALECTS
}
# One statement for many channels. Its parameter is JSON because both databases can unpack that. The order of
# joining is fixed: whatever the planner believes of the channels, it may never scan `events`.
_ROW = "events.channel, events.epoch, events.seq, events.identity, events.recorded_at"
_READ = {
    "sqlite": text(
        f"""
        SELECT json_extract(w.value, '$[0]') AS number, {_ROW}, {tombstones.read("sqlite")}
        FROM json_each(:wanted) AS w
        CROSS JOIN events ON events.channel = json_extract(w.value, '$[1]')
            AND events.seq > json_extract(w.value, '$[2]') AND events.seq <= json_extract(w.value, '$[3]')
        ORDER BY number, events.seq
        """
    ),
    "postgresql": text(
        f"""
        SELECT CAST(w ->> 0 AS integer) AS number, found.*
        FROM jsonb_array_elements(CAST(:wanted AS jsonb)) AS w
        CROSS JOIN LATERAL (
            SELECT {_ROW}, {tombstones.read("postgresql")} FROM events
            WHERE events.channel = w ->> 1
                AND events.seq > CAST(w ->> 2 AS bigint) AND events.seq <= CAST(w ->> 3 AS bigint)
            ORDER BY events.seq OFFSET 0) AS found
        ORDER BY number, found.seq
        """
    ),
}
