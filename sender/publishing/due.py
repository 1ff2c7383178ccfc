"""What should be in Redis by now: gateways compare it with what is there, and pull the rest."""

from __future__ import annotations

import asyncio
from collections import deque

from shared.redis.channel_log import NewestEvent


class Due:
    """The relay reports what it publishes and what waits; `POST /history` asks."""

    def __init__(self, late_seconds: float) -> None:
        """An event should be in Redis within `late_seconds` of being recorded."""
        self._late_seconds = late_seconds
        self.published = NewestEvent(0, 0)  # the newest event that we published and noted in Redis
        # While events wait: the newest recorded event at some moments of the last seconds.
        self._recorded: deque[tuple[float, NewestEvent]] = deque()
        self._loop = asyncio.get_running_loop()

    @property
    def newest(self) -> NewestEvent:
        """The newest event that is in Redis, or should be, as far as this sender knows."""
        now = self._loop.time()
        late = [recorded for at, recorded in self._recorded if now - at > self._late_seconds]
        return max([self.published, *late[-1:]])

    @property
    def awaits_report(self) -> bool:
        """Whether `events_wait` is due again."""
        return not self._recorded or self._loop.time() - self._recorded[-1][0] > self._late_seconds / 4

    def events_wait(self, newest: NewestEvent) -> None:
        """`newest` is now the newest recorded event, and not all up to it are published."""
        now = self._loop.time()
        self._recorded.append((now, newest))
        while len(self._recorded) > 1 and now - self._recorded[1][0] > self._late_seconds:
            self._recorded.popleft()

    def nothing_waits(self) -> None:
        """All events are published, by us or by another sender."""
        self._recorded.clear()
