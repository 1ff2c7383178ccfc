"""Questions that share the cost of their answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from receiver.feeds.batch import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.anyio

GATHER_SECONDS = 0.3


class Server:
    """Doubles numbers; remembers which it was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.batch: Batch[int, int] = Batch(self.answer, limit=10, gather_seconds=GATHER_SECONDS)

    async def answer(self, numbers: Sequence[int]) -> Sequence[int]:
        self.asked.append(list(numbers))
        if 13 in numbers:
            raise OSError("not that one")
        return [2 * number for number in numbers]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    task = asyncio.create_task(server.batch.run())
    yield server
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_lone_question_is_sent_at_once(server: Server) -> None:
    started = asyncio.get_running_loop().time()
    assert await server.batch.ask(1) == 2
    assert asyncio.get_running_loop().time() - started < GATHER_SECONDS


async def test_questions_of_one_moment_go_together_each_with_its_answer(server: Server) -> None:
    assert await asyncio.gather(*map(server.batch.ask, range(5))) == [0, 2, 4, 6, 8]
    assert server.asked == [[0, 1, 2, 3, 4]]


async def test_crowd_that_comes_one_by_one_gathers(server: Server) -> None:
    await server.batch.ask(0)
    asking = []
    for number in range(1, 6):
        asking.append(asyncio.create_task(server.batch.ask(number)))
        await asyncio.sleep(0.001)
    assert await asyncio.gather(*asking) == [2, 4, 6, 8, 10]
    assert server.asked == [[0], [1, 2, 3, 4, 5]]


async def test_more_than_the_limit_are_asked_in_turn(server: Server) -> None:
    assert await asyncio.gather(*map(server.batch.ask, range(14, 39))) == list(range(28, 78, 2))
    assert [len(numbers) for numbers in server.asked] == [10, 10, 5]


async def test_failure_reaches_all_waiting_questions_and_later_ones_succeed(server: Server) -> None:
    answers = await asyncio.gather(*map(server.batch.ask, (12, 13)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError, OSError]
    assert await server.batch.ask(14) == 28


async def test_question_that_was_given_up_is_not_asked(server: Server) -> None:
    await server.batch.ask(0)
    asking = asyncio.create_task(server.batch.ask(1))
    await asyncio.sleep(0.001)
    asking.cancel()
    assert await server.batch.ask(2) == 4
    assert server.asked == [[0], [2]]
