"""Group commit: writers that wait share one transaction, and with it one disk sync.

While a transaction runs, later writers wait; when it has ended, all that wait share the next one, up to a
size. So the more callers there are, the less each pays, and a lone caller waits for nothing.

Each turn runs in a task of our own, not in a caller's: cancelling one caller does not affect the others.

A job leaves the queue in one of three ways: it is taken, its caller leaves, or it has waited too long. Only
one of them finds it there, so a job that was given up is never run, and one that is run is never given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from sender.database.errors import DatabaseBusy, DatabaseUnavailable
from shared.process.caller import CallerLeft, caller_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection

    from shared.process.caller import Caller

    Commit = Callable[["Queue"], Awaitable[None]]

logger = structlog.get_logger(__name__)

LOOKS = 10  # for jobs that have waited too long, in the time that a job may wait

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[I, R]):
    work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]]
    item: I
    size: int
    done: asyncio.Future[R]
    since: float  # loop time
    caller: Caller | None

    def resolve(self, outcome: R | Exception) -> None:
        if self.done.done():  # its caller was cancelled
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


class Queue:
    """The jobs that wait for a transaction. Filled in the loop's thread, emptied in any thread."""

    def __init__(self, max_together: int) -> None:
        self._max_together = max_together  # rows; bounds how long the first item waits for the last
        self._jobs: deque[Job[Any, Any]] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job[Any, Any]) -> None:
        self._jobs.append(job)

    def remove(self, job: Job[Any, Any]) -> bool:
        """Whether it was still waiting. A deque's methods are atomic, so no other thread takes it, too."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def take_older(self, since: float) -> list[Job[Any, Any]]:
        """The jobs that were queued before that time."""
        return [job for job in tuple(self._jobs) if job.since < since and self.remove(job)]

    def take(self) -> list[Job[Any, Any]]:
        """The oldest jobs, of any work, for the next transaction; empty if none waits."""
        taken: list[Job[Any, Any]] = []
        size = 0
        while size < self._max_together:
            try:
                taken.append(self._jobs.popleft())
            except IndexError:
                break
            size += taken[-1].size
        return taken

    def take_all(self) -> list[Job[Any, Any]]:
        taken = list(self._jobs)
        self._jobs.clear()
        return taken

    def take_alike(self) -> list[Job[Any, Any]]:
        """The oldest job, and those that wait for the same work. Only in the loop's thread."""
        taken: list[Job[Any, Any]] = []
        size = 0
        for job in list(self._jobs):
            if size < self._max_together and (not taken or job.work is taken[0].work):
                taken.append(job)
                size += job.size
        if len(taken) == len(self._jobs):
            self._jobs.clear()
        else:
            for job in taken:
                self._jobs.remove(job)
        return taken


class GroupCommit:
    """`commit` takes jobs from the queue, runs them and resolves each; `turns` of it run at a time.

    `commit` turns results and errors of jobs into outcomes; it raises only if it has a defect.
    """

    def __init__(
        self, commit: Commit, *, turns: int, max_together: int, max_waiting: int, wait_seconds: float = 5
    ) -> None:
        """A job waits at most `wait_seconds` until a turn takes it."""
        self._commit = commit
        self._wait_seconds = wait_seconds
        self._look: asyncio.TimerHandle | None = None  # for jobs that have waited too long
        self._turns = turns
        self._max_waiting = max_waiting
        self._queue = Queue(max_together)
        self._closed = False  # nothing is taken any more
        self._waiting = 0  # callers, including those whose transaction runs
        self._idle = asyncio.Event()  # no caller waits
        self._idle.set()
        self._running: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def write(
        self, work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]], item: I, *, size: int = 1
    ) -> R:
        if self._closed:
            raise DatabaseUnavailable("the sender ends")
        if self._waiting >= self._max_waiting:
            raise DatabaseBusy(f"{self._max_waiting} writes are waiting already")
        caller = caller_now.get()
        job: Job[I, R] = Job(work, item, size, self._loop.create_future(), self._loop.time(), caller)
        withdraw = partial(self._withdraw, job)
        self._waiting += 1
        self._idle.clear()
        self._queue.put(job)
        if len(self._running) < self._turns:
            self._begin_turn()
        if self._look is None:
            self._look = self._loop.call_later(self._wait_seconds / LOOKS, self._give_up_old)
        if caller is not None:
            caller.call_when_left(withdraw)
        try:
            return await job.done
        finally:
            if caller is not None:
                caller.forget(withdraw)
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def wait_for_idle(self, seconds: float) -> None:
        """Return when no caller waits, or after that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass  # the load does not end; other work must go on, too

    async def close(self, seconds: float) -> None:
        """Jobs that were queued before are finished first, if they are within that time."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
        deadline = self._loop.time() + seconds
        while self._running and self._loop.time() < deadline:
            await asyncio.wait(self._running, timeout=deadline - self._loop.time())
        if self._running:
            self._give_up()

    async def wait_ended(self) -> None:
        """Wait for the turns that were still under way when `close` returned."""
        while self._running:
            await asyncio.wait(self._running)

    def _give_up(self) -> None:
        jobs = self._queue.take_all()
        logger.warning("the database does not answer; writes that wait for it are given up", count=len(jobs))
        for job in jobs:
            job.resolve(DatabaseUnavailable("the sender ends, and the database does not answer"))

    def _withdraw(self, job: Job[Any, Any]) -> None:
        if self._queue.remove(job):
            job.resolve(CallerLeft())

    def _give_up_old(self) -> None:
        """Runs every now and then, as long as jobs wait."""
        self._look = None
        for job in self._queue.take_older(self._loop.time() - self._wait_seconds):
            job.resolve(DatabaseBusy(f"this write has waited {self._wait_seconds:g} s behind others"))
        if self._queue and not self._closed:
            self._look = self._loop.call_later(self._wait_seconds / LOOKS, self._give_up_old)

    def _begin_turn(self) -> None:
        turn = self._loop.create_task(self._take_turns())
        self._running.add(turn)
        turn.add_done_callback(self._end_turn)

    async def _take_turns(self) -> None:
        while self._queue:
            await self._commit(self._queue)

    def _end_turn(self, turn: asyncio.Task[None]) -> None:
        self._running.discard(turn)
        if not turn.cancelled() and (error := turn.exception()):
            logger.error("a transaction's turn failed", exc_info=error)
        if turn.cancelled() and turn.cancelling():  # by the loop's end, not by its driver: begin no task
            return
        if self._queue and not self._loop.is_closed():
            self._begin_turn()  # for jobs that came meanwhile
