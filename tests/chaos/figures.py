"""What gateways' own metrics show during a run, read once a second as Prometheus would.

    with Figures([gateway.url for gateway in gateways]) as figures:
        …
    figures.connects        # a second, the most of any gateway
    figures.quantile(0.99)  # of order to frame, as the bucket that holds it

A gateway that was restarted counts from 0 again; what it had counted between the last reading and its end is
missing, as it is in Prometheus.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import httpx2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

EVERY_SECONDS = 1.0
WINDOW_SECONDS = 10.0
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", re.MULTILINE)
_LE = re.compile(r'le="([^"]+)"')
_OPENED, _REFUSED = "orderbell_connections_opened_total", "orderbell_handshakes_refused_total"
_FRAMES = "orderbell_order_to_frame_seconds_bucket"


class Reading(NamedTuple):
    """One gateway's figures at one time, summed over labels but buckets' bounds."""

    at: float
    opened: float
    refused: float
    frames: dict[float, float]  # events up to that age


class Step(NamedTuple):
    """What one gateway counted between two readings."""

    until: float
    seconds: float
    opened: float
    refused: float
    frames: dict[float, float]


def parse(text: str, at: float) -> Reading:
    opened = refused = 0.0
    frames: dict[float, float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        if name == _OPENED:
            opened += float(value)
        elif name == _REFUSED:
            refused += float(value)
        elif name == _FRAMES and (bound := _LE.search(labels)):
            frames[float(bound[1])] = frames.get(float(bound[1]), 0.0) + float(value)
    return Reading(at, opened, refused, frames)


def step(before: Reading, after: Reading) -> Step:
    """One that was restarted meanwhile began at 0: its counts went down, or its histogram is shorter."""
    total = math.inf
    again = after.opened < before.opened or after.frames.get(total, 0) < before.frames.get(total, 0)
    start = Reading(before.at, 0, 0, {}) if again else before
    seconds = after.at - before.at
    return Step(
        after.at,
        min(seconds, EVERY_SECONDS) if again else seconds,  # most of that time it was away
        after.opened - start.opened,
        after.refused - start.refused,
        {bound: count - start.frames.get(bound, 0) for bound, count in after.frames.items()},
    )


class Figures:
    def __init__(self, urls: Sequence[str]) -> None:
        self.steps: list[Step] = []
        self._urls = urls
        self._last: dict[str, Reading] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="figures")

    def __enter__(self) -> Figures:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        with httpx2.Client(timeout=5, trust_env=False) as client:
            while not self._over.wait(EVERY_SECONDS):
                for url in self._urls:
                    try:
                        text = client.get(f"{url}/metrics").text
                    except httpx2.TransportError:  # it is being restarted
                        continue
                    self.add(url, parse(text, time.monotonic()))

    def add(self, url: str, reading: Reading) -> None:
        last = self._last.get(url)
        if last is not None:
            self.steps.append(step(last, reading))
        self._last[url] = reading

    @property
    def connects(self) -> float:
        """Connections a second: the most that one gateway took between two readings."""
        return max((one.opened / one.seconds for one in self.steps), default=0.0)

    @property
    def refused(self) -> int:
        return int(sum(one.refused for one in self.steps))

    @property
    def frames(self) -> int:
        """How many events' ages were sampled."""
        return int(_sum(self.steps).get(math.inf, 0))

    def quantile(self, share: float) -> float:
        """Of the seconds from order to frame, at most: the upper bound of the bucket that holds it."""
        return _quantile(_sum(self.steps), share)

    def worst_quantile(self, share: float) -> float:
        """The same, of the worst ten seconds."""
        windows: dict[int, list[Step]] = {}
        for one in self.steps:
            windows.setdefault(int(one.until // WINDOW_SECONDS), []).append(one)
        return max((_quantile(_sum(steps), share) for steps in windows.values()), default=0.0)


def _sum(steps: Sequence[Step]) -> dict[float, float]:
    total: Counter[float] = Counter()
    for one in steps:
        total.update(one.frames)
    return dict(total)


def _quantile(frames: dict[float, float], share: float) -> float:
    wanted = share * frames.get(math.inf, 0.0)
    return min((bound for bound, count in frames.items() if count and count >= wanted), default=0.0)
