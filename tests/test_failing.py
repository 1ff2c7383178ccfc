"""A failure in one connection ends that one alone."""

from __future__ import annotations

import pytest

from receiver.connections.connection import End
from receiver.connections.failing import end_failed, end_one
from tests.connections import Handed

pytestmark = pytest.mark.anyio


class Endless(Handed):
    """A connection that cannot be ended cleanly."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = False

    def end(self, end: End, reason: str) -> None:
        raise RuntimeError("it will not")

    def drop(self) -> None:
        self.dropped = True


async def test_connection_that_failed_ends_as_an_internal_error() -> None:
    connection = Handed()
    try:
        raise RuntimeError("a defect")
    except RuntimeError:
        end_failed(connection, "something failed")
    assert connection.ends == [End.INTERNAL_ERROR]


async def test_connection_that_cannot_be_ended_in_order_is_dropped_and_the_next_is_still_ended() -> None:
    connections = [Endless(), Handed()]
    for connection in connections:
        end_one(connection, End.UNAUTHENTICATED, "revoked")
    assert connections[0].dropped  # type: ignore[attr-defined]
    assert connections[1].ends == [End.UNAUTHENTICATED]
