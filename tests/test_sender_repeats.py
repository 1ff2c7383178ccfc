"""A repetition waits for the request that it repeats, as long as that runs."""

from __future__ import annotations

import asyncio

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
    await asyncio.sleep(0.01)
    assert running.begun == [first]
    running.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == [first, "second", "third"]


async def test_requests_with_other_keys_or_none_wait_for_nobody() -> None:
    repeats, running = Repeats(), Running()
    claims = (ONE, OTHER, None, None)
    tasks = [asyncio.create_task(repeats.in_turn(claim, lambda: running.run("it"))) for claim in claims]
    await asyncio.sleep(0.01)
    assert running.begun == ["it"] * 4
    running.go.set()
    await asyncio.gather(*tasks)


async def test_repetition_whose_caller_has_left_does_not_begin() -> None:
    repeats, running, caller = Repeats(), Running(), Caller()
    first = asyncio.create_task(repeats.in_turn(ONE, lambda: running.run("first")))
    left = for_caller(caller, repeats.in_turn(ONE, lambda: running.run("left")))
    await asyncio.sleep(0.01)
    caller.leave()
    running.go.set()
    with pytest.raises(CallerLeft):
        await left
    assert await first == "first"
    assert running.begun == ["first"]
