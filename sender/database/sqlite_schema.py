"""Our schema in SQLite's file: checking that the file is ours and usable, and bringing it up to date."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError

from sender.database import migrations
from sender.database.errors import DatabaseUnusable
from sender.database.migrations import Standing
from sender.database.sqlite_connect import check_pragmas, driver_of, engine_of, pragma
from sender.database.sqlite_errors import explain_start

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SPARE_BYTES = 2**26  # of the disk, beside what rewriting a file needs
_LOGGED_BYTES = 2**26  # rewriting a larger file is logged
_REWRITTEN_BYTES = 2**31  # at a start: larger ones would take minutes
INCREMENTAL = 2  # the mode of auto_vacuum in which we return pages when it suits us

logger = structlog.get_logger(__name__)


def prepare(path: str, *, busy_seconds: float) -> None:
    """Create the file and the schema, and check that SQLite can keep what we promise."""
    engine = engine_of(path, begin="BEGIN IMMEDIATE", busy_seconds=busy_seconds)
    try:
        with engine.connect() as connection:
            check_pragmas(connection)
            with connection.begin():
                _bring_up_to_date(connection, path)
            _let_it_shrink(connection, path)
    except (DBAPIError, sqlite3.Error) as error:
        raise explain_start(error, path) from error
    finally:
        engine.dispose()


def _let_it_shrink(connection: Connection, path: str) -> None:
    """Files of earlier versions or other programs: their mode changes only if all pages are rewritten."""
    driver = driver_of(connection)
    if pragma(driver, "auto_vacuum") == INCREMENTAL:
        return
    size, began = os.stat(path).st_size, perf_counter()
    if size > _REWRITTEN_BYTES:
        logger.warning(
            "the database file cannot shrink; to let it, stop the sender and run in sqlite3:"
            " PRAGMA auto_vacuum = 2; VACUUM;",
            bytes=size,
        )
        return
    if shutil.disk_usage(Path(path).absolute().parent).free < 2 * size + _SPARE_BYTES:
        logger.warning("too little disk space to rewrite the database file: it cannot shrink", bytes=size)
        return
    if size > _LOGGED_BYTES:
        logger.info("the database file is rewritten once, so that it can shrink", bytes=size)
    driver.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
    try:
        driver.execute("VACUUM")
    except sqlite3.OperationalError as error:  # for example a backup reads it; the next start tries again
        logger.warning("the database file could not be rewritten: it cannot shrink", reason=str(error))
        return
    if size > _LOGGED_BYTES:
        logger.info("the database file was rewritten", seconds=round(perf_counter() - began, 1))


def _bring_up_to_date(connection: Connection, path: str) -> None:
    version = migrations.read_version(connection)
    standing = migrations.look(connection, version)
    newest = migrations.newest_version()
    if standing is Standing.EMPTY and (others := inspect(connection).get_table_names()):
        raise DatabaseUnusable(f"{path} is another program's database: it has the table {others[0]}")
    if standing in (Standing.EMPTY, Standing.BEHIND):
        migrations.migrate(connection)
    elif standing is Standing.NEWER:
        logger.warning(
            "the database's schema is from a later release, and has all that this one needs",
            found=version,
            ours=newest,
        )
    elif standing is Standing.FOREIGN:
        raise DatabaseUnusable(
            f"{path} is at version {version!r}, which this release (up to {newest}) does not know, and lacks "
            "tables or columns that it needs: it belongs to another program, or to a much later release"
        )
