"""The schema's history, and bringing a database to its end.

Applied at every start, from inside the package. Several senders may start at once: the caller holds a lock
on the whole database (SQLite's IMMEDIATE transaction, an advisory lock on PostgreSQL), and both databases
can roll a change of schema back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

if TYPE_CHECKING:
    from sqlalchemy import Connection


def migrate(connection: Connection) -> None:
    """Apply what is missing, within the transaction that the caller has begun."""
    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
