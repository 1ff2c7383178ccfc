"""Revocations: tokens that must no longer be accepted, though they have not expired.

A revocation names a token by its id (`jti`), or a customer and a time: all of the customer's tokens that were
issued before it. Gateways read the whole list when they start, then several times a second what is new, by
position; so it reaches them even while Redis is away. A revocation is kept until the tokens it covers must
have expired.

Positions must become visible in order, or a gateway that has read a later one would never see an earlier one.
So every write of a revocation first locks the one row of `generation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select

from sender.database.tables import generation, revocations
from shared.errors import CallerError
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

MAX_JTI = 256  # characters
PAGE = 1_000
AHEAD_SECONDS = 300.0  # that a caller's clock may be ahead of ours
_TOKEN, _CUSTOMER = "token", "customer"


class InvalidRevocation(CallerError):
    """Raised for a revocation that no token could match, or that would match future tokens."""


class Revocation(NamedTuple):
    position: int
    jti: str | None
    customer_id: str | None
    issued_before: float | None  # seconds since 1970; of a customer
    kept_until: float  # seconds since 1970


class Page(NamedTuple):
    revocations: Sequence[Revocation]
    newest: int  # position of the newest of all that are kept


def revoke_token(connection: Connection, jti: str, *, now: datetime, kept_until: float) -> Revocation:
    """Repeating is harmless."""
    return _add(connection, _TOKEN, jti, None, now=now, kept_until=kept_until)


def revoke_customer(
    connection: Connection, customer_id: str, *, issued_before: float, now: datetime, kept_until: float
) -> Revocation:
    """The customer's tokens issued before that time. An earlier revocation with a later time stands.

    Raises `InvalidRevocation`.
    """
    if issued_before > now.timestamp() + AHEAD_SECONDS:
        raise InvalidRevocation("issued_before is in the future: it would refuse tokens still to be issued")
    return _add(connection, _CUSTOMER, customer_id, issued_before, now=now, kept_until=kept_until)


def _add(
    connection: Connection,
    kind: str,
    name: str,
    issued_before: float | None,
    *,
    now: datetime,
    kept_until: float,
) -> Revocation:
    connection.execute(_LOCK)
    # Not the database's own numbering: SQLite's would give the place of a newest row that was replaced again.
    position = (connection.execute(_NEWEST).scalar_one() or 0) + 1
    named = {"of_kind": kind, "of_name": name}
    if (known := connection.execute(_FIND, named).one_or_none()) is not None:
        issued_before = max(issued_before, known.issued_before) if issued_before is not None else None
        kept_until = max(kept_until, known.kept_until)
        connection.execute(_REMOVE, named)  # the new one has a new position, so that gateways read it
    connection.execute(
        _INSERT,
        {
            "position": position,
            "kind": kind,
            "name": name,
            "issued_before": issued_before,
            "revoked_at": format_time(now),
            "kept_until": kept_until,
        },
    )
    return _revocation(position, kind, name, issued_before, kept_until)


def read(connection: Connection, *, after: int, now: datetime, limit: int = PAGE) -> Page:
    """Those after a position, in order."""
    newest = connection.execute(_NEWEST).scalar_one() or 0
    rows = connection.execute(_READ, {"after": after, "now": now.timestamp(), "some": limit})
    return Page([_revocation(*row) for row in rows], newest)


def prune(connection: Connection, *, now: datetime, limit: int) -> int:
    """Delete those whose tokens have expired; returns how many. The newest stays: positions go on from it."""
    return connection.execute(_PRUNE, {"now": now.timestamp(), "some": limit}).rowcount


def _revocation(
    position: int, kind: str, name: str, issued_before: float | None, kept_until: float
) -> Revocation:
    of_token = kind == _TOKEN
    return Revocation(
        position, name if of_token else None, None if of_token else name, issued_before, kept_until
    )


_COLUMNS = (
    revocations.c.position,
    revocations.c.kind,
    revocations.c.name,
    revocations.c.issued_before,
    revocations.c.kept_until,
)
_NAMED = (revocations.c.kind == bindparam("of_kind")) & (revocations.c.name == bindparam("of_name"))
_LOCK = select(generation.c.epoch).with_for_update()
_FIND = select(revocations.c.issued_before, revocations.c.kept_until).where(_NAMED)
_REMOVE = delete(revocations).where(_NAMED)
_INSERT = insert(revocations)
_NEWEST = select(func.max(revocations.c.position))
_READ = (
    select(*_COLUMNS)
    .where(revocations.c.position > bindparam("after"), revocations.c.kept_until > bindparam("now"))
    .order_by(revocations.c.position)
    .limit(bindparam("some"))
)
_ENDED = (
    select(revocations.c.position)
    .where(
        revocations.c.kept_until <= bindparam("now"),
        revocations.c.position < select(func.max(revocations.c.position)).scalar_subquery(),
    )
    .order_by(revocations.c.kept_until)
    .limit(bindparam("some"))
)
_PRUNE = delete(revocations).where(revocations.c.position.in_(_ENDED))
