"""Group commit without a database: which jobs share a turn, and what becomes of callers that leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from sender.database.errors import DatabaseBusy, DatabaseUnavailable
from sender.database.group_commit import GroupCommit, Job, Queue
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

pytestmark = pytest.mark.anyio


def one(connection: Connection, items: Sequence[Any]) -> Sequence[Any]:
    return items


def other(connection: Connection, items: Sequence[Any]) -> Sequence[Any]:
    return items


class Commits:
    """Answers each item with itself once it is released."""

    def __init__(self, **limits: Any) -> None:
        self.batches: list[list[Any]] = []
        self.go = asyncio.Event()
        self.group = GroupCommit(
            self._commit, **{"turns": 1, "max_together": 10, "max_waiting": 10, **limits}
        )

    async def _commit(self, queue: Queue) -> None:
        jobs = queue.take()
        self.batches.append([job.item for job in jobs])
        await self.go.wait()
        for job in jobs:
            job.resolve(ValueError(job.item) if job.item == "bad" else job.item)


async def test_writers_that_wait_share_the_next_turn() -> None:
    commits = Commits()
    waiting = [asyncio.create_task(commits.group.write(one, n)) for n in range(4)]
    await asyncio.sleep(0)
    commits.go.set()
    assert await asyncio.gather(*waiting) == [0, 1, 2, 3]
    assert commits.batches[0] == [0, 1, 2, 3]


async def test_cancelled_caller_takes_nobody_along() -> None:
    commits = Commits()
    first = asyncio.create_task(commits.group.write(one, "first"))
    second = asyncio.create_task(commits.group.write(one, "second"))
    await await_until(lambda: commits.batches)
    first.cancel()
    await asyncio.sleep(0)
    commits.go.set()
    assert await second == "second"


async def test_error_of_an_item_is_its_callers_alone() -> None:
    commits = Commits()
    commits.go.set()
    bad = asyncio.create_task(commits.group.write(one, "bad"))
    assert await commits.group.write(one, "good") == "good"
    with pytest.raises(ValueError, match="bad"):
        await bad


async def test_callers_beyond_the_limit_are_sent_away_at_once() -> None:
    commits = Commits(max_waiting=2)
    waiting = [asyncio.create_task(commits.group.write(one, n)) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailable, match="waiting already"):
        await commits.group.write(one, 3)
    commits.go.set()
    await asyncio.gather(*waiting)
    assert await commits.group.write(one, 4) == 4


async def test_idle_is_when_no_caller_waits_or_after_so_long() -> None:
    commits = Commits()
    await commits.group.wait_for_idle(5)
    caller = asyncio.create_task(commits.group.write(one, 1))
    await asyncio.sleep(0)
    await commits.group.wait_for_idle(0.001)
    idle = asyncio.create_task(commits.group.wait_for_idle(5))
    await asyncio.sleep(0)
    assert not idle.done()
    commits.go.set()
    await idle
    assert await caller == 1


async def test_closing_waits_for_what_was_given() -> None:
    commits = Commits()
    given = asyncio.create_task(commits.group.write(one, 1))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, commits.go.set)
    await commits.group.close(5)
    assert await asyncio.wait_for(given, 20) == 1


async def test_nothing_is_taken_after_the_end() -> None:
    commits = Commits()
    commits.go.set()
    await commits.group.close(5)
    with pytest.raises(DatabaseUnavailable, match="the sender ends"):
        await asyncio.wait_for(commits.group.write(one, 1), 5)
    assert commits.batches == []


async def test_what_a_silent_database_does_not_finish_in_time_is_given_up() -> None:
    commits = Commits()  # its turn never ends
    running = asyncio.create_task(commits.group.write(one, "running"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(commits.group.write(one, "waiting"))
    await asyncio.sleep(0)
    with capture_logs() as logs:
        await commits.group.close(0.01)
    with pytest.raises(DatabaseUnavailable, match="the sender ends"):
        await waiting
    assert [(log["log_level"], log["count"]) for log in logs] == [("warning", 1)]
    assert commits.batches == [["running"]]
    running.cancel()


async def test_defect_of_a_turn_is_logged_and_later_turns_run() -> None:
    broken = True

    async def commit(queue: Queue) -> None:
        jobs = queue.take()
        if broken:
            raise ZeroDivisionError
        for job in jobs:
            job.resolve(job.item)

    group = GroupCommit(commit, turns=1, max_together=10, max_waiting=10)
    with capture_logs() as logs:
        lost = asyncio.create_task(group.write(one, 1))
        await asyncio.sleep(0)
        await group.wait_ended()
    assert [log["log_level"] for log in logs] == ["error"]
    broken = False
    assert await group.write(one, 2) == 2
    lost.cancel()


def job(work: Any, size: int) -> Job[Any, Any]:
    loop = asyncio.get_running_loop()
    return Job(work, size, size, loop.create_future(), loop.time(), None)


async def test_job_that_waits_too_long_is_given_up_and_never_run() -> None:
    commits = Commits(wait_seconds=0.05)
    first = asyncio.create_task(commits.group.write(one, "first"))
    await await_until(lambda: commits.batches)
    with pytest.raises(DatabaseBusy):
        await commits.group.write(one, "second")
    commits.go.set()
    assert await first == "first"
    assert await commits.group.write(one, "third") == "third"
    assert commits.batches == [["first"], ["third"]]


async def test_turn_takes_the_oldest_up_to_its_size() -> None:
    queue = Queue(10)
    for size in (4, 4, 4, 50, 1):
        queue.put(job(one, size))
    assert [[taken.size for taken in queue.take()] for _ in range(4)] == [[4, 4, 4], [50], [1], []]


async def test_turn_of_one_work_leaves_the_others_in_their_order() -> None:
    queue = Queue(10)
    for work, size in ((one, 1), (other, 2), (one, 3), (other, 4), (one, 50), (one, 6)):
        queue.put(job(work, size))
    assert [taken.size for taken in queue.take_alike()] == [1, 3, 50]
    assert [taken.size for taken in queue.take_alike()] == [2, 4]
    assert [taken.size for taken in queue.take_alike()] == [6]
    assert queue.take_alike() == []


async def test_writer_that_comes_as_the_last_turn_ends_is_not_forgotten() -> None:
    async def commit(queue: Queue) -> None:
        for job in queue.take():
            job.resolve(job.item)

    group = GroupCommit(commit, turns=1, max_together=10, max_waiting=10)
    for number in range(20):
        assert await asyncio.wait_for(group.write(one, number), 20) == number


def test_loop_that_ends_while_jobs_wait_leaves_no_turn_that_never_ran() -> None:
    """As where a service is cut off: what waits behind the turn that is cancelled needs no other."""

    async def leave() -> None:
        commits = Commits()
        written = [asyncio.create_task(commits.group.write(one, n)) for n in range(2)]
        await await_until(lambda: commits.batches)
        written.append(asyncio.create_task(commits.group.write(one, 2)))
        await asyncio.sleep(0)
        left.append(commits.group)
        raise ZeroDivisionError

    left: list[GroupCommit] = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(leave())
    assert [turn for group in left for turn in group._running] == []


async def test_turn_that_its_driver_cancels_is_followed_by_another() -> None:
    """asyncpg raises CancelledError in whatever waits for a connection that ends."""
    cut_off = [asyncio.CancelledError]

    async def commit(queue: Queue) -> None:
        jobs = queue.take()
        if cut_off:
            lost.extend(jobs)
            raise cut_off.pop()
        for job in jobs:
            job.resolve(job.item)

    lost: list[Job[Any, Any]] = []
    group = GroupCommit(commit, turns=1, max_together=1, max_waiting=10)
    writes = [asyncio.create_task(group.write(one, n)) for n in range(2)]
    assert await asyncio.wait_for(writes[1], 20) == 1
    lost[0].resolve(0)
    assert await writes[0] == 0
