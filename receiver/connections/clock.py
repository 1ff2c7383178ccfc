"""One clock for all connections: heartbeats, browsers that stall, browsers that don't say goodbye.

Connections are spread over as many slots as the heartbeat has seconds, and each second one slot is
looked at: so all of them cost one timer, and 10,000 pings never leave in the same moment. A connection
that sent no byte since its last ping is dead: a silent peer is dropped within two heartbeats.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

from receiver import metrics
from receiver.feeds.hub import Close
from receiver.transports.websocket.connection import FRAMES_PER_HEARTBEAT, LINGER_SECONDS, MAX_STALL_SECONDS

if TYPE_CHECKING:
    from receiver.transports.websocket.connection import Connection

TICK_SECONDS = 1.0


class Heartbeat:
    def __init__(self, heartbeat_seconds: float) -> None:
        slots = max(1, round(heartbeat_seconds / TICK_SECONDS))
        self._slots: list[set[Connection]] = [set() for _ in range(slots)]
        self._next_slot = itertools.cycle(range(slots))
        self.count = 0  # connections
        self._stalled: set[Connection] = set()
        self._closing: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, connection: Connection) -> None:
        min(self._slots, key=len).add(connection)
        self.count += 1
        self._empty.clear()

    def discard(self, connection: Connection) -> None:
        """A connection is lost; once for each that was added."""
        for slot in self._slots:
            slot.discard(connection)
        self._stalled.discard(connection)
        self._closing.discard(connection)
        self.count -= 1
        if not self.count:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Until all have ended; each does within `LINGER_SECONDS` of its close frame."""
        await self._empty.wait()

    def stalled(self, connection: Connection) -> None:
        """Something waits for its browser to read: look at it each second until nothing does."""
        self._stalled.add(connection)

    def closing(self, connection: Connection) -> None:
        """Its close frame is sent: end it soon, whether or not its browser answers."""
        self._closing.add(connection)

    @property
    def connections(self) -> list[Connection]:
        return [connection for slot in self._slots for connection in slot]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            metrics.loop_lag.observe(max(0.0, now - due))
            self.tick(now, time.time())

    def tick(self, now: float, wall_clock: float) -> None:
        """One second has passed: `now` on the loop's clock, `wall_clock` since 1970."""
        self._beat(self._slots[next(self._next_slot)], wall_clock)
        for connection in list(self._stalled):
            self._judge(connection, now)
        for connection in [c for c in self._closing if now - c.since > LINGER_SECONDS]:
            connection.abort(*connection.reason)

    def _judge(self, connection: Connection, now: float) -> None:
        if not connection.paused:
            self._stalled.discard(connection)
        elif connection.closed:
            pass  # `since` is when that began
        elif not connection.behind:
            connection.since = now
        elif now - connection.since > MAX_STALL_SECONDS:
            connection.close(Close.SLOW, "too slow")

    def _beat(self, slot: set[Connection], wall_clock: float) -> None:
        for connection in list(slot):
            if not connection.heard:
                connection.abort(1006, "no heartbeat")
            elif connection.identity is not None and connection.identity.expires_at < wall_clock:
                connection.close(Close.UNAUTHENTICATED, "the token has expired")
            else:
                connection.heard = False
                connection.frames_left = FRAMES_PER_HEARTBEAT
                connection.ping()
