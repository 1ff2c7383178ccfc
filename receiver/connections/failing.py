"""A failure in one connection ends that connection alone, although its caller serves many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from receiver.connections.connection import End

if TYPE_CHECKING:
    from receiver.connections.connection import Connection

logger = structlog.get_logger(__name__)


def end_failed(connection: Connection, event: str) -> None:
    """To be called in an `except`, whose error is logged. The client comes back with its cursor."""
    logger.exception(event, transport=connection.transport)
    end_one(connection, End.INTERNAL_ERROR, "internal error")


def end_one(connection: Connection, end: End, reason: str) -> None:
    """End one of many: the others must not be left out because this one can't be ended in order."""
    try:
        connection.end(end, reason)
    except Exception:  # of one connection: what ends it has others to attend to
        logger.exception("a connection could not be ended", transport=connection.transport)
        connection.drop()
