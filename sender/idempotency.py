"""`Idempotency-Key`: a request that is sent again gets the answer that it got, or should have got, before.

The answer is stored in the transaction that has the effect: there is no moment at which one exists without
the other. Requests that fail store nothing and may be sent again as they are or corrected. A key means
something only together with the API key, the method and the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, insert, select

from sender.digest import digest
from sender.tables import idempotency
from shared.events import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

KEPT_HOURS = 48
MAX_KEY_LENGTH = 255


class InvalidKey(ValueError):
    """A key that is empty, too long or not printable."""


class KeyReused(ValueError):
    """A key that came before, with another body."""


class Answer(NamedTuple):
    """What a request is answered: status and JSON."""

    status: int
    body: bytes


class Outcome(NamedTuple):
    answer: Answer
    replayed: bool


class Claim(NamedTuple):
    """A request that says it may be a repetition."""

    scope: str
    body: str


def claim(api_key: str, method: str, path: str, key: str, body: bytes) -> Claim:
    """Raises `InvalidKey`."""
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise InvalidKey(f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters")
    return Claim(digest(*(part.encode() for part in (api_key, method, path, key))), digest(body))


def once(
    connection: Connection,
    claim: Claim | None,
    work: Callable[[Connection], Answer],
    *,
    now: datetime,
    keep: bool = True,
) -> Outcome:
    """The answer of before, or of the work. Raises `KeyReused` and what the work raises.

    Without `keep` only the claim is stored and a repetition runs the work anew: for work that reads.
    Two at the same time: on SQLite one follows the other, on PostgreSQL the second is refused when it
    stores its answer, and runs again.
    """
    if claim is None:
        return Outcome(work(connection), replayed=False)
    row = connection.execute(_FIND, {"scope": claim.scope}).one_or_none()
    if row is not None and row.body != claim.body:
        raise KeyReused("this Idempotency-Key came before with another body")
    if row is not None and row.status is not None:
        return Outcome(Answer(row.status, row.answer.encode()), replayed=True)
    answer = work(connection)
    if row is None:
        kept = {"status": answer.status, "answer": answer.body.decode()} if keep else {}
        connection.execute(_STORE, [{**claim._asdict(), "created_at": format_time(now), **kept}])
    return Outcome(answer, replayed=False)


_FIND = select(idempotency).where(idempotency.c.scope == bindparam("scope"))
_STORE = insert(idempotency)
