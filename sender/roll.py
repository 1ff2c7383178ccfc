"""The gateways that have asked this sender lately, also those that do not hear Redis and answer no inquiry.

Each gateway asks for the newest event every few seconds, and every second while it pulls; these questions
carry its name. Another sender may know other gateways, those that asked it.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable

LATELY_SECONDS = 12.0  # a few times as long as a gateway takes to ask again
_MAX = 1_000
_NAME = re.compile(r"[!-~]{1,200}")


class Caller(NamedTuple):
    name: str
    pulls: bool  # it said that it does not hear Redis


class Roll:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._asked: OrderedDict[str, tuple[float, bool]] = OrderedDict()  # the latest last

    def note(self, name: str, *, pulls: bool) -> None:
        """`name` as the gateway quotes it; anything that is not a name is passed over."""
        if not _NAME.fullmatch(name):
            return
        name = unquote(name)
        self._asked[name] = self._now(), pulls
        self._asked.move_to_end(name)
        if len(self._asked) > _MAX:
            self._asked.popitem(last=False)

    def lately(self) -> list[Caller]:
        """In order of their names."""
        since = self._now() - LATELY_SECONDS
        return sorted(Caller(name, pulls) for name, (at, pulls) in self._asked.items() if at >= since)
