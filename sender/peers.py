"""The senders of one database: each notes its settings there and compares those of the others.

A gateway compares the senders that it talks to (shared/agreement.py); but two senders may serve different
gateways, or none. The database is what they have in common.

Each writes its row every few seconds with the next number after the highest, its beat. A sender runs if its
beat has changed between two looks: so clocks need not agree, and rows that a backup brought back count for
nothing. Rows of senders that ended are deleted a thousand beats later.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import bindparam, delete, func, select

from sender.database.errors import DatabaseError
from sender.database.tables import DIALECTS, insert_into, senders
from shared.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from sender.database.tables import Insert

logger = structlog.get_logger(__name__)

_KEPT_BEATS = 1_000


@dataclass(frozen=True)
class Pace:
    every_seconds: float = 20.0  # well below shared.agreement.LATELY_SECONDS


USUAL = Pace()


class Peers:
    def __init__(self, database: Database, host: str, announcement: str = "", pace: Pace = USUAL) -> None:
        """`announcement` is that of our settings."""
        self.name = f"{host}-{secrets.token_hex(4)}"
        self.announcement = announcement
        self.agreement = Agreement("senders of this database", announcement)
        self._database = database
        self._pace = pace
        self._beats: dict[str, int] | None = None  # at our last look

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except DatabaseError as error:  # the relay meets the same error, and logs it
                logger.debug("senders of this database cannot be compared now", reason=str(error))
            await asyncio.sleep(self._pace.every_seconds)

    async def look(self) -> None:
        beat = partial(note, name=self.name, announcement=self.announcement)
        rows = await self._database.write_when_idle(beat)
        before = self._beats if self._beats is not None else {row.name: row.beat for row in rows}
        for row in rows:
            if row.name != self.name and before.get(row.name) != row.beat:
                self.agreement.note(row.name, row.settings)
        self._beats = {row.name: row.beat for row in rows}


def note(connection: Connection, *, name: str, announcement: str) -> Sequence[Any]:
    """Note that a sender runs with these settings; returns what all have noted."""
    beat = connection.execute(_HIGHEST).scalar_one() + 1
    given = {"name": name, "settings": announcement, "beat": beat}
    connection.execute(_NOTE[connection.dialect.name], given)
    connection.execute(_FORGET, {"before": beat - _KEPT_BEATS})
    return connection.execute(_ALL).all()


def _note(dialect: str) -> Insert:
    statement = insert_into(dialect, senders)
    changed = {"settings": statement.excluded.settings, "beat": statement.excluded.beat}
    done: Insert = statement.on_conflict_do_update(index_elements=[senders.c.name], set_=changed)
    return done


_HIGHEST = select(func.coalesce(func.max(senders.c.beat), 0))
_NOTE = {dialect: _note(dialect) for dialect in DIALECTS}
_FORGET = delete(senders).where(senders.c.beat < bindparam("before"))
_ALL = select(senders.c.name, senders.c.settings, senders.c.beat)
