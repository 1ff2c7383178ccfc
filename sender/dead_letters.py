"""Dead letters: events that were given up, unchanged, and the reason.

Giving up is one transaction: the original moves here, and its tombstone takes its place in `events`, from
where it is published like any event. At no moment is the place empty or the original lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import LargeBinary, String, bindparam, cast, delete, func, literal_column, select, update

from sender import alerts, tombstones
from sender.database.tables import DIALECTS, dead_letters, events, insert_into, outbox
from sender.tombstones import Fault
from shared.channels import is_private
from shared.cursors import MAX_NUMBER, Cursor
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select
    from sqlalchemy.sql.dml import Insert

    from sender.tombstones import Row

COUNTED = 10_000  # dead letters; counting stops there
_BEGINNING = 1_000  # bytes of a text, in lists


class GivenUp(NamedTuple):
    """An event that has become a dead letter."""

    cursor: Cursor
    fault: Fault


class DeadLetter(NamedTuple):
    """An event that was given up, with only the beginning of its text."""

    position: int
    row: Row
    reason: str
    detail: str
    given_up_at: str
    size: int  # bytes

    @property
    def beginning(self) -> str:
        return self.row.text[:_BEGINNING].decode(errors="replace")


class Page(NamedTuple):
    dead_letters: list[DeadLetter]
    before: int | None  # for the next page; None after the oldest


def give_up(
    connection: Connection, positions: Sequence[int], *, now: datetime, refusal: str = ""
) -> list[GivenUp]:
    """Replace these events by tombstones: those with a fault, or with a `refusal` by Redis all of them.

    Another sender may have done so meanwhile, or have published them after all.
    """
    given_up = []
    waiting = connection.execute(_WAITING[connection.dialect.name], {"positions": positions}).all()
    for position, *columns in waiting:
        row = tombstones.row(*columns)
        fault = row.fault() or (Fault.REFUSED if refusal else None)
        if fault is None:
            continue
        why = {"why": fault.value, "said": refusal, "now": format_time(now)}
        connection.execute(_KEEP[connection.dialect.name], {"given": position, **why})
        connection.execute(_BURY, {"given": position, "tombstone": row.tombstone(fault).decode()})
        if is_private(row.channel):  # a tombstone never counts as unread
            alerts.mark(connection, row.channel, row.place.seq, alerts.Mark.SYSTEM)
        given_up.append(GivenUp(Cursor(row.channel, row.place), fault))
    return given_up


def find(connection: Connection, *, before: int | None, limit: int) -> Page:
    """The newest first."""
    statement = _FIND[connection.dialect.name]
    rows = connection.execute(statement, {"before": before or MAX_NUMBER, "limit": limit + 1}).all()
    found = [
        DeadLetter(position, tombstones.row(*columns), reason, detail, given_up_at, size)
        for position, reason, detail, given_up_at, size, *columns in rows[:limit]
    ]
    return Page(found, found[-1].position if len(rows) > limit else None)


def count(connection: Connection) -> int:
    """Up to `COUNTED`."""
    return int(connection.execute(_COUNT).scalar_one())


def prune(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some that were given up before that moment; returns how many."""
    return connection.execute(_PRUNE, {"before": format_time(before), "limit": limit}).rowcount


def _waiting(dialect: str) -> Select[Any]:
    columns = (events.c.channel, events.c.epoch, events.c.seq, events.c.identity, events.c.recorded_at)
    return (
        select(events.c.position, *columns, literal_column(tombstones.read(dialect)))
        .join(outbox, outbox.c.position == events.c.position)
        .where(events.c.position.in_(bindparam("positions", expanding=True)))
        .order_by(events.c.position)
        .with_for_update()
    )


def _keep(dialect: str) -> Insert:
    original = select(
        *(events.c[name] for name in _AS_RECORDED),
        bindparam("now", type_=String),
        bindparam("why", type_=String),
        bindparam("said", type_=String),
    ).where(events.c.position == bindparam("given"))
    statement = insert_into(dialect, dead_letters).from_select(
        [*_AS_RECORDED, "given_up_at", "reason", "detail"], original
    )
    # If a tombstone is refused too, the first row stays: it is the original.
    return statement.on_conflict_do_nothing()


def _find(dialect: str) -> Select[Any]:
    kept = dead_letters.c
    # Both count bytes this way; length() of a text would count characters on SQLite.
    size = func.length(cast(kept.text, LargeBinary)) if dialect == "sqlite" else func.octet_length(kept.text)
    return (
        select(kept.position, kept.reason, kept.detail, kept.given_up_at, size)
        .add_columns(kept.channel, kept.epoch, kept.seq, kept.identity, kept.recorded_at)
        .add_columns(literal_column(tombstones.read(dialect, "dead_letters")))
        .where(kept.position < bindparam("before"))
        .order_by(kept.position.desc())
        .limit(bindparam("limit"))
    )


_AS_RECORDED = ("position", "channel", "epoch", "seq", "identity", "recorded_at", "text")
_WAITING = {dialect: _waiting(dialect) for dialect in DIALECTS}
_KEEP = {dialect: _keep(dialect) for dialect in DIALECTS}
_BURY = update(events).where(events.c.position == bindparam("given")).values(text=bindparam("tombstone"))
_FIND = {dialect: _find(dialect) for dialect in DIALECTS}
_COUNT = select(func.count()).select_from(select(dead_letters.c.position).limit(COUNTED).subquery())
_OLD = (
    select(dead_letters.c.position)
    .where(dead_letters.c.given_up_at < bindparam("before"))
    .order_by(dead_letters.c.given_up_at)
    .limit(bindparam("limit"))
)
_PRUNE = delete(dead_letters).where(dead_letters.c.position.in_(_OLD))
