"""Questions asked one at a time, answered many at a time.

Connections that arrive together ask the same servers the same things, and a round trip costs far more than
another question in it. While one batch is on its way, the next one fills. A lone question is sent at once;
under load the batch waits a few milliseconds to fill.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Q = TypeVar("Q")
A = TypeVar("A")

CROWD_SECONDS = 0.1  # since the last batch: more are coming


class Batch(Generic[Q, A]):
    """`answer` gets up to `limit` questions and returns as many answers, in order. In a crowd, a batch
    gathers for `gather_seconds`.

    An exception it raises reaches every question of the batch. `run` must be running for any answer.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        limit: int,
        gather_seconds: float,
    ) -> None:
        self._answer = answer
        self._limit = limit
        self._gather_seconds = gather_seconds
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._asked = asyncio.Event()

    async def ask(self, question: Q) -> A:
        return await self._put(question)

    async def ask_all(self, questions: Sequence[Q]) -> list[A]:
        """The answers in order; raises what any of them raises."""
        answers, failure = [], None
        for future in [self._put(question) for question in questions]:
            try:
                answers.append(await future)
            except Exception as error:  # raised below, once all have been waited for
                failure = failure or error
        if failure is not None:
            raise failure
        return answers

    def _put(self, question: Q) -> asyncio.Future[A]:
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._asked.set()
        return future

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        answered_at = -CROWD_SECONDS
        while True:
            await self._asked.wait()
            crowd = loop.time() - answered_at < CROWD_SECONDS and len(self._waiting) < self._limit
            # Even a lone question waits for those asked in the same turn of the loop.
            await asyncio.sleep(self._gather_seconds if crowd else 0)
            await self._answer_some()
            answered_at = loop.time()
            if not self._waiting:
                self._asked.clear()

    async def _answer_some(self) -> None:
        count = min(self._limit, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        batch = [(question, future) for question, future in batch if not future.done()]
        try:
            answers = await self._answer([question for question, _ in batch]) if batch else ()
        except Exception as error:  # of this batch; the next may succeed
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
