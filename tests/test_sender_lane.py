"""What may wait: one at a time, and never more than half of the time."""

from __future__ import annotations

import asyncio

import pytest

from sender.lane import Lane, LaneFull

pytestmark = pytest.mark.anyio


async def test_work_in_the_lane_is_done_one_at_a_time_in_its_order_and_with_pauses() -> None:
    lane, done, running = Lane(), list[int](), 0

    async def work(n: int) -> int:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.02)
        running -= 1
        done.append(n)
        return n

    began = asyncio.get_running_loop().time()
    results = await asyncio.gather(*(lane.run(lambda n=n: work(n)) for n in range(5)))  # type: ignore[misc]
    assert results == done == list(range(5))
    assert asyncio.get_running_loop().time() - began > 0.02 * (5 + 4)


async def test_failure_and_cancellation_leave_the_lane_to_the_next() -> None:
    lane = Lane()

    async def fail() -> None:
        raise RuntimeError("a defect")

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError):
        await lane.run(fail)
    waiting = asyncio.create_task(lane.run(wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def work() -> str:
        return "done"

    assert await asyncio.wait_for(lane.run(work), 20) == "done"


async def test_lane_that_is_full_refuses_at_once_and_takes_more_when_it_is_not() -> None:
    lane, free = Lane(max_waiting=2), asyncio.Event()
    two = [asyncio.create_task(lane.run(free.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LaneFull):
        await lane.run(free.wait)
    free.set()
    await asyncio.gather(*two)
    assert await lane.run(free.wait)
