"""Work that has not begun when its caller leaves is never begun, wherever it waits."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from sender.database.open import open_database
from sender.lane import Lane
from shared.process.caller import Caller, CallerLeft, caller_now, go_on_without_caller
from tests import sqlite_databases

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

pytestmark = pytest.mark.anyio


def for_caller(caller: Caller, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """As a request of this caller runs."""
    context = copy_context()
    context.run(caller_now.set, caller)
    return asyncio.create_task(work, context=context)


class Works:
    """Work for the database; some of it keeps a thread busy until released."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def hold(self, _: Connection) -> None:
        self.begun.release()
        assert self.go.wait(20)

    def add(self, _: Connection) -> None:
        self.done.append("read")

    def add_all(self, _: Connection, names: Sequence[str]) -> Sequence[str]:
        self.done += names
        return names


async def test_write_whose_caller_leaves_in_the_queue_is_not_done_and_that_of_another_is(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    sqlite_databases.prepare(url)
    works, caller = Works(), Caller()
    async with open_database(url) as database:
        busy = asyncio.create_task(database.write(works.hold))
        await asyncio.to_thread(works.begun.acquire)
        left = for_caller(caller, database.write_together(works.add_all, "left"))
        stays = for_caller(Caller(), database.write_together(works.add_all, "stays"))
        await asyncio.sleep(0)
        caller.leave()
        with pytest.raises(CallerLeft):  # at once: the writer is still busy
            await left
        works.go.set()
        assert await stays == "stays"
        await busy
    assert works.done == ["stays"]


async def test_write_that_has_begun_is_finished_for_a_caller_that_leaves(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    sqlite_databases.prepare(url)
    works, caller = Works(), Caller()
    async with open_database(url) as database:
        running = for_caller(caller, database.write(works.hold))
        await asyncio.to_thread(works.begun.acquire)
        caller.leave()
        works.go.set()
        await running  # raises nothing, so that what follows a commit follows


async def test_read_whose_caller_leaves_while_it_waits_is_not_done(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    sqlite_databases.prepare(url)
    works, caller = Works(), Caller()
    async with open_database(url) as database:
        busy = [asyncio.create_task(database.read(works.hold)) for _ in range(3)]  # all readers
        for _ in busy:
            await asyncio.to_thread(works.begun.acquire)
        left = for_caller(caller, database.read(works.add))
        await asyncio.sleep(0)
        caller.leave()
        works.go.set()
        with pytest.raises(CallerLeft):
            await left
        await asyncio.gather(*busy)
    assert works.done == []


@pytest.mark.postgres
async def test_no_transaction_begins_for_a_caller_that_has_left(emptied_postgres: Any) -> None:
    works, caller = Works(), Caller()
    with emptied_postgres.use() as url:
        async with open_database(url) as database:
            caller.leave()
            for work in (
                database.write(works.add),
                database.read(works.add),
                database.write_together(works.add_all, "left"),
            ):
                with pytest.raises(CallerLeft):
                    await for_caller(caller, work)
            await database.read(works.add)
    assert works.done == ["read"]


async def test_what_a_request_has_begun_goes_on_without_its_caller(tmp_path: Path) -> None:
    """An erasure has several transactions, and half of one would be worse than none."""
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    sqlite_databases.prepare(url)
    works, caller = Works(), Caller()

    async def erase() -> None:
        await database.write(works.add)
        go_on_without_caller()
        caller.leave()
        await database.write(works.add)

    async with open_database(url) as database:
        await for_caller(caller, erase())
    assert works.done == ["read", "read"]


async def test_list_whose_caller_has_left_takes_no_turn_of_the_lane() -> None:
    lane, caller, released, done = Lane(), Caller(), asyncio.Event(), list[str]()

    async def note() -> None:
        done.append("list")

    async def wait() -> None:
        await released.wait()

    busy = asyncio.create_task(lane.run(wait))
    left = for_caller(caller, lane.run(note))
    await asyncio.sleep(0)
    caller.leave()
    released.set()
    with pytest.raises(CallerLeft):
        await left
    await busy
    assert done == []
