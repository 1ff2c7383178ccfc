"""Reads that may wait: one at a time, and after each one a pause as long as it took.

A customer's list takes milliseconds of the processor, and customers may ask for many. Side by side in the
database's threads they would hold up each step of a completion, which needs the interpreter's lock. In the
lane they take at most half of the process' time, whatever is asked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from shared.errors import CallerError
from shared.process.caller import caller_now, require_caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_WAITING = 500


class LaneFull(CallerError):
    """So many wait already that this one would come too late."""


class Lane:
    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._free_at = 0.0  # loop time

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Raises `LaneFull`, `CallerLeft`, and what the work raises."""
        if self._waiting >= self._max_waiting:
            raise LaneFull("too many lists are asked for; try again in a moment")
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            async with self._turn:
                require_caller(caller_now.get())
                await asyncio.sleep(max(0.0, self._free_at - loop.time()))
                began = loop.time()
                try:
                    return await work()
                finally:
                    ended = loop.time()
                    self._free_at = ended + (ended - began)
        finally:
            self._waiting -= 1
