"""Where a channel begins, so that the rows of channels that have nothing left can be removed.

A channel's row holds its last seq. Without it, a channel that begins again at 1 would use places a second
time: a device that returns with its old cursor `=1.42` would be believed as soon as there are 42 new events,
and would miss them in silence. So a place is never used twice: there is a mark that no removed channel was
beyond (`generation.begin_after`), and a channel without a row begins after it. An old cursor gets a reset.

The mark moves in large steps, once a week or so, because each move affects customers who are connected and
never had an event: their place is the old mark. Their first event begins the channel after the new one, so it
comes with a reset. Nothing of such a channel has been deleted, so this reset continues at the channel's
beginning rather than at its head, and the event is delivered as usual.

Rows are removed in a transaction after the one that moves the mark: where a row is missing, the mark holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ARRAY, JSON, String, bindparam, delete, literal, select, text, update

from sender import erasure
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, alert_states, channels, generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from shared.channels import Channel

STEP = 1_000_000  # seqs; those below 2**53 suffice for nine billion moves


class Beginning(NamedTuple):
    """The seq after which a channel without a row begins."""

    after: int
    erased: bool  # its customer was erased


class Looked(NamedTuple):
    """Channels that seem to have nothing left, among some consecutive ones."""

    last: str | None  # the last one looked at; None if no others follow
    empty: list[str]
    highest: int  # seq of the empty ones
    mark: int


def is_beginning(seq: int) -> bool:
    """Whether channels begin after this seq; a channel that is deleted up to there may have begun there."""
    return seq > 0 and seq % STEP == 0


def beginnings(connection: Connection, names: Sequence[Channel]) -> dict[Channel, Beginning]:
    """Of channels that have no row."""
    erased = {erasure.name_of(channel): channel for channel in names}
    rows = connection.execute(_BEGINNINGS[connection.dialect.name], {"names": list(erased)}).all()
    mark = max(seq for name, seq in rows if not name)
    found = {channel: Beginning(mark, erased=False) for channel in names}
    for name, seq in rows:
        if name:
            found[erased[name]] = Beginning(max(seq, mark), erased=True)
    return found


def begin(connection: Connection, names: Sequence[Channel]) -> dict[Channel, int]:
    """Move channels whose rows were just inserted to where they begin; returns by how much each was moved."""
    # A separate statement sees the removal of a row, for which the insertion may have waited.
    moved = {name: start.after for name, start in beginnings(connection, names).items() if start.after}
    for channel, seq in sorted(moved.items()):
        connection.execute(_BEGIN, {"begun": channel, "by": seq})
    return moved


def look(connection: Connection, *, after: str, limit: int) -> Looked:
    """Look at some channels after a name, in order of names."""
    rows = connection.execute(_LOOK, {"after": after, "limit": limit}).all()
    empty = [row for row in rows if row.empty]
    return Looked(
        rows[-1].channel if len(rows) == limit else None,
        [row.channel for row in empty],
        max((row.seq for row in empty), default=0),
        rows[0].mark if rows else 0,
    )


def raise_mark(connection: Connection, seq: int) -> None:
    """Raise the mark, so that channels up to that seq may be removed."""
    connection.execute(_RAISE, {"to": -(-seq // STEP) * STEP})


def remove(connection: Connection, names: Sequence[str]) -> int:
    """Remove the rows of channels that still are empty and not beyond the mark; returns how many."""
    given = {"names": list(names)}
    dialect = connection.dialect.name
    # Locked first: an event that is being recorded keeps its channel.
    found = connection.execute(_LOCK[dialect], given).scalars().all()
    if not found:
        return 0
    given = {"names": list(found)}
    connection.execute(_DELETE_STATES[dialect], given)
    return connection.execute(_DELETE[dialect], given).rowcount


_BEGINNINGS = {
    dialect: select(channels.c.channel, channels.c.seq)
    .where(is_among(dialect, channels.c.channel, "names"))
    .union_all(select(literal(""), generation.c.begin_after))
    for dialect in DIALECTS
}
_BEGIN = (
    update(channels)
    .where(channels.c.channel == bindparam("begun"))
    .values(
        seq=channels.c.seq + bindparam("by"),
        pruned_seq=bindparam("by"),
        # There is nothing earlier to show: a new browser starts here, without a reset.
        seen_epoch=channels.c.epoch,
        seen_seq=bindparam("by"),
    )
)
# Rows of erased channels stay: they also say that these were erased.
_DELETED = f"""
    channel NOT LIKE '{erasure.PREFIX}%'
    AND (pruned_seq >= seq OR epoch < (SELECT epoch FROM generation))
"""
_LOOK = text(
    f"""
    SELECT channel, seq, {_DELETED} AS empty, (SELECT begin_after FROM generation) AS mark
    FROM channels WHERE channel > :after ORDER BY channel LIMIT :limit
    """
)
_RAISE = (
    update(generation).where(generation.c.begin_after < bindparam("to")).values(begin_after=bindparam("to"))
)
# A transaction that is recording an event holds its channel's row; afterwards the row has a higher seq.
_LOCK = {
    dialect: text(
        f"""
        SELECT channel FROM channels
        WHERE {among} AND {_DELETED} AND seq <= (SELECT begin_after FROM generation)
            AND (SELECT 1 FROM events WHERE events.channel = channels.channel LIMIT 1) IS NULL
        ORDER BY channel {locking}
        """
    )
    for dialect, among, locking in (
        ("sqlite", "channel IN (SELECT value FROM json_each(:names))", ""),
        ("postgresql", "channel = ANY(CAST(:names AS text[]))", 'COLLATE "C" FOR UPDATE SKIP LOCKED'),
    )
}
_LOCK["sqlite"] = _LOCK["sqlite"].bindparams(bindparam("names", type_=JSON))
_LOCK["postgresql"] = _LOCK["postgresql"].bindparams(bindparam("names", type_=ARRAY(String)))
_DELETE, _DELETE_STATES = (
    {dialect: delete(table).where(is_among(dialect, table.c.channel, "names")) for dialect in DIALECTS}
    for table in (channels, alert_states)
)
