"""The epoch: the generation of the database. It grows when the database itself went back.

A database that was restored from a backup, or created beside a Redis that still knows the old one, would
assign seqs a second time. The new 11 could not be distinguished from the old 11, and Redis would treat it as
a repetition. In a new epoch, every older cursor gets a reset, and clients continue from there.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select, text, update

from sender.database.rows import is_among
from sender.database.tables import DIALECTS, events, generation
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_MOVED_AT_ONCE = 10_000  # events; far below what a command of a slow server may take


def current_epoch(connection: Connection) -> int:
    return int(connection.execute(_EPOCH).scalar_one())


def installation(connection: Connection) -> str:
    """The id of this database; empty until it is minted. A restored copy has the same id."""
    return connection.execute(_INSTALLATION).scalar_one() or ""


def mint_installation(connection: Connection) -> str:
    """The id, minted if there is none."""
    connection.execute(_MINT, {"minted": secrets.token_hex(8)})
    return installation(connection)


def newest(connection: Connection) -> NewestEvent:
    """The newest recorded event. Retention keeps it, so this never goes back by itself."""
    return NewestEvent(*connection.execute(_NEWEST).one())


def has(connection: Connection, known: NewestEvent) -> bool:
    """Whether the event that Redis knows as the newest was recorded in this database, as it is now."""
    if known.epoch > current_epoch(connection):
        return False
    row = connection.execute(_AT, {"at": known.position}).one()
    if row.identity is not None:
        return bool(row.identity == known.identity)
    return known.position < int(row.oldest)  # then retention deleted it; or there never was any


def lacking(connection: Connection, published: Sequence[NewestEvent]) -> list[NewestEvent]:
    """Which of the events that were published a moment ago this database does not have, as it is now."""
    given = {"positions": [event.position for event in published]}
    found = {row.position: row.identity for row in connection.execute(_AMONG[connection.dialect.name], given)}
    return [event for event in published if found.get(event.position) != event.identity]


def begin_epoch(connection: Connection, *, after: int) -> int:
    """Begin the epoch after `after`, unless it or a later one has begun; returns the current epoch.

    Events that are still in the outbox move into it, and so do their channels. The other channels' rows keep
    the old epoch, which marks all their events as deleted; so nothing is written for them, however many.
    """
    if connection.dialect.name == "postgresql":  # no seq is taken under the old epoch meanwhile
        connection.execute(text("LOCK TABLE channels IN EXCLUSIVE MODE"))
    epoch = current_epoch(connection)
    if epoch > after:
        return epoch
    dialect, new = connection.dialect.name, {"new": after + 1}
    for statement in _BEGIN[dialect]:
        connection.execute(statement, new if ":new" in statement.text else {})
    moved = 0  # position
    while (last := connection.execute(_LAST_OF_SOME, {"after": moved}).scalar_one()) is not None:
        connection.execute(_MOVE_EVENTS[dialect], {**new, "after": moved, "last": last})
        moved = last
    return after + 1


_EPOCH = select(generation.c.epoch)
_INSTALLATION = select(generation.c.installation)
_MINT = update(generation).where(generation.c.installation.is_(None)).values(installation=bindparam("minted"))
_LAST = select(events.c.position, events.c.identity).order_by(events.c.position.desc()).limit(1).subquery()
_NEWEST = select(
    generation.c.epoch,
    func.coalesce(select(_LAST.c.position).scalar_subquery(), 0),
    func.coalesce(select(_LAST.c.identity).scalar_subquery(), ""),
)
_AT = select(
    select(events.c.identity).where(events.c.position == bindparam("at")).scalar_subquery().label("identity"),
    func.coalesce(select(func.min(events.c.position)).scalar_subquery(), 1).label("oldest"),
)
_AMONG = {
    dialect: select(events.c.position, events.c.identity).where(
        is_among(dialect, events.c.position, "positions")
    )
    for dialect in DIALECTS
}
# These statements change whole sets, because everything may be waiting: one by one, the events would take
# minutes, in which no order can be completed. In a text, the first match is replaced: it is the event's
# place, because only strings precede it, and quotes in those are escaped. A text that names another place
# stays as it is: it will be given up, whatever its epoch.
_SAID, _SAYS = (
    """',"epoch":' || events.epoch || ',"seq":' || events.seq""",
    """',"epoch":' || CAST(:new AS bigint) || ',"seq":' || events.seq""",
)
_FIRST = """
    SELECT events.channel, min(events.seq) AS seq FROM outbox
    CROSS JOIN events WHERE events.position = outbox.position GROUP BY events.channel
"""
_MOVE_CHANNELS = f"""
    UPDATE channels SET pruned_seq = first.seq - 1, epoch = CAST(:new AS bigint) FROM ({_FIRST}) AS first
    WHERE channels.channel = first.channel
"""
_BEGIN_EPOCH = "UPDATE generation SET epoch = CAST(:new AS bigint)"
_MOVE_WAITING = "UPDATE outbox SET epoch = CAST(:new AS bigint)"
_BEGIN = {
    "sqlite": [
        text(statement)
        for statement in (
            _BEGIN_EPOCH,
            _MOVE_CHANNELS,
            _MOVE_WAITING,
        )
    ],
    "postgresql": [
        text(statement)
        for statement in (
            # A restored database has no statistics of what waits, and may never scan its large tables here,
            # while all callers wait for the lock on `channels`.
            "SET LOCAL enable_seqscan = off",
            "SET LOCAL enable_hashjoin = off",
            "SET LOCAL enable_mergejoin = off",
            "SET LOCAL jit = off",
            _BEGIN_EPOCH,  # from now on none returns to the outbox, see sender/outbox.py
            # Locked before they are used: another sender may be marking some as published.
            "SELECT count(*) FROM (SELECT position FROM outbox ORDER BY position FOR UPDATE) AS waiting",
            _MOVE_CHANNELS,
            _MOVE_WAITING,
        )
    ],
}
_LAST_OF_SOME = text(
    f"""
    SELECT max(position) FROM (
        SELECT position FROM outbox WHERE position > :after ORDER BY position LIMIT {_MOVED_AT_ONCE}) AS found
    """
)
_MOVE_EVENTS = {
    # As bytes: what is not UTF-8 stays as it is.
    "sqlite": text(
        f"""
        UPDATE events SET epoch = CAST(:new AS bigint), text = CASE
            WHEN instr(CAST(text AS BLOB), CAST({_SAID} AS BLOB)) = 0 THEN text
            ELSE CAST(substr(CAST(text AS BLOB), 1, instr(CAST(text AS BLOB), CAST({_SAID} AS BLOB)) - 1)
                || {_SAYS}
                || substr(CAST(text AS BLOB), instr(CAST(text AS BLOB), CAST({_SAID} AS BLOB))
                    + length({_SAID})) AS TEXT)
            END
        WHERE position IN (SELECT position FROM outbox WHERE position > :after AND position <= :last)
        """
    ),
    "postgresql": text(
        f"""
        UPDATE events SET epoch = CAST(:new AS bigint), text = CASE
            WHEN strpos(text, {_SAID}) = 0 THEN text
            ELSE overlay(text PLACING {_SAYS} FROM strpos(text, {_SAID}) FOR length({_SAID}))
            END
        FROM outbox
        WHERE events.position = outbox.position AND outbox.position > :after AND outbox.position <= :last
        """
    ),
}
