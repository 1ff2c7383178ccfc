"""The epoch: the generation of the database. It grows when the database itself went back.

A database that was restored from a backup, or created beside a Redis that still knows the old one, would
assign seqs a second time. The new 11 could not be distinguished from the old 11, and Redis would treat it as
a repetition. In a new epoch, every older cursor gets a reset, and clients continue from there.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select, text, update

from sender import tombstones
from sender.database.rows import is_among
from sender.database.tables import DIALECTS, channels, events, generation, outbox
from shared.redis.channel_log import NewestEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from shared.cursors import Place


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
    # Locked before they are used: another sender may be marking some as published.
    waiting = [
        (position, tombstones.row(*columns))
        for position, *columns in connection.execute(_OUTBOX[connection.dialect.name])
    ]
    connection.execute(update(generation).values(epoch=after + 1))
    first: dict[str, int] = {}
    for _, row in waiting:
        first[row.channel] = min(row.place.seq, first.get(row.channel, row.place.seq))
    if first:
        moves = [{"name": name, "pruned": seq - 1, "new": after + 1} for name, seq in sorted(first.items())]
        connection.execute(_MOVE_CHANNEL, moves)
    sound = [(position, row) for position, row in waiting if row.fault() is None]
    if sound:
        texts = [(position, _moved(row.text.decode(), row.place, after + 1)) for position, row in sound]
        moved = [{"moved": position, "epoch": after + 1, "text": text} for position, text in texts]
        connection.execute(_MOVE, moved)
    # The others will be given up, in whatever epoch they are.
    if faulty := [position for position, row in waiting if row.fault() is not None]:
        connection.execute(_MOVE, [{"moved": position, "epoch": after + 1} for position in faulty])
    if waiting:
        positions = [{"moved": position, "epoch": after + 1} for position, _ in waiting]
        connection.execute(_MOVE_WAITING, positions)
    return after + 1


def _moved(event: str, place: Place, new: int) -> str:
    """The same event under its new place."""
    # The first match is the place: only texts precede it, and quotes in those are escaped.
    old = f',"epoch":{place.epoch},"seq":{place.seq}'
    return event.replace(old, f',"epoch":{new},"seq":{place.seq}', 1)


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
_ROW = "events.position, events.channel, events.epoch, events.seq, events.identity, events.recorded_at"
# The order of joining is fixed: a restored database has no statistics of what waits, and may never scan
# `events` here, while all callers wait for the lock on `channels`.
_OUTBOX = {
    "sqlite": text(
        f"""
        SELECT {_ROW}, {tombstones.read("sqlite")}
        FROM outbox CROSS JOIN events ON events.position = outbox.position ORDER BY outbox.position
        """
    ),
    "postgresql": text(
        f"""
        SELECT found.* FROM (SELECT position FROM outbox ORDER BY position FOR UPDATE) AS waiting
        CROSS JOIN LATERAL (
            SELECT {_ROW}, {tombstones.read("postgresql")} FROM events
            WHERE events.position = waiting.position FOR UPDATE) AS found
        """
    ),
}
_MOVE = update(events).where(events.c.position == bindparam("moved"))
_MOVE_WAITING = update(outbox).where(outbox.c.position == bindparam("moved"))
_MOVE_CHANNEL = (
    update(channels)
    .where(channels.c.channel == bindparam("name"))
    .values(pruned_seq=bindparam("pruned"), epoch=bindparam("new"))
)
