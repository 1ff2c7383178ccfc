"""The database, if its URL is given: whether it can be reached and written to. It is left unchanged."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

from shared.commands.doctor.findings import Finding, fail, ok, warn
from shared.database_url import PostgresUrl, parse_database_url

SECONDS = 5
_FIX = "ORDERBELL_DATABASE_URL: the database of the sender"
_LOST = "move the file back; or restart the sender, which then begins with an empty database"
_READ_ONLY = (
    "ORDERBELL_DATABASE_URL: with the primary among its hosts; or reset default_transaction_read_only"
)


async def look(url: str) -> list[Finding]:
    parsed = parse_database_url(url)
    return [await _postgres(parsed) if isinstance(parsed, PostgresUrl) else _sqlite(parsed.path)]


def lost(url: str) -> Finding:
    """The sender has reported that its file was removed or replaced."""
    name = url.rpartition("@")[2]
    return fail("database", f"{name} is not the file that the running sender has opened", _LOST)


def _sqlite(path: str) -> Finding:
    # As the sender looks: commands stand above both services.
    from sender.database.errors import DatabaseError
    from sender.database.sqlite import check_room

    if not Path(path).exists():
        if Path(path).absolute().parent.is_dir():
            return ok("database", f"{path} does not exist yet; the sender creates it")
        return fail("database", f"{path}: no such directory", "ORDERBELL_DATABASE_URL: sqlite:///<file>")
    try:
        # Never created here, and the lock is released at once.
        with contextlib.closing(
            sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, timeout=SECONDS)
        ) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE orderbell_doctor (x)")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        if "readonly" in str(error):
            fix = "let the sender's user write the file and its directory"
            return fail("database", f"{path} is read-only: no order can be stored", fix)
        if "locked" in str(error):
            return warn("database", f"{path}: another process has kept it locked for {SECONDS} s")
        return fail("database", f"{path}: {error}", _FIX)
    try:
        check_room(path)
    except DatabaseError as error:
        return fail("database", f"{path} takes no writes: {error}", "free or add space on its disk")
    return ok("database", f"{path} can be written to")


async def _postgres(url: PostgresUrl) -> Finding:
    # As the sender connects: commands stand above both services.
    from sender.database.errors import DatabaseUnavailable, DatabaseUnusable
    from sender.database.postgres_connect import Connector

    try:
        connector = Connector(
            url, schema="public", connect_seconds=SECONDS, command_seconds=SECONDS, idle_seconds=SECONDS
        )
        session = await connector.connect()
    except (DatabaseUnavailable, DatabaseUnusable) as error:
        # asyncpg's words for it, which differ by loop
        says = re.sub(r"\[Errno 111\] [^;]*", "nothing listens there (connection refused)", str(error))
        return fail("database", says, _fix_for(url, says))
    session.terminate()
    return ok("database", f"{str(url).rpartition('@')[2]} can be written to")


def _fix_for(url: PostgresUrl, text: str) -> str:
    if "takes no writes" in text:
        return _READ_ONLY
    if "does not exist" in text and "database" in text:
        return "CREATE DATABASE, or another name in ORDERBELL_DATABASE_URL"
    if "password" in text or "role" in text:
        return "ORDERBELL_DATABASE_URL: its user and password"
    if not any(word in text for word in ("SSL", "ssl", "TLS", "certificate", "encryption")):
        return _FIX
    if url.tls_mode in (None, "disable", "allow", "prefer"):
        return "the server requires TLS: add ?sslmode=require to ORDERBELL_DATABASE_URL"
    return "the server has no TLS, or its certificate is not trusted: drop sslmode, or set sslrootcert"
