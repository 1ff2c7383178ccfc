"""`Idempotency-Key`: a request that is sent again gets the answer that it got, or should have got, before.

The answer is stored in the transaction that has the effect, so neither ever exists without the other.
Requests that fail store nothing and may be sent again, unchanged or corrected. A key is valid for one API
key, method and path.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from sqlalchemy import select

from sender.database.rows import insert_rows, is_among
from sender.database.tables import DIALECTS, idempotency
from sender.digest import digest
from shared.errors import CallerError
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

T = TypeVar("T")
R = TypeVar("R")

KEPT_HOURS = 48
MAX_KEY_LENGTH = 255


class InvalidKey(CallerError):
    """A key that is empty, too long or not printable."""


class KeyReused(CallerError):
    """A key that was used before, with another body."""


class Answer(NamedTuple):
    """The answer to a request: status and JSON."""

    status: int
    body: bytes


class Answered(NamedTuple, Generic[R]):
    """The answer, and the work's result; None if the answer is a stored one."""

    answer: Answer
    result: R | None

    @property
    def replayed(self) -> bool:
        return self.result is None


class Claim(NamedTuple):
    """What identifies a request that may be a repetition."""

    scope: str
    body: str  # digest of its bytes
    content: str  # digest of their content, independent of spacing and order


class Asked(NamedTuple, Generic[T]):
    """A request: its item, and its claim if it has a key."""

    item: T
    claim: Claim | None
    now: datetime


def claim(api_key: str, method: str, path: str, key: str, body: bytes, content: bytes) -> Claim:
    """`content`: the same bytes for all bodies of equal content. Raises `InvalidKey`."""
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise InvalidKey(f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters")
    scope = digest(*(part.encode() for part in (api_key, method, path, key)))
    return Claim(scope, digest(body), digest(content))


def once(
    connection: Connection,
    claim: Claim | None,
    work: Callable[[Connection], Answer],
    *,
    now: datetime,
    keep: bool = True,
) -> Answered[Answer]:
    """The stored answer, or that of the work. Raises `KeyReused` and what the work raises.

    Without `keep` only the claim is stored, and a repetition runs the work again: for work that only reads.
    Two at the same time: on SQLite they run one after the other; on PostgreSQL the second is refused when
    it stores its answer, and runs again.
    """
    known = _known(connection, [claim])
    before = _before(claim, known)
    if isinstance(before, KeyReused):
        raise before
    if before is not None:
        return before
    answer = work(connection)
    if claim is not None and claim.scope not in known:
        _store(connection, [_row(claim, answer if keep else None, now)])
    return Answered(answer, answer)


def once_all(
    connection: Connection,
    asked: Sequence[Asked[T]],
    work: Callable[[Connection, Sequence[T]], Sequence[R | Exception]],
    answer: Callable[[R], Answer],
) -> list[Answered[R] | Exception]:
    """`once` for many; errors are returned, not raised. The work takes all new items together."""
    known = _known(connection, [one.claim for one in asked])
    outcomes: dict[int, Answered[R] | Exception] = {
        number: before for number, one in enumerate(asked) if (before := _before(one.claim, known))
    }
    left = [number for number in range(len(asked)) if number not in outcomes]
    while left:
        first: dict[str | int, int] = {}  # with each key; a request without a key is its own
        for number in left:
            first.setdefault(_key(asked, number), number)
        outcomes |= _run(connection, {number: asked[number] for number in first.values()}, work, answer)
        for number in left:
            if number not in outcomes:
                one = first[_key(asked, number)]
                outcome = _repeated(asked[number].claim, asked[one].claim, outcomes[one])
                if outcome is not None:
                    outcomes[number] = outcome
        left = [number for number in left if number not in outcomes]
    return [outcomes[number] for number in range(len(asked))]


def _key(asked: Sequence[Asked[T]], number: int) -> str | int:
    claim = asked[number].claim
    return number if claim is None else claim.scope


def _repeated(
    claim: Claim | None, first: Claim | None, outcome: Answered[R] | Exception
) -> Answered[R] | Exception | None:
    """The outcome of a repetition of what was just done; None if it corrects a request that failed."""
    assert claim is not None
    assert first is not None
    same = claim.body == first.body or claim.content == first.content
    if isinstance(outcome, Exception):
        return outcome if same else None
    return Answered(outcome.answer, None) if same else _reused()


def _run(
    connection: Connection,
    asked: Mapping[int, Asked[T]],
    work: Callable[[Connection, Sequence[T]], Sequence[R | Exception]],
    answer: Callable[[R], Answer],
) -> dict[int, Answered[R] | Exception]:
    if not asked:
        return {}
    results = work(connection, [one.item for one in asked.values()])
    outcomes = {
        number: result if isinstance(result, Exception) else Answered(answer(result), result)
        for number, result in zip(asked, results, strict=True)
    }
    kept = [
        _row(one.claim, outcome.answer, one.now)
        for one, outcome in zip(asked.values(), outcomes.values(), strict=True)
        if one.claim is not None and isinstance(outcome, Answered)
    ]
    _store(connection, kept)
    return outcomes


def _known(connection: Connection, claims: Iterable[Claim | None]) -> dict[str, Row[Any]]:
    scopes = [claim.scope for claim in claims if claim is not None]
    if not scopes:
        return {}
    rows = connection.execute(_FIND[connection.dialect.name], {"scopes": scopes})
    return {row.scope: row for row in rows}


def _before(claim: Claim | None, known: Mapping[str, Row[Any]]) -> Answered[Any] | KeyReused | None:
    """The outcome of the same request before; None if there was none, or its answer was not kept."""
    row = known.get(claim.scope) if claim is not None else None
    if claim is None or row is None:
        return None
    # Rows from before the column `content` existed have only the body's digest.
    if row.body != claim.body and row.content != claim.content:
        return _reused()
    return Answered(Answer(row.status, row.answer.encode()), None) if row.status is not None else None


def _reused() -> KeyReused:
    return KeyReused("this Idempotency-Key was used before with another body")


def _row(claim: Claim, answer: Answer | None, now: datetime) -> dict[str, Any]:
    kept = {"status": answer.status, "answer": answer.body.decode()} if answer is not None else {}
    return {**claim._asdict(), "created_at": format_time(now), **kept}


def _store(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    # Sorted by scope, so that two batches of the same requests wait for each other instead of deadlocking.
    insert_rows(connection, idempotency, sorted(rows, key=itemgetter("scope")))


_FIND = {
    dialect: select(idempotency).where(is_among(dialect, idempotency.c.scope, "scopes"))
    for dialect in DIALECTS
}
