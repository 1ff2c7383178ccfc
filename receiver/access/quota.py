"""A limit for each of many names: so many at once, and so many a minute."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAMES = 10_000  # those that were used longest ago begin anew


class Quota:
    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        # What is left of each, and as of when. A name that is missing here has all of it.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, name: str) -> float:
        """0 where one more is allowed, and was taken; else the seconds until one is."""
        now = self._clock()
        left, at = self._left.pop(name, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - at) * self._per_minute / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self._per_minute
        self._left[name] = (left if wait else left - 1, now)
        if len(self._left) > MAX_NAMES:
            self._left.popitem(last=False)
        return wait
