"""Portions: how many rows are deleted at a time, and how long the rest afterwards is.

Callers must not notice that rows are deleted. So a portion is small, and a rest follows that is longer than
the work; a portion that has grown shrinks to half when the database takes longer than a few milliseconds for
it. But deleting must keep up with what is recorded. A transaction costs something whatever its size, so where
small portions cannot reach the rate, they grow even though they are slow, and the rests are shorter.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    least: int = 25  # rows; below, most of the work is that of the transaction itself
    most: int = 250  # so that no caller waits long behind them
    seconds: float = 0.004  # within the transaction; a portion that takes longer is halved
    rest: float = 2.0  # times the duration of a portion, at least; where that is too long for the rate,
    short_rest: float = 0.5
    rate: float = 1_000.0  # rows a second, unless more are recorded:
    times: float = 12.0  # then this many times what is recorded


_STEP = 10  # rows by which a portion grows
_MADE_UP_SECONDS = 1.0  # how far behind the rate shorter rests may make up for, at most


class Portions:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.rows = min(limits.least, limits.most)
        self.rate = limits.rate
        self._ahead = 0.0  # seconds by which the rows deleted are ahead of the rate
        self._recorded: tuple[float, int] | None = None  # when, and how many rows by then

    def note_recorded(self, now: float, count: int) -> None:
        """`count` is the number of all rows recorded until now; the rate follows."""
        if self._recorded is not None and now > self._recorded[0]:
            arriving = (count - self._recorded[1]) / (now - self._recorded[0])
            self.rate = max(self._limits.rate, self._limits.times * arriving)
        self._recorded = now, count

    def note(self, rows: int, *, worked: float, elapsed: float) -> float:
        """A portion was deleted: seconds in its transaction, and until its end. Returns how long to rest."""
        if worked > self._limits.seconds and self._keeps_up(rows // 2, worked / 2, elapsed):
            self.rows = max(self.rows // 2, min(self._limits.least, self._limits.most))
        elif rows >= self.rows and not self._keeps_up(rows, worked, elapsed):
            self.rows = min(self.rows + _STEP, self._limits.most)
        # A portion that took long is made up for by shorter rests afterwards.
        self._ahead += rows / self.rate - elapsed
        rest = max(self.rest(rows, worked=worked, elapsed=elapsed), self._ahead)
        self._ahead = max(self._ahead - rest, -_MADE_UP_SECONDS)
        return rest

    def rest(self, rows: int, *, worked: float, elapsed: float) -> float:
        keeps_up = self._keeps_up(rows, worked, elapsed)
        return worked * (self._limits.rest if keeps_up or not rows else self._limits.short_rest)

    def _keeps_up(self, rows: int, worked: float, elapsed: float) -> bool:
        """Whether such portions, with their rests, reach the rate."""
        return rows >= self.rate * (elapsed + worked * self._limits.rest)
