"""Log lines that a client can cause: the first at once, then at most a few in some seconds, with a count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import structlog

SECONDS = 10.0


class Sampled:
    """Of each kind of event the first are logged; those that follow too soon are counted.

    The next line of that kind reports the count as `more`, so a flood costs a few lines.
    """

    def __init__(
        self, logger: structlog.typing.FilteringBoundLogger, *, seconds: float = SECONDS, lines: int = 1
    ) -> None:
        """`lines` of each kind in so many seconds."""
        self._logger = logger
        self._seconds = seconds
        self._lines = lines
        self._windows: dict[str, tuple[float, int]] = {}  # until when, and the lines logged since it began
        self._skipped: dict[str, int] = {}

    def warning(self, event: str, **fields: Any) -> None:
        """`event` is one of a few texts, never a client's."""
        if self._is_due(event, fields):
            self._logger.warning(event, **fields)

    def info(self, event: str, *, kind: str = "", **fields: Any) -> None:
        """As `warning`; each `kind`, one of a few texts, is sampled separately."""
        if self._is_due(f"{event} {kind}", fields):
            self._logger.info(event, **fields)

    def _is_due(self, event: str, fields: dict[str, Any]) -> bool:
        now = time.monotonic()
        until, logged = self._windows.get(event, (0.0, 0))
        if now >= until:
            until, logged = now + self._seconds, 0
        if logged >= self._lines:
            self._skipped[event] = self._skipped.get(event, 0) + 1
            return False
        self._windows[event] = (until, logged + 1)
        if skipped := self._skipped.pop(event, 0):
            fields["more"] = skipped
        return True
