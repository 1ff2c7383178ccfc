"""What SQLite's errors mean: for callers, and for the operator at start."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from sender.database.errors import (
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
    DatabaseUnusable,
)


def explain(error: BaseException) -> Exception:
    """The error for the caller; one that is not the database's stays as it is."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, sqlite3.OperationalError | sqlite3.DatabaseError):
        return error if isinstance(error, Exception) else DatabaseError(str(error))
    if isinstance(original, sqlite3.IntegrityError):
        return error if isinstance(error, Exception) else original
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # the lower byte is the kind
    if code == sqlite3.SQLITE_FULL:
        return DatabaseFull("the disk is full")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseUnavailable("another process keeps the database locked")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return DatabaseDamaged(f"the file is damaged ({original}); restore a backup")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return DatabaseUnavailable(str(original))
    return error if isinstance(error, Exception) else original


def explain_start(error: DBAPIError | sqlite3.Error, path: str) -> Exception:
    """What is wrong with the file, for the operator."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    directory = Path(path).absolute().parent
    if code == sqlite3.SQLITE_NOTADB:
        return DatabaseUnusable(f"{path} is not a SQLite database")
    if code == sqlite3.SQLITE_CANTOPEN and not directory.is_dir():
        return DatabaseUnusable(f"unable to open database file {path}: there is no directory {directory}")
    if code == sqlite3.SQLITE_CANTOPEN and Path(path).is_dir():
        return DatabaseUnusable(f"unable to open database file {path}: it is a directory")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return DatabaseUnusable(
            f"unable to open database file {path} for writing ({original}): "
            "it and its directory must be writable for this user"
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return DatabaseUnusable(f"{path} is damaged ({original}); restore a backup")
    return explain(error)
