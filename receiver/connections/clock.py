"""One clock for all connections: heartbeats, expired tokens, and what some connections check each second.

Connections are spread over as many slots as the heartbeat has seconds, and each second one slot is
looked at: so all of them cost one timer, and 10,000 pings never leave in the same moment.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from typing import TYPE_CHECKING

from receiver import metrics
from receiver.connections.connection import End
from receiver.connections.failing import end_failed
from receiver.connections.notices import Bye

if TYPE_CHECKING:
    from receiver.connections.connection import Connection

_FAILED = "a connection's heartbeat failed"
_AGES = 1_009  # a prime, so that evenly spaced addresses spread over all ages
_MAX_RETRY_MS = 2_000  # clients that are sent away spread their return over it


class Clock:
    def __init__(
        self, heartbeat_seconds: float, *, tick_seconds: float = 1.0, max_age_seconds: float = math.inf
    ) -> None:
        """`max_age_seconds`: how long a connection may last, give or take a tenth, so that connections that
        came together don't leave together.
        """
        self._max_age = max_age_seconds
        slots = max(1, round(heartbeat_seconds / tick_seconds))
        self._slots: list[set[Connection]] = [set() for _ in range(slots)]
        self._next_slot = itertools.cycle(range(slots))
        self._tick_seconds = tick_seconds
        self._attended: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.count = 0  # connections
        self.ticks = 0  # seconds that have passed

    @property
    def connections(self) -> list[Connection]:
        return [connection for slot in self._slots for connection in slot]

    def add(self, connection: Connection) -> None:
        min(self._slots, key=len).add(connection)
        self.count += 1
        self._empty.clear()

    def attend(self, connection: Connection) -> None:
        """Call the connection's `look` each second from now on, until that returns False."""
        self._attended.add(connection)

    def discard(self, connection: Connection) -> None:
        """A connection is gone. Must be called once for each that was added."""
        for slot in self._slots:
            slot.discard(connection)
        self._attended.discard(connection)
        self.count -= 1
        if not self.count:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until all connections are gone."""
        await self._empty.wait()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._tick_seconds
            await asyncio.sleep(self._tick_seconds)
            now = loop.time()
            metrics.loop_lag.observe(max(0.0, now - due))
            self.tick(now, time.time())
            # A connection for which something waits is attended.
            metrics.note_second(sum(connection.waiting_bytes for connection in self._attended))

    def tick(self, now: float, wall_clock: float) -> None:
        """One second has passed: `now` on the loop's clock, `wall_clock` since 1970."""
        self.ticks += 1
        self._beat(self._slots[next(self._next_slot)], now, wall_clock)
        for connection in list(self._attended):
            try:
                attends = connection.look(now)
            except Exception:  # of one connection: all others share the clock
                end_failed(connection, _FAILED)
                attends = False
            if not attends:
                self._attended.discard(connection)

    def _max_age_of(self, connection: Connection) -> float:
        """A connection's own maximum: its address in memory is as good as a random number, and stays the
        same.
        """
        return self._max_age * (0.9 + 0.2 * (id(connection) // 16 % _AGES) / _AGES)

    def _beat(self, slot: set[Connection], now: float, wall_clock: float) -> None:
        for connection in list(slot):
            try:
                if connection.identity is not None and connection.identity.expires_at < wall_clock:
                    connection.end(End.UNAUTHENTICATED, "the token has expired")
                elif now - connection.opened_at > self._max_age_of(connection):
                    connection.notify(Bye(random.randint(0, _MAX_RETRY_MS)))
                    connection.end(End.RESTART, "open for long, come back")
                connection.beat(now)
            except Exception:  # of one connection: all others share the clock
                end_failed(connection, _FAILED)
