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
from sqlalchemy import ARRAY, JSON, BigInteger, String, bindparam, text

from sender import beginnings, outbox
from sender.database.rows import insert_rows
from sender.database.tables import IDENTITY_AS_UUID, events
from sender.digest import identity_of
from shared.channels import Channel
from shared.cursors import Cursor, Place
from shared.events import Draft
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


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
    accepted_by: str = ""  # the name of the API key it came with


class Receipt(NamedTuple):
    """What became of an arrival. `cursor` is its event's, None if it was refused."""

    status: Status
    cursor: Cursor | None


class Recorded(NamedTuple):
    place: Place
    text: bytes


def arrival(draft: Draft, content: str, accepted_by: str = "") -> Arrival:
    return Arrival(draft, identity_of(draft.source, draft.id), content, accepted_by)


def find(connection: Connection, source: str, event_id: str) -> Cursor | None:
    """Where an event is recorded; None if it never was, or is no longer kept."""
    known = list(_known(connection, [identity_of(source, event_id)]).values())
    return known[0][1] if known else None


def record(
    connection: Connection, drafts: Sequence[Draft], *, now: datetime, accepted_by: Sequence[str] = ()
) -> list[Recorded]:
    """Record events whose identities are new because we have just created them.

    `accepted_by`: for each, the name of the API key that its request came with.
    """
    named = accepted_by or [""] * len(drafts)
    return _record(
        connection, [arrival(draft, "", name) for draft, name in zip(drafts, named, strict=True)], now=now
    )


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
                "content_digest": given.content,
                "recorded_at": recorded_at,
                "accepted_by": given.accepted_by,
                "text": encoded.decode(),
            }
        )
    _insert(connection, rows)
    return recorded


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Into `events` and `outbox`, in their order: positions of a channel rise with its seqs."""
    if connection.dialect.name == "postgresql":
        connection.execute(_RECORD, {name: [row[name] for row in rows] for name in _RECORDED})
        return
    begin = outbox.extent(connection).position
    insert_rows(connection, events, rows)
    connection.execute(_ENTER, {"begin": begin})


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
        for channel, moved in beginnings.begin(connection, begun).items():
            seqs[channel] += moved
    return {channel: Place(epoch, seqs[channel] - count + 1) for channel, count in counts.items()}


# Statements are built once: building one costs about as much as running it.
# The counts come as JSON, which both databases can unpack: one text for any number of channels. Sorted by
# name, so that two batches that share channels wait for each other instead of deadlocking; "C" is also how
# Python sorts, for code that locks channels one by one.
#
# In a later epoch than the first, a channel that enters it also starts to be seen there: all before its first
# event is past, nothing after it has been shown. So every device, also one that returns, begins with it.
_ENTERING = """
        seq = channels.seq + excluded.seq,
        pruned_seq = CASE WHEN channels.epoch = excluded.epoch THEN channels.pruned_seq ELSE channels.seq END,
        seen_epoch = CASE
            WHEN channels.epoch = excluded.epoch THEN channels.seen_epoch ELSE excluded.epoch END,
        seen_seq = CASE WHEN channels.epoch = excluded.epoch THEN channels.seen_seq ELSE channels.seq END,
        seen_beyond = CASE WHEN channels.epoch = excluded.epoch THEN channels.seen_beyond ELSE '' END,
        epoch = excluded.epoch
    """
_SEEN_FROM = "CASE WHEN generation.epoch > 1 THEN generation.epoch ELSE 0 END"
_TAKE = text(
    f"""
    INSERT INTO channels (channel, seq, epoch, seen_epoch)
    SELECT key, CAST(value AS bigint), generation.epoch, {_SEEN_FROM}
    FROM jsonb_each_text(CAST(:counts AS jsonb)), generation ORDER BY key COLLATE "C"
    ON CONFLICT (channel) DO UPDATE SET {_ENTERING}
    RETURNING channel, seq, epoch
    """
)
# SQLite's driver releases the interpreter lock for each row that it fetches, see sender/database/rows.py.
_MOVE_SEQS = f"""
    INSERT INTO channels (channel, seq, epoch, seen_epoch)
    SELECT key, value, generation.epoch, {_SEEN_FROM} FROM json_each(:counts), generation WHERE true
    ON CONFLICT (channel) DO UPDATE SET {_ENTERING}
    """
_SEQS = """
    SELECT json_group_object(channel, seq), (SELECT epoch FROM generation)
    FROM channels WHERE channel IN (SELECT key FROM json_each(:counts))
    """
_PARTS = "identity, content_digest, channel, epoch, seq"
_KNOWN = {
    "sqlite": text(
        f"SELECT {_PARTS} FROM events WHERE identity IN (SELECT value FROM json_each(:identities))"
    ).bindparams(bindparam("identities", type_=JSON)),
    "postgresql": text(
        f"SELECT {_PARTS} FROM events"
        # Twice: while the second index is being built, only the first is there, and only the second after.
        " WHERE identity = ANY(CAST(:identities AS text[]))"
        f" AND {IDENTITY_AS_UUID} = ANY(CAST(CAST(:identities AS text[]) AS uuid[]))"
    ).bindparams(bindparam("identities", type_=ARRAY(String))),
}
# In the order of the lists, so that a channel's positions rise with its seqs.
_RECORDED = {
    "channel": String,
    "seq": BigInteger,
    "epoch": BigInteger,
    "identity": String,
    "content_digest": String,
    "recorded_at": String,
    "accepted_by": String,
    "text": String,
}
_LISTS = ", ".join(
    f"CAST(:{name} AS {'bigint' if kind is BigInteger else 'text'}[])" for name, kind in _RECORDED.items()
)
_RECORD = text(
    f"""
    WITH recorded AS (
        INSERT INTO events ({", ".join(_RECORDED)}) SELECT * FROM unnest({_LISTS})
        RETURNING position, epoch)
    INSERT INTO outbox (position, epoch) SELECT position, epoch FROM recorded
    """
).bindparams(*(bindparam(name, type_=ARRAY(kind)) for name, kind in _RECORDED.items()))
_ENTER = text(
    "INSERT INTO outbox (position, epoch) SELECT position, epoch FROM events WHERE position >= :begin"
)
