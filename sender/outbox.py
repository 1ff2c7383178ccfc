"""Recording events: each gets its channel's next seq, and waits in the outbox until it is published.

The seq is taken under the channel's row lock, in the transaction that records the event. So seqs have no
holes, and the order of commits is the order of seqs: once 7 is visible, 6 cannot still be on its way.

Everything takes sets: a batch of a thousand events costs three statements, like a single event.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, func, literal_column, select, text, update

from sender import erasure, tombstones
from sender.database.rows import insert_rows, is_among
from sender.database.tables import DIALECTS, events, generation
from sender.digest import identity_of
from shared.channels import Channel
from shared.cursors import Cursor, Place
from shared.events import Draft
from shared.redis.channel_log import Entry
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

    from sender.tombstones import Fault, Row
    from shared.redis.channel_log import NewestEvent


COUNTED = 1_000  # events; a longer outbox is estimated


class Status(Enum):
    """What became of an event that a caller posted."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # recorded before; it has the place it got then
    REFUSED = "refused"  # its identity is taken by an event with other content


class Arrival(msgspec.Struct, frozen=True):
    """An event that a caller posted."""

    draft: Draft
    identity: str  # digest of source and id
    content: str  # digest of what its caller posted, before we added to it


class Receipt(NamedTuple):
    """What became of an arrival. `cursor` is its event's, None if it was refused."""

    status: Status
    cursor: Cursor | None


class Recorded(NamedTuple):
    place: Place
    text: bytes


class Waiting(NamedTuple):
    """An event in the outbox."""

    position: int
    channel: Channel
    entry: Entry
    identity: str
    fault: Fault | None = None  # if any, it must not be published


class Backlog(NamedTuple):
    size: int  # exact up to `COUNTED`; beyond, the number recorded since the oldest, which is never too low
    oldest: str | None  # when its oldest event was recorded


class Tail(NamedTuple):
    """Events at the end of a channel: those that follow a seq, up to a place."""

    channel: Channel
    after: int
    last: Place


class Recent(NamedTuple):
    """Channels with events among the newest, and the position where those begin."""

    tails: list[Tail]
    oldest: int


def arrival(draft: Draft, content: str) -> Arrival:
    return Arrival(draft, identity_of(draft.source, draft.id), content)


def record(connection: Connection, drafts: Sequence[Draft], *, now: datetime) -> list[Recorded]:
    """Record events whose identities are new because we have just created them."""
    return _record(connection, [arrival(draft, content="") for draft in drafts], now=now)


def record_once(connection: Connection, arrivals: Sequence[Arrival], *, now: datetime) -> list[Receipt]:
    """Record the arrivals that are new. One receipt for each, in the order given."""
    known = _known(connection, [given.identity for given in arrivals])
    fresh: dict[str, Arrival] = {}
    for given in arrivals:
        if given.identity not in known:
            fresh.setdefault(given.identity, given)  # of two in one batch, the first
    recorded = _record(connection, list(fresh.values()), now=now)
    cursors = {
        identity: Cursor(new.draft.channel, place)
        for (identity, new), (place, _) in zip(fresh.items(), recorded, strict=True)
    }
    receipts = []
    for given in arrivals:
        new = fresh.get(given.identity)
        if new is given:
            receipts.append(Receipt(Status.ACCEPTED, cursors[given.identity]))
        elif new is not None:
            receipts.append(_of_repetition(given, new.content, cursors[given.identity]))
        else:
            receipts.append(_of_repetition(given, *known[given.identity]))
    return receipts


def unpublished(
    connection: Connection, *, limit: int, but: Sequence[Channel] = (), known: Container[int] = ()
) -> list[Waiting]:
    """Events that wait in the outbox, oldest first, each channel's in order of seq; not of channels in `but`.

    Of up to `limit` events, those whose position is not `known`.
    """
    # Never "position greater than the last": rows do not become visible in the order of their numbers.
    dialect = connection.dialect.name
    if but:
        found = connection.execute(_UNPUBLISHED_BUT[dialect], {"limit": limit, "but": list(but)})
    else:
        found = connection.execute(_UNPUBLISHED[dialect], {"limit": limit})
    # All at once: fetching each row separately takes SQLAlchemy as long as the database.
    rows = found.all()
    return [
        _waiting(position, tombstones.row(*columns)) for position, *columns in rows if position not in known
    ]


def mark_published(
    connection: Connection, published: Iterable[NewestEvent], *, now: datetime
) -> frozenset[int]:
    """Mark only in the epoch of publication: events that moved into a new epoch must be published there.

    Returns the positions that could not be marked now, because another transaction holds their rows.
    """
    by_epoch: dict[int, list[int]] = {}
    for event in published:
        by_epoch.setdefault(event.epoch, []).append(event.position)
    dialect, held = connection.dialect.name, set()
    for epoch, positions in by_epoch.items():
        given = {"positions": positions, "in_epoch": epoch}
        marked = connection.execute(_MARK[dialect], {**given, "now": format_time(now)}).rowcount
        if marked < len(positions):  # or another sender's relay was first
            held |= set(connection.execute(_UNMARKED[dialect], given).scalars())
    return frozenset(held)


def backlog(connection: Connection) -> Backlog:
    """How many events wait in the outbox. Costs the same for a million events as for a thousand."""
    counted, first, oldest = connection.execute(_BACKLOG).one()
    if counted < COUNTED:
        return Backlog(counted, oldest)
    return Backlog(max(counted, connection.execute(_AFTER_NEWEST).scalar_one() - first), oldest)


def recent(connection: Connection, *, before: int | None, window: int) -> Recent:
    """The channels of the newest published events, and their range; `before`: of those before a position."""
    newest = before if before is not None else connection.execute(_AFTER_NEWEST).scalar_one()
    rows = connection.execute(_RECENT, {"oldest": newest - window, "newest": newest})
    return Recent(
        [Tail(Channel(channel), first - 1, Place(epoch, last)) for channel, epoch, first, last in rows],
        newest - window,
    )


def settled(connection: Connection) -> int:
    """The position before which everything is published."""
    return int(connection.execute(_SETTLED).scalar_one())


def return_tails(connection: Connection, tails: Sequence[Tail]) -> int:
    """Return them to the outbox; the number of events."""
    return sum(
        connection.execute(
            _RETURN,
            {"of": tail.channel, "of_epoch": tail.last.epoch, "after": tail.after, "last": tail.last.seq},
        ).rowcount
        for tail in sorted(tails)  # by name, the order in which all code locks channels
    )


def _waiting(position: int, row: Row) -> Waiting:
    return Waiting(position, row.channel, Entry(row.place, row.text), row.identity, row.fault())


def _known(connection: Connection, identities: Sequence[str]) -> dict[str, tuple[str, Cursor]]:
    """Content and cursor of the identities that are recorded already."""
    rows = connection.execute(_KNOWN[connection.dialect.name], {"identities": list(identities)})
    return {
        identity: (content, Cursor(Channel(channel), Place(epoch, seq)))
        for identity, content, channel, epoch, seq in rows
    }


def _of_repetition(given: Arrival, content: str, cursor: Cursor) -> Receipt:
    if given.content == content:
        return Receipt(Status.DUPLICATE, cursor)
    return Receipt(Status.REFUSED, None)


def _record(connection: Connection, arrivals: Sequence[Arrival], *, now: datetime) -> list[Recorded]:
    if not arrivals:
        return []
    next_places = _take_places(connection, Counter(given.draft.channel for given in arrivals))
    recorded_at = format_time(now)
    recorded, rows = [], []
    for given in arrivals:
        channel = given.draft.channel
        place = next_places[channel]
        next_places[channel] = Place(place.epoch, place.seq + 1)
        encoded = given.draft.text(place)
        recorded.append(Recorded(place, encoded))
        rows.append(
            {
                "channel": channel,
                "seq": place.seq,
                "epoch": place.epoch,
                "identity": given.identity,
                "content": given.content,
                "recorded_at": recorded_at,
                "text": encoded.decode(),
            }
        )
    insert_rows(connection, events, rows)
    return recorded


def _take_places(connection: Connection, counts: Counter[Channel]) -> dict[Channel, Place]:
    """Advance each channel's seq by its count; the first place taken in each. Locks the channels' rows."""
    given = {"counts": msgspec.json.encode(counts).decode()}
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_MOVE_SEQS, given)
        heads, epoch = connection.exec_driver_sql(_SEQS, given).one()
        seqs = msgspec.json.decode(heads, type=dict[str, int])
    else:
        rows = connection.execute(_TAKE, given).all()
        seqs, epoch = {row.channel: row.seq for row in rows}, rows[0].epoch
    if begun := [channel for channel, count in counts.items() if seqs[channel] == count]:
        for channel, moved in erasure.resume(connection, begun).items():
            seqs[channel] += moved
    return {channel: Place(epoch, seqs[channel] - count + 1) for channel, count in counts.items()}


def _unpublished(dialect: str) -> Select[Any]:
    columns = (events.c.channel, events.c.epoch, events.c.seq, events.c.identity, events.c.recorded_at)
    return (
        select(events.c.position, *columns, literal_column(tombstones.read(dialect)))
        .where(events.c.published_at.is_(None))
        .order_by(events.c.position)
        .limit(bindparam("limit"))
    )


# Statements are built once: building one costs about as much as running it.
_EPOCH = select(generation.c.epoch).scalar_subquery()
# The counts come as JSON, which both databases can unpack: one text for any number of channels. Sorted by
# name, so that two batches that share channels wait for each other instead of deadlocking; "C" is also how
# Python sorts, for code that locks channels one by one.
_TAKE = text(
    """
    INSERT INTO channels (channel, seq, epoch)
    SELECT key, CAST(value AS bigint), (SELECT epoch FROM generation)
    FROM jsonb_each_text(CAST(:counts AS jsonb)) ORDER BY key COLLATE "C"
    ON CONFLICT (channel) DO UPDATE SET
        seq = channels.seq + excluded.seq,
        pruned_seq = CASE WHEN channels.epoch = excluded.epoch THEN channels.pruned_seq ELSE channels.seq END,
        epoch = excluded.epoch
    RETURNING channel, seq, epoch
    """
)
# SQLite's driver releases the interpreter lock for each row that it fetches, see sender/database/rows.py.
_MOVE_SEQS = """
    INSERT INTO channels (channel, seq, epoch)
    SELECT key, value, (SELECT epoch FROM generation) FROM json_each(:counts) WHERE true
    ON CONFLICT (channel) DO UPDATE SET
        seq = channels.seq + excluded.seq,
        pruned_seq = CASE WHEN channels.epoch = excluded.epoch THEN channels.pruned_seq ELSE channels.seq END,
        epoch = excluded.epoch
    """
_SEQS = """
    SELECT json_group_object(channel, seq), (SELECT epoch FROM generation)
    FROM channels WHERE channel IN (SELECT key FROM json_each(:counts))
    """
_KNOWN = {
    dialect: select(
        events.c.identity, events.c.content, events.c.channel, events.c.epoch, events.c.seq
    ).where(is_among(dialect, events.c.identity, "identities"))
    for dialect in DIALECTS
}
_UNPUBLISHED = {dialect: _unpublished(dialect) for dialect in DIALECTS}
_UNPUBLISHED_BUT = {
    dialect: statement.where(events.c.channel.not_in(bindparam("but", expanding=True)))
    for dialect, statement in _UNPUBLISHED.items()
}
_UNMARKED = {
    dialect: select(events.c.position).where(
        is_among(dialect, events.c.position, "positions"),
        events.c.epoch == bindparam("in_epoch"),
        events.c.published_at.is_(None),  # not a second time, after another sender's relay
    )
    for dialect in DIALECTS
}
# One locked row must not keep the others from being marked.
_MARK = {
    dialect: update(events)
    .where(events.c.position.in_(unmarked.with_for_update(skip_locked=True)))
    .values(published_at=bindparam("now"))
    for dialect, unmarked in _UNMARKED.items()
}
_FIRST = (
    select(events.c.position, events.c.recorded_at)
    .where(events.c.published_at.is_(None))
    .order_by(events.c.position)
    .limit(COUNTED)
    .subquery()
)
_BACKLOG = select(func.count(), func.min(_FIRST.c.position), func.min(_FIRST.c.recorded_at))
_AFTER_NEWEST = select(func.coalesce(func.max(events.c.position), 0) + 1)
_SETTLED = select(
    func.coalesce(
        select(events.c.position)
        .where(events.c.published_at.is_(None))
        .order_by(events.c.position)
        .limit(1)
        .scalar_subquery(),
        _AFTER_NEWEST.scalar_subquery(),
    )
)
_RECENT = (
    select(events.c.channel, events.c.epoch, func.min(events.c.seq), func.max(events.c.seq))
    .where(
        events.c.position >= bindparam("oldest"),
        events.c.position < bindparam("newest"),
        events.c.published_at.is_not(None),
        events.c.epoch == _EPOCH,
    )
    .group_by(events.c.channel, events.c.epoch)
)
_RETURN = (
    update(events)
    .where(
        events.c.channel == bindparam("of"),
        events.c.epoch == bindparam("of_epoch"),
        events.c.seq > bindparam("after"),
        events.c.seq <= bindparam("last"),
        events.c.published_at.is_not(None),
    )
    .values(published_at=None)
)
