"""The outbox: events that wait until they are published.

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

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, bindparam, delete, select, text

from sender import tombstones
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, events, generation
from sender.database.tables import outbox as table
from shared.channels import Channel
from shared.cursors import Place
from shared.events import Entry

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from sqlalchemy import Connection

    from sender.tombstones import Fault, Row
    from shared.redis.channel_log import NewestEvent


COUNTED = 1_000  # events; a longer outbox is estimated


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
    """Return them to the outbox; the number of events. Floors of this process must be given up then.

    Those of an earlier epoch stay where they are: their channels have gone on without them, and Redis would
    refuse them for ever.
    """
    epoch = connection.execute(_EPOCH_HELD).scalar_one()
    return sum(
        connection.execute(
            _RETURN,
            {"of": tail.channel, "of_epoch": tail.last.epoch, "after": tail.after, "last": tail.last.seq},
        ).rowcount
        for tail in sorted(tails)
        if tail.last.epoch == epoch
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


# Statements are built once: building one costs about as much as running it.
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
# An event that waits before the floor was returned by another sender: it was published, and Redis lost it.
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
# On PostgreSQL no epoch begins until they are returned: it would move some of their rows and not others.
_EPOCH_HELD = select(generation.c.epoch).with_for_update(read=True)
_RETURN = text(
    """
    INSERT INTO outbox (position, epoch) SELECT position, epoch FROM events
    WHERE channel = :of AND epoch = :of_epoch AND seq > :after AND seq <= :last
    ORDER BY position ON CONFLICT (position) DO NOTHING
    """
)
