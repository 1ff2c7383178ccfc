"""What PostgreSQL's errors mean: which end one or all connections, which are retried, whose fault they are.

| SQLSTATE | connections | tried again |
| --- | --- | --- |
| 25006, 57P01, 57P02, 57P03, 08xxx, the network's | all are dropped: the server is away or a standby | yes |
| 25P03, 25P04, 57P05, XX000 "cache lookup failed", 0A000 "cached plan" | this one is dropped | yes |
| 26000, 42P05 | this one, and prepared statements are given up: a pooler is between us | yes |
| 40001, 40P01, 23505 | kept | yes: another transaction came first |
| 55P03 | kept | by the caller that needs the row |
| 57014, 53xxx | kept | by the caller |

The code is often missing: a connection that was killed while it was idle gives an `InterfaceError` without
one, a refused one an `OSError`, a command without an answer the builtin `TimeoutError`, a plan whose types
changed a `BufferError`. A commit that failed this way may have happened; our writes are idempotent, and
their callers repeat them. Everything else is a defect of ours, or our tables were changed: it is logged, and
no process ends because of it.
"""

from __future__ import annotations

from enum import Enum, auto

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# What work on PostgreSQL raises when it is not the caller's fault.
ERRORS = (
    DBAPIError,
    PoolTimeout,
    OSError,
    TimeoutError,
    BufferError,
    asyncpg.InterfaceError,
    asyncpg.PostgresError,
)


class Meaning(Enum):
    SERVER_GONE = auto()  # all connections lead to a server that is away, or no longer takes writes
    CONNECTION_SPOILT = auto()  # only this one
    UNPREPARED = auto()  # the same, and a pooler shares servers' sessions
    OVERTAKEN = auto()  # by another transaction
    HELD = auto()  # a row is locked for too long
    FULL = auto()
    BUSY = auto()
    REFUSED = auto()  # no such database, wrong password, no right
    UNEXPECTED = auto()


_CODES = {
    "25006": Meaning.SERVER_GONE,  # read-only: it was a primary
    "57P01": Meaning.SERVER_GONE,
    "57P02": Meaning.SERVER_GONE,
    "57P03": Meaning.SERVER_GONE,
    "25P03": Meaning.CONNECTION_SPOILT,  # idle in a transaction
    "25P04": Meaning.CONNECTION_SPOILT,  # a transaction's time limit, from PostgreSQL 17 on
    "57P05": Meaning.CONNECTION_SPOILT,
    "26000": Meaning.UNPREPARED,
    "42P05": Meaning.UNPREPARED,
    "40001": Meaning.OVERTAKEN,
    "40P01": Meaning.OVERTAKEN,
    "23505": Meaning.OVERTAKEN,
    "55P03": Meaning.HELD,
    "53100": Meaning.FULL,
    "57014": Meaning.BUSY,
    "53000": Meaning.BUSY,
    "53200": Meaning.BUSY,
    "53300": Meaning.BUSY,
    "53400": Meaning.BUSY,
    "3D000": Meaning.REFUSED,
    "42501": Meaning.REFUSED,
}
_CLASSES = {"08": Meaning.SERVER_GONE, "28": Meaning.REFUSED}


def meaning(error: BaseException) -> Meaning:
    original = error.orig if isinstance(error, DBAPIError) else error
    code = code_of(error)
    if code in _CODES:
        return _CODES[code]
    if code[:2] in _CLASSES:
        return _CLASSES[code[:2]]
    if code == "0A000" and "cached" in str(original):
        return Meaning.CONNECTION_SPOILT
    if code == "XX000" and "cache lookup failed" in str(original):
        return Meaning.CONNECTION_SPOILT
    if isinstance(error, PoolTimeout):
        return Meaning.BUSY
    if code:
        return Meaning.UNEXPECTED
    if isinstance(original, OSError | TimeoutError):
        return Meaning.SERVER_GONE
    if "closed" in str(original) or "released" in str(original):
        return Meaning.SERVER_GONE
    if isinstance(original, BufferError) or isinstance(error, DBAPIError | asyncpg.InterfaceError):
        return Meaning.CONNECTION_SPOILT
    return Meaning.UNEXPECTED


def code_of(error: BaseException) -> str:
    """The SQLSTATE, or an empty text."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(original, "sqlstate", None) or "")


def line_of(error: BaseException) -> str:
    """Its message, in one line and without the data that was to be stored."""
    original = error.orig if isinstance(error, DBAPIError) else error
    text = str(original) or type(original).__name__
    return (
        " ".join(text.split("\n", 1)[0].split())
        .removeprefix("<class 'asyncpg.exceptions.")
        .replace("'>:", ":")
    )
