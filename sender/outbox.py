"""Recording events: each gets its channel's next seq, and waits in the outbox until it is published.

The seq is taken under the channel's row lock, in the transaction that records the event. So seqs have no
holes, and the order of commits is the order of seqs: once 7 is visible, 6 cannot still be on its way.

Everything takes sets: a batch of a thousand events costs three statements, like a single event.

The outbox is a table of its own; publishing deletes its rows. A deleted row stays in table and index as long
as a transaction is open that began earlier, even one in another database; a scan from the first row would
read all of them, 112 pages for 1,000 events. So the relay keeps a floor: no event waits below it, and none
can appear there. Rows become visible out of order, so the newest visible row proves nothing about those
before it; but a transaction that may still commit one of them has held a lock on the table since before it
took the number. So the floor is raised to a position once all transactions that were writing when we saw it
have ended (`extent`, `writers`, `raised`, each in a transaction of its own, in this order). Another program's
open transaction holds no such lock and delays nothing. A floor holds for one server and one table: another
server may have lost some last rows, and would number new ones below it.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import ARRAY, JSON, BigInteger, String, bindparam, delete, select, text

from sender import beginnings, tombstones
from sender.database.rows import insert_rows, is_among
from sender.database.tables import DIALECTS, IDENTITY_AS_UUID, events
from sender.database.tables import outbox as table
from sender.digest import identity_of
from shared.channels import Channel
from shared.cursors import Cursor, Place
from shared.events import Draft, Entry
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

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
    accepted_by: str = ""  # the name of the API key it came with


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
    recorded_at: str = ""


class Backlog(NamedTuple):
    size: int  # exact up to `COUNTED`; beyond, the number recorded since the oldest, which is never too low
    oldest: str | None  # when its oldest event was recorded


class Floor(NamedTuple):
    """Nothing waits before this position, on this server; elsewhere it means nothing."""

    position: int = 0
    server: str = ""


NO_FLOOR = Floor()


class Tail(NamedTuple):
    """Events at the end of a channel: those that follow a seq, up to a place."""

    channel: Channel
    after: int
    last: Place


class Recent(NamedTuple):
    """Channels with events among the newest, and the position where those begin."""

    tails: list[Tail]
    oldest: int


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


def unpublished(
    connection: Connection,
    *,
    limit: int,
    floor: Floor = NO_FLOOR,
    but: Sequence[Channel] = (),
    known: Container[int] = (),
) -> list[Waiting]:
    """Events that wait in the outbox, oldest first, each channel's in order of seq; not of channels in `but`.

    Of up to `limit` events, those whose position is not `known`.
    """
    # Never "position greater than the last": rows do not become visible in the order of their numbers.
    dialect = connection.dialect.name
    given = {"limit": limit, **given_floor(dialect, floor)}
    if but:
        found = connection.execute(_UNPUBLISHED_BUT[dialect], {**given, "but": list(but)})
    else:
        found = connection.execute(_UNPUBLISHED[dialect], given)
    # All at once: fetching each row separately takes SQLAlchemy as long as the database.
    rows = found.all()
    return [
        _waiting(position, tombstones.row(*columns)) for position, *columns in rows if position not in known
    ]


def mark_published(connection: Connection, published: Iterable[NewestEvent]) -> frozenset[int]:
    """Delete from the outbox, but only in the epoch of publication: events that moved into a new one must be
    published there.

    Returns the positions that could not be marked now, because another transaction holds their rows.
    """
    by_epoch: dict[int, list[int]] = {}
    for event in published:
        by_epoch.setdefault(event.epoch, []).append(event.position)
    held: set[int] = set()
    for epoch, positions in by_epoch.items():
        marked = _mark(connection, sorted(positions), epoch)
        if marked < len(positions):  # or another sender's relay was first
            given = {"positions": positions, "in_epoch": epoch}
            held |= set(connection.execute(_UNMARKED[connection.dialect.name], given).scalars())
    return frozenset(held)


def _mark(connection: Connection, positions: Sequence[int], epoch: int) -> int:
    if not _is_postgres(connection):
        given = {"positions": list(positions), "in_epoch": epoch}
        return connection.execute(_MARK_SQLITE, given).rowcount
    firsts, lasts = zip(*runs(positions), strict=True)
    given = {"firsts": list(firsts), "lasts": list(lasts), "in_epoch": epoch}
    return connection.execute(_MARK_POSTGRES, given).rowcount


def runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of consecutive ones."""
    breaks = [n for n in range(1, len(positions)) if positions[n] != positions[n - 1] + 1]
    return [
        (positions[start], positions[end - 1])
        for start, end in zip([0, *breaks], [*breaks, len(positions)], strict=True)
    ]


def waits(connection: Connection, position: int) -> bool:
    """Whether the event is still in the outbox."""
    return connection.execute(_WAITS, {"position": position}).first() is not None


def backlog(connection: Connection, *, floor: Floor = NO_FLOOR) -> Backlog:
    """How many events wait in the outbox. Costs the same for a million events as for a thousand."""
    dialect = connection.dialect.name
    counted, first = connection.execute(_BACKLOG[dialect], given_floor(dialect, floor)).one()
    oldest = connection.execute(_RECORDED_AT, {"at": first}).scalar_one_or_none()
    if counted < COUNTED:
        return Backlog(counted, oldest)
    return Backlog(max(counted, extent(connection).position - first), oldest)


def recent(connection: Connection, *, before: int | None, window: int, floor: Floor = NO_FLOOR) -> Recent:
    """The channels of the newest published events, and their range; `before`: of those before a position."""
    dialect = connection.dialect.name
    newest = before if before is not None else extent(connection).position
    given = {"oldest": newest - window, "newest": newest, **given_floor(dialect, floor)}
    rows = connection.execute(_RECENT[dialect], given)
    return Recent(
        [Tail(Channel(channel), first - 1, Place(epoch, last)) for channel, epoch, first, last in rows],
        newest - window,
    )


def extent(connection: Connection) -> Floor:
    """The position after the newest that is visible. Others before it may still appear."""
    position, server = connection.execute(_EXTENT[connection.dialect.name]).one()
    return Floor(position, server)


def writers(connection: Connection) -> frozenset[str]:
    """Transactions that may have taken a position and have not ended."""
    # SQLite has one writer: what is visible is complete.
    return frozenset(connection.execute(_WRITERS).scalars()) if _is_postgres(connection) else frozenset()


def raised(connection: Connection, floor: Floor, to: Floor) -> Floor:
    """The floor raised towards `to`, no further than the first waiting event. The writers must have ended."""
    if extent(connection).server != to.server:
        return NO_FLOOR
    return Floor(_first_waiting(connection, floor, before=to.position), to.server)


def settled(connection: Connection, *, floor: Floor = NO_FLOOR) -> int:
    """The position before which everything is published."""
    return _first_waiting(connection, floor, before=extent(connection).position)


def lower_bound(connection: Connection, floor: Floor) -> int:
    """A position before which everything is published, if not the last one: the floor, where it holds."""
    newest = extent(connection)
    if floor.position and floor.server == newest.server:
        return floor.position
    return _first_waiting(connection, NO_FLOOR, before=newest.position)


def _first_waiting(connection: Connection, floor: Floor, *, before: int) -> int:
    dialect = connection.dialect.name
    found = connection.execute(_FIRST[dialect], {**given_floor(dialect, floor), "before": before})
    return int(found.scalar_one_or_none() or before)


def return_tails(connection: Connection, tails: Sequence[Tail]) -> int:
    """Return them to the outbox; the number of events. Floors of this process must be given up then."""
    return sum(
        connection.execute(
            _RETURN,
            {"of": tail.channel, "of_epoch": tail.last.epoch, "after": tail.after, "last": tail.last.seq},
        ).rowcount
        for tail in sorted(tails)
    )


def given_floor(dialect: str, floor: Floor) -> dict[str, Any]:
    """What `FROM_FLOOR` is bound to."""
    return {"floor": floor.position} | ({"server": floor.server} if dialect == "postgresql" else {})


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _waiting(position: int, row: Row) -> Waiting:
    return Waiting(
        position, row.channel, Entry(row.place, row.text), row.identity, row.fault(), row.recorded_at
    )


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
    if _is_postgres(connection):
        connection.execute(_RECORD, {name: [row[name] for row in rows] for name in _RECORDED})
        return
    begin = extent(connection).position
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
_ROW = "events.channel, events.epoch, events.seq, events.identity, events.recorded_at"
_OF_CHANNELS = "events.channel NOT IN :but AND"
# The server since its start, and the table's file: both differ after a fail-over or a restore.
_SERVER = """
    concat(extract(epoch FROM pg_postmaster_start_time()), '/', pg_relation_filenode(to_regclass('events')))
"""
FROM_FLOOR = {
    "sqlite": "outbox.position >= :floor",
    "postgresql": f"outbox.position >= CASE WHEN :server = {_SERVER} THEN :floor ELSE 0 END",
}
# The order of joining is fixed: whatever the planner believes of the outbox, it may never scan `events`.
_READ = {
    "sqlite": f"""
        SELECT outbox.position, {_ROW}, {tombstones.read("sqlite")}
        FROM outbox CROSS JOIN events ON events.position = outbox.position
        WHERE {{but}} {FROM_FLOOR["sqlite"]} ORDER BY outbox.position LIMIT :limit
        """,
    "postgresql": f"""
        SELECT outbox.position, events.* FROM outbox CROSS JOIN LATERAL (
            SELECT {_ROW}, {tombstones.read("postgresql")} FROM events
            WHERE events.position = outbox.position OFFSET 0) AS events
        WHERE {{but}} {FROM_FLOOR["postgresql"]} ORDER BY outbox.position LIMIT :limit
        """,
}
_UNPUBLISHED = {dialect: text(read.format(but="")) for dialect, read in _READ.items()}
_UNPUBLISHED_BUT = {
    dialect: text(read.format(but=_OF_CHANNELS)).bindparams(bindparam("but", expanding=True))
    for dialect, read in _READ.items()
}
_UNMARKED = {
    dialect: select(table.c.position).where(
        is_among(dialect, table.c.position, "positions"), table.c.epoch == bindparam("in_epoch")
    )
    for dialect in DIALECTS
}
_MARK_SQLITE = delete(table).where(table.c.position.in_(_UNMARKED["sqlite"]))
# One locked row must not keep the others from being marked. Positions come in runs: each is found by one
# descent of the index, however long it is, and its rows are deleted where they were found.
_MARK_POSTGRES = text(
    """
    DELETE FROM outbox WHERE ctid = ANY (ARRAY(
        SELECT waiting.ctid FROM unnest(:firsts, :lasts) AS run (first, last) CROSS JOIN LATERAL (
            SELECT ctid FROM outbox
            WHERE position >= run.first AND position <= run.last AND epoch = :in_epoch
            FOR UPDATE SKIP LOCKED) AS waiting))
    """
).bindparams(*(bindparam(name, type_=ARRAY(BigInteger)) for name in ("firsts", "lasts")))
_WAITS = select(table.c.position).where(table.c.position == bindparam("position"))
_BACKLOG = {
    dialect: text(
        f"""
        SELECT count(*), min(position) FROM (
            SELECT position FROM outbox WHERE {part} ORDER BY position LIMIT {COUNTED}) AS first
        """
    )
    for dialect, part in FROM_FLOOR.items()
}
_RECORDED_AT = select(events.c.recorded_at).where(events.c.position == bindparam("at"))
_EXTENT = {
    dialect: text(f"SELECT (SELECT coalesce(max(position), 0) + 1 FROM events), {server}")
    for dialect, server in (("sqlite", "''"), ("postgresql", _SERVER))
}
_FIRST = {
    dialect: text(
        f"SELECT position FROM outbox WHERE {part} AND position < :before ORDER BY position LIMIT 1"
    )
    for dialect, part in FROM_FLOOR.items()
}
# INSERT takes this lock before the row's number, and keeps it until after its row is visible to others.
_WRITERS = text(
    """
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = to_regclass('events') AND mode = 'RowExclusiveLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
# What waits before the floor was returned by another sender: for us, it is published and lost.
_RECENT = {
    dialect: text(
        f"""
        SELECT channel, epoch, min(seq), max(seq) FROM events
        WHERE position >= :oldest AND position < :newest AND epoch = (SELECT epoch FROM generation)
          AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.position = events.position AND {part})
        GROUP BY channel, epoch
        """
    )
    for dialect, part in FROM_FLOOR.items()
}
_RETURN = text(
    """
    INSERT INTO outbox (position, epoch) SELECT position, epoch FROM events
    WHERE channel = :of AND epoch = :of_epoch AND seq > :after AND seq <= :last
    ORDER BY position ON CONFLICT (position) DO NOTHING
    """
)
