"""Log lines about what every client may cause: the first of a kind at once, then one a minute."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import structlog

EVERY_SECONDS = 60.0
_KINDS = 100

logger = structlog.get_logger(__name__)


@dataclass
class _Kind:
    due: float = float("-inf")
    left_out: int = 0


class Reports:
    def __init__(self, every_seconds: float = EVERY_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._kinds: dict[str, _Kind] = {}

    def warn(self, what: str, **details: object) -> None:
        """`what` is the kind of line, one of a few texts. The line shows how many like it were left out."""
        self._report(logging.WARNING, what, details)

    def inform(self, what: str, **details: object) -> None:
        """As `warn`, at the level of information."""
        self._report(logging.INFO, what, details)

    def _report(self, level: int, what: str, details: dict[str, object]) -> None:
        kind = self._kinds.setdefault(what if len(self._kinds) < _KINDS else "", _Kind())
        now = time.monotonic()
        if now < kind.due:
            kind.left_out += 1
            return
        logger.log(level, what, **details, more_since=kind.left_out)
        kind.due, kind.left_out = now + self._every_seconds, 0
