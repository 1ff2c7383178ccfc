"""Repetitions of a request that is still running wait for it, and then get its answer.

A caller that has given up repeats its request while the first one may still wait for the database. If both
ran side by side, the second would wait for the first one's locks, or be refused and run again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from shared.process.caller import caller_now, require_caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sender.idempotency import Claim

T = TypeVar("T")


class Repeats:
    """Those at one sender; requests at different senders meet in the database."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[None]] = {}  # by scope; done when the request has ended

    async def in_turn(self, claim: Claim | None, run: Callable[[], Awaitable[T]]) -> T:
        """Raises `CallerLeft`, and what `run` raises."""
        if claim is None:
            return await run()
        while (earlier := self._running.get(claim.scope)) is not None:
            await asyncio.wait([earlier])
            require_caller(caller_now.get())
        ended = self._running[claim.scope] = asyncio.get_running_loop().create_future()
        try:
            return await run()
        finally:
            del self._running[claim.scope]
            ended.set_result(None)
