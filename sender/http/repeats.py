"""Repetitions of a request that is still running wait for it, and then get its answer.

A caller that has given up repeats its request while the first one may still wait for the database. If both
ran side by side, the second would wait for the first one's locks, or be refused and run again.

Each waits for the one before it. If all waited for the one that runs, its end would wake all of them, and all
but one would wait again: a thousand repetitions of one request would keep the loop busy for seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from shared.process.caller import caller_now, require_caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sender.idempotency import Claim

T = TypeVar("T")


class Repeats:
    """Those at one sender; requests at different senders meet in the database."""

    def __init__(self) -> None:
        # By scope; kept by those that run or wait.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def in_turn(self, claim: Claim | None, run: Callable[[], Awaitable[T]]) -> T:
        """Raises `CallerLeft`, and what `run` raises."""
        if claim is None:
            return await run()
        turn = self._turns.get(claim.scope)
        if turn is None:
            turn = self._turns[claim.scope] = asyncio.Lock()
        async with turn:
            require_caller(caller_now.get())
            return await run()
