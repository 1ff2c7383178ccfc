"""The database, where its URL is given: whether it can be reached, and written to. It is left as it is."""

from __future__ import annotations

import contextlib
import sqlite3
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.commands.doctor.findings import Finding, fail, ok
from shared.reasons import reason_of
from shared.redis.url import shown

if TYPE_CHECKING:
    import asyncpg

SECONDS = 5
_FIX = "ORDERBELL_DATABASE_URL: the database of the sender"


async def look(url: str) -> list[Finding]:
    scheme, _, path = url.partition(":///")
    return [_sqlite(path) if scheme.startswith("sqlite") else await _postgres(url)]


def _sqlite(path: str) -> Finding:
    if not Path(path).exists():
        if Path(path).absolute().parent.is_dir():
            return ok("database", f"{path} is not there yet; the sender makes it")
        return fail(
            "database", f"{path}: there is no such directory", "ORDERBELL_DATABASE_URL: sqlite:///<file>"
        )
    try:
        # Not made here, and the lock is given back at once.
        with contextlib.closing(
            sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)
        ) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE orderbell_doctor (x)")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        if "readonly" in str(error):
            fix = "let the sender's user write the file and its directory"
            return fail("database", f"{path} is read-only: no order can be stored", fix)
        if "locked" in str(error):
            return ok("database", f"{path} is in use")
        return fail("database", f"{path}: {error}", _FIX)
    return ok("database", f"{path} can be written to")


async def _postgres(url: str) -> Finding:
    import asyncpg

    where = shown(url).partition("://")[2]
    dsn = url.replace("postgresql+asyncpg://", "postgresql://", 1)
    try:
        connection = await asyncpg.connect(
            dsn, timeout=SECONDS, command_timeout=SECONDS, statement_cache_size=0
        )
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _unreachable(url, where, error)
    try:
        return await _writable(connection, where)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return fail("database", f"{where}: {reason_of(error)}", _FIX)
    finally:
        connection.terminate()


async def _writable(connection: asyncpg.Connection, where: str) -> Finding:
    standby, read_only = await connection.fetchrow(
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
    )
    if standby:
        fix = "ORDERBELL_DATABASE_URL: the primary; with several hosts, ?target_session_attrs=read-write"
        return fail("database", f"{where} is a standby, and read-only: no order can be stored", fix)
    if read_only:
        fix = "ALTER DATABASE … RESET default_transaction_read_only, or that of the role"
        return fail("database", f"{where} is read-only: no order can be stored", fix)
    return ok("database", f"{where} can be written to")


def _unreachable(url: str, where: str, error: Exception) -> Finding:
    text = reason_of(error)
    if "database" in text and "does not exist" in text:
        return fail(
            "database", f"{where}: {text}", "CREATE DATABASE, or another name in ORDERBELL_DATABASE_URL"
        )
    asks_for_tls = "sslmode=" in urlsplit(url).query or "ssl=" in urlsplit(url).query
    if isinstance(error, ssl.SSLError) or "SSL" in text or "ssl" in text or "encryption" in text:
        fix = (
            "the server has no TLS, or no certificate that we trust: drop sslmode, or set sslrootcert"
            if asks_for_tls
            else "the server wants TLS: add ?sslmode=require to ORDERBELL_DATABASE_URL"
        )
        return fail("database", f"{where}: {text}", fix)
    return fail("database", f"{where}: {text}", _FIX)
