"""Pruning: finds rows that are older than a moment, and deletes them; the statements of retention.

Events are found without an index on time: rows are numbered roughly in order of time, so windows of rows are
looked at in order of position. Looking reads a snapshot and locks nothing; what it finds is deleted in
portions, each in a transaction of its own.

`pruned_seq` moves in the transaction that deletes, so a cursor before it gets a reset and never a hole. An
event may have returned to the outbox since it was looked at (sender/publishing/sweep.py): then nothing of the
portion is deleted. On PostgreSQL such a commit does not wait for the disk, nor make callers' commits wait: if
it is lost in a crash, the rows are there again, with the old `pruned_seq`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import and_, bindparam, delete, func, literal_column, select, text, update

from sender import outbox
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, idempotency, orders
from sender.outbox import FROM_FLOOR, NO_FLOOR, given_floor
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from sender.outbox import Floor


T = TypeVar("T")


class Old(NamedTuple):
    """A channel's old events among those looked at: their number, and the seq of the last."""

    channel: str
    seq: int
    amount: int


class Window(NamedTuple, Generic[T]):
    """Some consecutive rows."""

    old: list[T]
    looked: int
    last: int  # position
    young: bool  # some are neither old nor from the future


def look(
    connection: Connection,
    *,
    after: int,
    before: datetime,
    now: datetime,
    limit: int,
    floor: Floor = NO_FLOOR,
) -> Window[Old]:
    """Look at some published events after a position, for those recorded before that moment."""
    # The newest event stays, however old: it proves that the database did not go back (sender.generation).
    given = {
        "after": after,
        "until": outbox.lower_bound(connection, floor),
        "before": format_time(before),
        "now": format_time(now),
        "limit": limit,
    }
    found = connection.execute(_LOOK[connection.dialect.name], given).one()
    old = msgspec.json.decode(found.old or "{}", type=dict[str, tuple[int, int]])
    return Window(
        [Old(channel, seq, amount) for channel, (seq, amount) in old.items()],
        found.amount,
        found.last or after,
        bool(found.young),
    )


def take(old: list[Old], rows: int) -> dict[str, int]:
    """Take about as many rows out of the list; the seq up to which each of their channels is deleted."""
    taken: dict[str, int] = {}
    while old and rows > 0:
        channel, seq, amount = old.pop()
        if amount > rows:  # seqs have no holes, so the first `rows` of them can be counted off
            old.append(Old(channel, seq, amount - rows))
            seq, amount = seq - amount + rows, rows
        taken[channel] = seq
        rows -= amount
    return taken


def delete_events(connection: Connection, old: dict[str, int], *, last: int, floor: Floor = NO_FLOOR) -> int:
    """Delete each channel's events up to a seq, and note it; the number of events.

    None is deleted if an event up to the position `last` waits in the outbox.
    """
    dialect = connection.dialect.name
    given = {"old": msgspec.json.encode(old).decode(), "last": last, **given_floor(dialect, floor)}
    if dialect == "sqlite":
        return _delete_on_sqlite(connection, given)
    return int(connection.execute(_DELETE_POSTGRES, given).one().deleted)


def look_at_orders(
    connection: Connection, *, after: int, before: datetime, now: datetime, limit: int
) -> Window[int]:
    """Look at some orders after a position, for those completed or cancelled before that moment."""
    given = {"after": after, "before": format_time(before), "now": format_time(now), "limit": limit}
    found = connection.execute(_LOOK_AT_ORDERS[connection.dialect.name], given).one()
    old = msgspec.json.decode(found.old or "[]", type=list[int])
    return Window(old, found.amount, found.last or after, bool(found.young))


def delete_orders(connection: Connection, positions: Sequence[int], *, before: datetime) -> int:
    """Delete those of them that are that old; how many."""
    given = {"positions": list(positions), "before": format_time(before)}
    return connection.execute(_DELETE_ORDERS[connection.dialect.name], given).rowcount


def prune_keys(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some idempotency keys stored before that moment; the number deleted."""
    return connection.execute(_PRUNE_KEYS, {"before": format_time(before), "limit": limit}).rowcount


def restamp_keys(connection: Connection, *, now: datetime, ahead: timedelta, limit: int) -> int:
    """Keys stored by a clock that was ahead would stay until then: they count from now on."""
    given = {"now": format_time(now), "ahead": format_time(now + ahead), "limit": limit}
    return connection.execute(_RESTAMP_KEYS, given).rowcount


def _delete_on_sqlite(connection: Connection, given: dict[str, object]) -> int:
    if connection.execute(_WAITS_SQLITE, given).first() is not None:
        return 0
    connection.execute(_NOTE_SQLITE, given)
    return connection.execute(_DELETE_SQLITE, given).rowcount


_WINDOW = """
    SELECT position, channel, seq, recorded_at FROM events
    WHERE position > :after AND position < :until
      AND position < (SELECT position FROM events ORDER BY position DESC LIMIT 1)
    ORDER BY position LIMIT :limit
"""
_FOUND = """
    (SELECT count(*) FROM looked) AS amount,
    (SELECT max(position) FROM looked) AS last,
    (SELECT count(*) FROM looked WHERE recorded_at >= :before AND recorded_at <= :now) AS young
"""
# An old time after young rows comes from a clock that was behind for a while, as it may be until it is set at
# a machine's start: the event is as young as those before it. A young time before old rows comes from a clock
# that was ahead. So rows count as old up to where most before are old and most after are not.
_BALANCE = """
    SELECT position, sum(CASE WHEN recorded_at < :before THEN 1 WHEN recorded_at <= :now THEN -1 ELSE 0 END)
        OVER (ORDER BY position) AS older
    FROM looked
"""
_EDGE = f"SELECT position FROM ({_BALANCE}) AS balance ORDER BY older DESC, position LIMIT 1"
_OLD = f"""
    SELECT channel, max(seq) AS seq, count(*) AS amount FROM looked
    WHERE recorded_at < :before AND position <= ({_EDGE}) GROUP BY channel
"""
_LOOK = {
    "sqlite": text(
        f"WITH looked AS MATERIALIZED ({_WINDOW})"
        f" SELECT (SELECT json_group_object(channel, json_array(seq, amount)) FROM ({_OLD})) AS old, {_FOUND}"
    ),
    "postgresql": text(
        f"WITH looked AS MATERIALIZED ({_WINDOW})"
        f" SELECT (SELECT CAST(jsonb_object_agg(channel, jsonb_build_array(seq, amount)) AS text)"
        f" FROM ({_OLD}) AS o) AS old, {_FOUND}"
    ),
}
_WAITS_SQLITE = text(f"SELECT 1 FROM outbox WHERE {FROM_FLOOR['sqlite']} AND position <= :last LIMIT 1")
_NOTE_SQLITE = text(
    """
    UPDATE channels SET pruned_seq = old.value FROM json_each(:old) AS old
    WHERE channels.channel = old.key AND channels.pruned_seq < old.value
    """
)
_DELETE_SQLITE = text(
    """
    DELETE FROM events WHERE position IN (
        SELECT events.position FROM json_each(:old) AS old
        CROSS JOIN events ON events.channel = old.key AND events.seq <= old.value)
    """
)
# By name, the order in which all code locks channels; a locked one keeps its events until the next time.
# The order of joining is fixed, as in sender/history.py.
_DELETE_POSTGRES = text(
    f"""
    WITH old AS MATERIALIZED (
        SELECT key AS channel, CAST(value AS bigint) AS seq
        FROM jsonb_each_text(CAST(:old AS jsonb))
        WHERE (SELECT position FROM outbox WHERE {FROM_FLOOR["postgresql"]} AND position <= :last
               ORDER BY position LIMIT 1) IS NULL
        ORDER BY key COLLATE "C"),
    free AS MATERIALIZED (
        SELECT channels.channel, old.seq FROM old JOIN channels ON channels.channel = old.channel
        ORDER BY channels.channel COLLATE "C" FOR UPDATE OF channels SKIP LOCKED),
    noted AS (
        UPDATE channels SET pruned_seq = free.seq FROM free
        WHERE channels.channel = free.channel AND channels.pruned_seq < free.seq),
    gone AS (
        DELETE FROM events WHERE ctid = ANY (ARRAY(
            SELECT found.ctid FROM free CROSS JOIN LATERAL (
                SELECT ctid FROM events
                WHERE events.channel = free.channel AND events.seq <= free.seq
                ORDER BY events.seq OFFSET 0) AS found))
        RETURNING 1)
    SELECT (SELECT count(*) FROM gone) AS deleted, set_config('synchronous_commit', 'off', true)
    """
)
_OLD_KEYS = (
    select(idempotency.c.scope)
    .where(idempotency.c.created_at < bindparam("before"))
    .order_by(idempotency.c.created_at)
    .limit(bindparam("limit"))
)
_PRUNE_KEYS = delete(idempotency).where(idempotency.c.scope.in_(_OLD_KEYS))
_RESTAMP_KEYS = (
    update(idempotency)
    .where(
        idempotency.c.scope.in_(
            select(idempotency.c.scope)
            .where(idempotency.c.created_at > bindparam("ahead"))
            .order_by(idempotency.c.created_at)
            .limit(bindparam("limit"))
        )
    )
    .values(created_at=bindparam("now"))
)
_OVER = func.coalesce(orders.c.cancelled_at, orders.c.completed_at)
_OLD_ORDER = and_(orders.c.status == literal_column("'completed'"), _OVER < bindparam("before"))
_OLD_ONES = {
    "sqlite": f"json_group_array(position) FILTER (WHERE {_OLD_ORDER})",
    "postgresql": f"CAST(jsonb_agg(position) FILTER (WHERE {_OLD_ORDER}) AS text)",
}
_LOOK_AT_ORDERS = {
    dialect: text(
        f"""
        SELECT count(*) AS amount, max(position) AS last, {old_ones} AS old,
            count(*) FILTER (WHERE created_at >= :before AND created_at <= :now) AS young
        FROM (SELECT * FROM orders WHERE position > :after ORDER BY position LIMIT :limit) AS orders
        """
    )
    for dialect, old_ones in _OLD_ONES.items()
}
# On PostgreSQL, locked ones are being repeated by a caller; they go the next time.
_DELETE_ORDERS = {
    dialect: delete(orders).where(
        orders.c.position.in_(
            select(orders.c.position)
            .where(is_among(dialect, orders.c.position, "positions"), _OLD_ORDER)
            .with_for_update(skip_locked=True)
        )
    )
    for dialect in DIALECTS
}
