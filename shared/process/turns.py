"""How many requests begin in one turn of the loop; the others wait for later turns, in their order.

Answering a request takes a fraction of a millisecond. When hundreds come at once, the loop would work through
all of them before it looks at its other sockets again: events of Redis, and clients that wait for them, would
wait as long. So each turn begins a few, and between two turns the loop looks at everything. Some requests
take milliseconds, such as those with a token of 99 topics: after a long turn, the next one begins a single
request.

If a client has left by the time its turn comes, those behind it are about to leave, too: served in their
order, each would be given up just before its answer. So from then on the newest request comes first, until no
request waits any more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

import structlog

logger = structlog.get_logger(__name__)


class Queued(Protocol):
    """A connection whose request may have to wait for its turn."""

    @property
    def ended(self) -> bool:
        """Its client has left, or was answered."""

    def go_on(self) -> None:
        """Its turn has come."""

    def abort(self) -> None:
        """It has failed."""


class Turns:
    """Belongs to the loop in which it is first asked."""

    def __init__(self, per_turn: int, *, long_seconds: float) -> None:
        """A turn is long if it takes more than `long_seconds`."""
        self._per_turn = self._left = per_turn
        self._long_seconds = long_seconds
        self._since = 0.0  # when the turn's first request came
        self._waiting: deque[Queued] = deque()
        self._due = False
        self._newest_first = False

    def take(self, connection: Queued) -> bool:
        """Whether it may begin a request now; otherwise its `go_on` is called in a later turn."""
        if not self._due:
            self._due = True
            self._since = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._next)
        if not self._left:
            self._waiting.append(connection)
            return False
        self._left -= 1
        return True

    def _next(self) -> None:
        """A turn has begun: those that wait come before those that come now."""
        self._due = False
        # By now, what the last turn's requests started has run, too.
        is_long = time.perf_counter() - self._since > self._long_seconds
        self._left = 1 if is_long else self._per_turn
        while self._left and self._waiting:
            connection = self._waiting.pop() if self._newest_first else self._waiting.popleft()
            if connection.ended:
                self._newest_first = True
                continue
            try:
                connection.go_on()
            except Exception:  # of one connection: the others wait in the same queue
                logger.exception("a request could not be begun")
                connection.abort()
        while self._waiting and self._waiting[0].ended:
            self._waiting.popleft()
        if not self._waiting:
            self._newest_first = False
