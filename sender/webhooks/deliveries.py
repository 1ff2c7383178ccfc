"""Deliveries: what is to be reported to the shop, as rows that outlive every process.

A row is written in the transaction that changes the alert, so neither exists without the other. There is at
most one of each kind for an alert: what devices report again adds nothing. A sender takes a row by moving its
`due_at` to the end of a lease; if that sender dies, another one takes the row then. So a message is delivered
at least once, and a repetition has the same id.

Rows stay after their end as long as the history, so that `orderbell trace` can answer what became of them.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, func, select, text, update

from sender import alerts, tombstones
from sender.alerts import State
from sender.database.tables import DIALECTS
from sender.database.tables import webhook_deliveries as table
from sender.webhooks import message
from sender.webhooks.message import AlertEvent, Kind
from shared.channels import Channel, name_in
from shared.cursors import Cursor
from shared.events import SYSTEM
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from shared.extents import Range

MAX_DETAIL = 200  # characters
COUNTED = 10_000
_FAR = timedelta(days=2)  # longer than any delivery is put off
_WITHDRAWN_IN = (State.RETRACTED, State.REPLACED, State.EXPIRED)


class Outcome(StrEnum):
    """How a delivery ended."""

    DELIVERED = "delivered"
    GIVEN_UP = "given-up"
    WITHDRAWN = "withdrawn"  # the alert ended before anything was sent of its not being shown


class Key(NamedTuple):
    channel: Channel
    seq: int
    kind: Kind


class Taken(NamedTuple):
    """A delivery that this sender is to attempt now."""

    key: Key
    attempt: int  # 1 for the first
    noted_at: str
    message_id: str
    body: bytes


class Batch(NamedTuple):
    taken: list[Taken]
    looked: int  # deliveries that were due; some are not to be sent any more


class Result(NamedTuple):
    """What became of an attempt. Without an outcome it is tried again at `due_at`."""

    key: Key
    attempt: int
    at: str
    outcome: Outcome | None
    due_at: str | None = None
    detail: str = ""


class Delivery(msgspec.Struct, frozen=True):
    """A webhook's state, for support."""

    type: str
    noted_at: str
    attempts: int
    due_at: str | None  # of the next attempt; null when it has ended
    ended_at: str | None
    outcome: str | None
    detail: str  # why the last attempt failed


class Reports:
    """Records what is to be reported, in the transactions that change alerts."""

    def __init__(self, kinds: Iterable[Kind], wake: Callable[[], None]) -> None:
        """`wake` is to be called once such a transaction is committed."""
        self._kinds = frozenset(kinds)
        self.wake = wake

    def shown(
        self, connection: Connection, parts: Mapping[Channel, Sequence[Range]], *, now: datetime
    ) -> None:
        """What devices have just reported. An alert that had ended before was not shown."""
        if Kind.SHOWN in self._kinds:
            note(connection, Kind.SHOWN, parts, now=now)

    def read(
        self, connection: Connection, parts: Mapping[Channel, Sequence[Range]], *, now: datetime
    ) -> None:
        """Before the alerts are marked: those that are marked already add nothing."""
        if Kind.READ in self._kinds:
            note(connection, Kind.READ, parts, now=now)


def note(
    connection: Connection, kind: Kind, parts: Mapping[Channel, Sequence[Range]], *, now: datetime
) -> int:
    """Record a delivery for each alert of these parts; one statement for all. Returns how many are new."""
    wanted = [(channel, *part) for channel, ranges in sorted(parts.items()) for part in ranges]
    if not wanted:
        return 0
    given = {"wanted": msgspec.json.encode(wanted).decode(), "kind": kind.value, "now": format_time(now)}
    return connection.execute(_NOTE[connection.dialect.name][kind], given).rowcount


def is_any_due(connection: Connection, *, now: datetime) -> bool:
    """Whether `take` has something to do."""
    given = {"now": format_time(now), "limit": 1}
    return connection.execute(_IS_DUE, given).first() is not None


def take(
    connection: Connection,
    *,
    now: datetime,
    until: datetime,
    limit: int,
    not_shown_seconds: float,
) -> Batch:
    """Take some of the deliveries that are due, until the end of a lease."""
    given = {"now": format_time(now), "limit": limit}
    taken = []
    rows = connection.execute(_DUE, given).all()
    for row in rows:
        key = Key(Channel(row.channel), row.seq, Kind(row.kind))
        found = _found(connection, key)
        if found is None:
            connection.execute(_DELETE, _of(key))  # the history no longer has the alert
        elif found.event.type.startswith(SYSTEM):
            connection.execute(_DELETE, _of(key))  # it never was an alert
        elif key.kind is Kind.NOT_SHOWN_IN and (ended := _has_ended(connection, key, now)):
            _end(connection, key, Outcome.WITHDRAWN, at=format_time(now), detail=f"the alert was {ended}")
        else:
            connection.execute(_TAKE, {**_of(key), "until": format_time(until)})
            seconds = not_shown_seconds if key.kind is Kind.NOT_SHOWN_IN else None
            taken.append(_taken(key, row, found, seconds))
    return Batch(taken, len(rows))


def note_results(connection: Connection, results: Sequence[Result]) -> list[None]:
    """What became of attempts. A failure counts only if no other courier has taken the delivery since."""
    for result in results:
        if result.outcome is Outcome.DELIVERED:
            _end(connection, result.key, result.outcome, at=result.at, detail="")
        else:
            given = {
                **_of(result.key),
                "attempt": result.attempt,
                "next": result.due_at,
                "at": result.at if result.outcome else None,
                "became": result.outcome,
                "why": result.detail[:MAX_DETAIL],
            }
            connection.execute(_FAIL, given)
    return [None] * len(results)


def give_up_old(connection: Connection, *, before: datetime, now: datetime, limit: int) -> int:
    """End deliveries that have been due since before that moment; returns how many."""
    given = {"before": format_time(before), "at": format_time(now), "limit": limit}
    return connection.execute(_GIVE_UP_OLD, given).rowcount


def prune(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some deliveries that ended, or were last due, before that moment; returns how many."""
    given = {"before": format_time(before), "limit": limit}
    return sum(connection.execute(statement, given).rowcount for statement in _PRUNE)


def restamp(connection: Connection, *, now: datetime, limit: int) -> int:
    """What a clock that was ahead has put off for days is due now; returns how many."""
    given = {"now": format_time(now), "far": format_time(now + _FAR), "limit": limit}
    return connection.execute(_RESTAMP, given).rowcount


def count(connection: Connection) -> int:
    """How many wait, up to `COUNTED`."""
    return int(connection.execute(_COUNT).scalar_one())


def of_alert(connection: Connection, channel: Channel, seq: int) -> list[Delivery]:
    rows = connection.execute(_OF_ALERT, {"of": channel, "at_seq": seq})
    return [
        Delivery(row.kind, row.noted_at, row.attempts, row.due_at, row.ended_at, row.outcome, row.detail)
        for row in rows
    ]


class _Found(NamedTuple):
    """What a message says of an alert."""

    cursor: Cursor
    identity: str
    recorded_at: str
    event: AlertEvent


class _Event(msgspec.Struct):
    id: str
    source: str
    type: str
    subject: str | None = None


_decode = msgspec.json.Decoder(_Event).decode


def _found(connection: Connection, key: Key) -> _Found | None:
    given = {"of": key.channel, "at_seq": key.seq}
    columns = connection.execute(_FIND[connection.dialect.name], given).one_or_none()
    if columns is None:
        return None
    row = tombstones.row(*columns)
    event = _decode(row.sound_text())
    named = AlertEvent(event.source, event.id, event.type, event.subject)
    return _Found(Cursor(row.channel, row.place), row.identity, row.recorded_at, named)


def _has_ended(connection: Connection, key: Key, now: datetime) -> State | None:
    state = alerts.state_of(connection, key.channel, key.seq, now=now)
    return state if state in _WITHDRAWN_IN else None


def _taken(key: Key, row: Any, found: _Found, seconds: float | None) -> Taken:
    body = message.encode(
        key.kind,
        found.identity,
        found.cursor,
        name_in(key.channel),
        time=row.noted_at,
        recorded_at=found.recorded_at,
        event=found.event,
        seconds=seconds,
    )
    return Taken(key, row.attempts + 1, row.noted_at, message.message_id(found.identity, key.kind), body)


def _end(connection: Connection, key: Key, outcome: Outcome, *, at: str, detail: str) -> None:
    connection.execute(_END, {**_of(key), "at": at, "became": outcome, "why": detail})


def _of(key: Key) -> dict[str, Any]:
    return {"of": key.channel, "at_seq": key.seq, "what": key.kind.value}


# The alerts that a change no longer concerns. Reading an expired alert is reported: its customer knows it.
_ENDED = {
    Kind.SHOWN: "s.state IN ('system', 'expired', 'replaced', 'retracted')"
    " OR (s.state IS NULL AND s.expires_at <= :now)",
    Kind.READ: "s.state IN ('system', 'read', 'replaced', 'retracted')",
    Kind.NOT_SHOWN_IN: "s.state IS NOT NULL OR s.expires_at <= :now",
}
_UNPACKED = {
    "sqlite": """
        json_each(:wanted) AS w CROSS JOIN events AS e ON e.channel = json_extract(w.value, '$[0]')
            AND e.seq >= json_extract(w.value, '$[1]') AND e.seq <= json_extract(w.value, '$[2]')
        """,
    "postgresql": """
        jsonb_array_elements(CAST(:wanted AS jsonb)) AS w CROSS JOIN LATERAL (
            SELECT channel, seq FROM events WHERE channel = w ->> 0
                AND seq >= CAST(w ->> 1 AS bigint) AND seq <= CAST(w ->> 2 AS bigint) OFFSET 0) AS e
        """,
}
_NOTE = {
    dialect: {
        kind: text(
            f"""
            INSERT INTO webhook_deliveries (channel, seq, kind, noted_at, due_at)
            SELECT e.channel, e.seq, CAST(:kind AS varchar), CAST(:now AS varchar), CAST(:now AS varchar)
            FROM {unpacked}
            WHERE NOT EXISTS (
                SELECT 1 FROM alert_states AS s WHERE s.channel = e.channel AND s.seq = e.seq AND ({ended}))
            ON CONFLICT (channel, seq, kind) DO NOTHING
            """
        )
        for kind, ended in _ENDED.items()
    }
    for dialect, unpacked in _UNPACKED.items()
}
_IS_DUE = (
    select(table).where(table.c.due_at <= bindparam("now")).order_by(table.c.due_at).limit(bindparam("limit"))
)
_DUE = _IS_DUE.with_for_update(skip_locked=True)
_IS_IT = (
    table.c.channel == bindparam("of"),
    table.c.seq == bindparam("at_seq"),
    table.c.kind == bindparam("what"),
)
_TAKE = update(table).where(*_IS_IT).values(due_at=bindparam("until"), attempts=table.c.attempts + 1)
_END = (
    update(table)
    .where(*_IS_IT)
    .values(due_at=None, ended_at=bindparam("at"), outcome=bindparam("became"), detail=bindparam("why"))
)
_FAIL = (
    update(table)
    .where(*_IS_IT, table.c.attempts == bindparam("attempt"), table.c.due_at.is_not(None))
    .values(
        due_at=bindparam("next"),
        ended_at=bindparam("at"),
        outcome=bindparam("became"),
        detail=bindparam("why"),
    )
)
_DELETE = delete(table).where(*_IS_IT)
_GIVE_UP_OLD = text(
    """
    UPDATE webhook_deliveries SET due_at = NULL, ended_at = :at, outcome = 'given-up'
    WHERE (channel, seq, kind) IN (
        SELECT channel, seq, kind FROM webhook_deliveries
        WHERE due_at < :before ORDER BY due_at LIMIT :limit)
    """
)
_RESTAMP = text(
    """
    UPDATE webhook_deliveries SET due_at = :now
    WHERE (channel, seq, kind) IN (
        SELECT channel, seq, kind FROM webhook_deliveries
        WHERE due_at > :far ORDER BY due_at LIMIT :limit)
    """
)
_PRUNE = [
    text(
        f"""
        DELETE FROM webhook_deliveries WHERE (channel, seq, kind) IN (
            SELECT channel, seq, kind FROM webhook_deliveries
            WHERE {column} < :before ORDER BY {column} LIMIT :limit)
        """
    )
    for column in ("ended_at", "due_at")
]
_COUNT = select(func.count()).select_from(
    select(table.c.seq).where(table.c.due_at.is_not(None)).limit(COUNTED).subquery()
)
_OF_ALERT = (
    select(table)
    .where(table.c.channel == bindparam("of"), table.c.seq == bindparam("at_seq"))
    .order_by(table.c.noted_at)
)
_FIND = {
    dialect: text(
        "SELECT events.channel, events.epoch, events.seq, events.identity, events.recorded_at,"
        f" {tombstones.read(dialect)} FROM events WHERE channel = :of AND seq = :at_seq"
    )
    for dialect in DIALECTS
}
