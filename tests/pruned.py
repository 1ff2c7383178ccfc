"""A history that has lost its first events, as `sender/retention.py` prunes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sender import pruning

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def prune_events(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete some of the first events that were recorded before that moment; the number deleted."""
    window = pruning.look(connection, after=0, before=before, now=before, limit=limit)
    return pruning.delete_events(connection, pruning.take(window.old, limit), last=window.last)
