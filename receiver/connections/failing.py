"""A failure in one connection ends that connection alone, although its caller serves many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from receiver.connections.connection import End

if TYPE_CHECKING:
    from receiver.connections.connection import Connection

logger = structlog.get_logger(__name__)


def end_failed(connection: Connection, event: str) -> None:
    """Call this in an `except` block; its error is logged. The client comes back with its cursor."""
    logger.exception(event, transport=connection.transport)
    end_one(connection, End.INTERNAL_ERROR, "internal error")


def end_one(connection: Connection, end: End, reason: str) -> None:
    """End one of many connections: the others must be ended even if this one can't be ended cleanly."""
    try:
        connection.end(end, reason)
    except Exception:  # of one connection: the caller has others to serve
        logger.exception("a connection could not be ended", transport=connection.transport)
        connection.drop()
