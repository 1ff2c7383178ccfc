"""The schema's history, and bringing a database up to date.

Applied at every start, from inside the package, or by `orderbell migrate` if the service may not change
tables. Several senders may start at once: the caller holds a lock on the whole database (SQLite's IMMEDIATE
transaction, an advisory lock on PostgreSQL), and both databases can roll back a change of schema.
"""

from __future__ import annotations

from enum import Enum, auto
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from sender.database.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

VERSION_TABLE = "alembic_version"


class Standing(Enum):
    """How a database's schema compares with ours."""

    EMPTY = auto()  # nothing of ours is there
    BEHIND = auto()
    CURRENT = auto()
    NEWER = auto()  # from a later release; everything we need is there
    FOREIGN = auto()  # another program's


def look(connection: Connection, version: str | None) -> Standing:
    """`version` is the one in the version table; None without that table."""
    if version is None:
        return Standing.EMPTY
    known = [script.revision for script in _scripts().walk_revisions()]
    if version == known[0]:
        return Standing.CURRENT
    if version in known:
        return Standing.BEHIND
    return Standing.NEWER if _has_all(connection) else Standing.FOREIGN


def read_version(connection: Connection) -> str | None:
    """The version in the version table; empty if the table is not alembic's, None without one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT * FROM {VERSION_TABLE}")).all()
    return str(found[0][0]) if len(found) == 1 else ""


def newest_version() -> str:
    return str(_scripts().get_current_head())


def migrate(connection: Connection, schema: str | None = None) -> None:
    """Apply what is missing: on SQLite within the caller's transaction, on PostgreSQL each in its own."""
    command.upgrade(_config(connection=connection, schema=schema), "head")


def as_sql(dialect: str, *, after: str | None, schema: str | None) -> str:
    """What `migrate` would run on a database at that version."""
    output = StringIO()
    config = _config(dialect=dialect, schema=schema)
    config.output_buffer = output
    command.upgrade(config, f"{after or 'base'}:head", sql=True)
    return output.getvalue()


def _has_all(connection: Connection) -> bool:
    """Whether every column that we use exists."""
    inspector = inspect(connection)
    for table in metadata.tables.values():
        if not inspector.has_table(table.name):
            return False
        found = {column["name"] for column in inspector.get_columns(table.name)}
        if not found >= {column.name for column in table.columns}:
            return False
    return True


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config(**attributes: object) -> Config:
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
