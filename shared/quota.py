"""Two limits: so many in any second (`Pace`), and so many at once and in a window for each name (`Quota`).

Why not the library `limits`: handshakes and replays are on the hot path, a refusal must give the time to come
back in fractions of a second, `charge` may overdraw once, and the number of names is bounded. Of the
library's strategies, the fixed window lets twice the limit through at its edge, and the moving window keeps a
time stamp for each hit. If limits were to hold across gateways, it would be the better choice: it has
storages for Redis.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TENTHS = 10
MAX_NAMES = 10_000  # names that were used longest ago begin anew


class Quota:
    def __init__(
        self, most: int, clock: Callable[[], float] = time.monotonic, *, window_seconds: float = 60.0
    ) -> None:
        """`most` at once, and as many in each window."""
        self.most = most
        self.window_seconds = window_seconds
        self._clock = clock
        # What is left for each name, and at what time. A name that is missing here has everything left.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, name: str) -> float:
        """Take one. Returns 0 if that is allowed, else the seconds until it is."""
        now = self._clock()
        left = self._take_left(name, now)
        wait = 0.0 if left >= 1 else (1 - left) * self.window_seconds / self.most
        self._keep(name, left if wait else left - 1, now)
        return wait

    def spend_and_count(self, name: str) -> tuple[float, int]:
        """As `spend`; also returns how many are left."""
        wait = self.spend(name)
        return wait, int(self._left[name][0])

    def seconds_to_all(self, left: int) -> int:
        """The seconds until everything is there again, if so many are left."""
        return math.ceil((self.most - left) * self.window_seconds / self.most)

    def charge(self, name: str, count: int) -> float:
        """As `spend`, for many at once: allowed while any is left, and then perhaps overdrawn."""
        now = self._clock()
        left = self._take_left(name, now)
        wait = 0.0 if left > 0 else (-left or 1) * self.window_seconds / self.most
        self._keep(name, left if wait else left - count, now)
        return wait

    def _take_left(self, name: str, now: float) -> float:
        left, at = self._left.pop(name, (float(self.most), now))
        return min(self.most, left + (now - at) * self.most / self.window_seconds)

    def _keep(self, name: str, left: float, now: float) -> None:
        self._left[name] = (left, now)
        if len(self._left) > MAX_NAMES:
            self._left.popitem(last=False)


class Pace:
    """At most so many in any second, wherever the second begins.

    A bucket that fills by `most` a second and holds `most` would let twice as many through within one second.
    So those of the last ten tenths of a second are counted, and the tenth that has begun.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._tenth = 0  # of a second, since the clock's beginning
        self._taken = [0] * (_TENTHS + 1)  # in the last tenths; each has the place of its number, modulo
        self._sum = 0

    def spend(self) -> float:
        """Take one. Returns 0 if that is allowed, else the seconds until it is."""
        now = self._clock() * _TENTHS
        tenth, places = int(now), len(self._taken)
        for passed in range(max(self._tenth + 1, tenth - _TENTHS), tenth + 1):
            self._sum -= self._taken[passed % places]
            self._taken[passed % places] = 0
        self._tenth = max(self._tenth, tenth)
        if self._sum < self.most:
            self._sum += 1
            self._taken[self._tenth % places] += 1
            return 0.0
        oldest = next(one for one in range(self._tenth - _TENTHS, tenth + 1) if self._taken[one % places])
        return (oldest + places - now) / _TENTHS
