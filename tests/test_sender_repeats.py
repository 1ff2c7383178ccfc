"""A repetition waits for the request that it repeats, as long as that runs."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from sender.http.repeats import Repeats
from sender.idempotency import Claim
from shared.process.caller import Caller, CallerLeft
from tests.test_caller import for_caller

pytestmark = pytest.mark.anyio

ONE, OTHER = Claim("one", "", ""), Claim("other", "", "")


class Running:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()

    async def run(self, name: str) -> str:
        self.begun.append(name)
        await self.go.wait()
        if name == "bad":
            raise ValueError(name)
        return name


@pytest.mark.parametrize("first", ["good", "bad"])
async def test_repetition_begins_when_the_first_has_ended_however_it_ends(first: str) -> None:
    repeats, running = Repeats(), Running()
    tasks = [
        asyncio.create_task(repeats.in_turn(ONE, lambda name=name: running.run(name)))  # type: ignore[misc]
        for name in (first, "second", "third")
    ]
    await asyncio.sleep(0.01)  # time in which the others would begin, too
    assert running.begun == [first]
    running.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == [first, "second", "third"]


async def test_requests_with_other_keys_or_none_wait_for_nobody() -> None:
    repeats, running = Repeats(), Running()
    claims = (ONE, OTHER, None, None)
    tasks = [asyncio.create_task(repeats.in_turn(claim, lambda: running.run("it"))) for claim in claims]
    await asyncio.sleep(0.01)  # time in which all can begin
    assert running.begun == ["it"] * 4
    running.go.set()
    await asyncio.gather(*tasks)


async def test_repetition_whose_caller_has_left_does_not_begin() -> None:
    repeats, running, caller = Repeats(), Running(), Caller()
    first = asyncio.create_task(repeats.in_turn(ONE, lambda: running.run("first")))
    left = for_caller(caller, repeats.in_turn(ONE, lambda: running.run("left")))
    await asyncio.sleep(0.01)  # both have come
    caller.leave()
    running.go.set()
    with pytest.raises(CallerLeft):
        await left
    assert await first == "first"
    assert running.begun == ["first"]


async def test_each_repetition_is_woken_once_however_many_there_are() -> None:
    """All of them were, at the end of each: the loop was busy with a thousand for seconds."""
    looks = 0

    class Counted(Caller):
        def __init__(self) -> None:
            pass

        @property
        def left(self) -> bool:  # type: ignore[override] # looked at when its turn has come
            nonlocal looks
            looks += 1
            return False

    repeats, order = Repeats(), list[int]()

    async def run(number: int) -> None:
        order.append(number)
        await asyncio.sleep(0)

    tasks = [for_caller(Counted(), repeats.in_turn(ONE, partial(run, number))) for number in range(100)]
    await asyncio.gather(*tasks)
    assert (order, looks) == (list(range(100)), 100)


async def test_repetition_that_is_cancelled_while_it_waits_holds_up_no_other() -> None:
    repeats, running = Repeats(), Running()
    tasks = [
        asyncio.create_task(repeats.in_turn(ONE, partial(running.run, name))) for name in ("1", "2", "3")
    ]
    await asyncio.sleep(0.01)  # all have come
    tasks[1].cancel()
    await asyncio.sleep(0.01)  # its cancellation has taken effect
    assert running.begun == ["1"]
    running.go.set()
    assert [await tasks[0], await tasks[2]] == ["1", "3"]
    assert running.begun == ["1", "3"]
