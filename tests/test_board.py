"""The order board: its content, and how changes reach its watchers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest

from sender import orders
from sender.board import LIMITS, Board, Limits, Pace
from tests.senders import one_database, run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sender.board import Changes, Watcher
    from tests.processes import Processes, SenderProcess
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

FEW = Limits(recent=2)
QUICK = Pace(every_seconds=0.05, least_seconds=0.01)
WITHIN = 10.0  # seconds, on a busy machine


@pytest.fixture
async def sender(database_url: str, redis_url: str, key_prefix: str) -> AsyncIterator[RunningSender]:
    async with run_sender(database_url, redis_url, key_prefix) as sender:
        yield sender


@contextlib.asynccontextmanager
async def running(sender: RunningSender, pace: Pace = QUICK, limits: Limits = LIMITS) -> AsyncIterator[Board]:
    """Another sender's board: nothing wakes it when this one changes an order."""
    board = Board(sender.database, pace, limits)
    task = asyncio.create_task(board.run())
    yield board
    task.cancel()


def statuses(changes: Changes | None) -> dict[str, str]:
    assert changes is not None
    orders: list[dict[str, Any]] = [msgspec.json.decode(order) for order in changes.orders]
    return {order["order_id"]: order["status"] for order in orders}


async def changed(watcher: Watcher) -> dict[str, str]:
    return statuses(await watcher.next(WITHIN))


async def test_first_a_watcher_is_handed_everything_oldest_first(sender: RunningSender) -> None:
    for number in ("1", "2", "3", "4"):
        await sender.place(number)
    await sender.complete("2")
    sender.clock.advance(seconds=1)
    await sender.client.post("/orders/1/cancel")
    async with running(sender) as board:
        with board.watch() as watcher:
            assert list((await changed(watcher)).items()) == [
                ("2", "completed"),
                ("1", "cancelled"),
                ("3", "open"),
                ("4", "open"),
            ]


async def test_only_what_another_sender_changed_follows(sender: RunningSender) -> None:
    await sender.place("1")
    async with running(sender) as board:
        with board.watch() as watcher:
            await changed(watcher)
            await sender.place("2")
            assert await changed(watcher) == {"2": "open"}
            await sender.complete("1")
            assert await changed(watcher) == {"1": "completed"}
            await sender.client.post("/orders/1/cancel")
            assert await changed(watcher) == {"1": "cancelled"}
            await sender.client.post("/orders/2/cancel")
            assert await changed(watcher) == {"2": "cancelled"}


async def test_slow_watcher_is_handed_the_latest_of_each_order(sender: RunningSender) -> None:
    async with running(sender) as board:
        with board.watch() as quick, board.watch() as slow:
            await changed(slow)
            await changed(quick)
            for change in ("", "/complete", "/cancel"):
                await sender.place("1") if not change else await sender.client.post(f"/orders/1{change}")
                await changed(quick)
            assert await changed(slow) == {"1": "cancelled"}


async def test_order_that_was_open_long_ago_is_followed_when_it_is_completed(sender: RunningSender) -> None:
    """Among the completed orders, it is not one of the newest that were placed."""
    await sender.place("old")
    async with running(sender, limits=FEW) as board:
        with board.watch() as watcher:
            await changed(watcher)
            for number in range(FEW.recent + 1):
                await sender.place(str(number))
                await sender.complete(str(number))
            sender.clock.advance(seconds=1)
            await sender.complete("old")
            seen: dict[str, str] = {}
            while seen.get("old") != "completed":
                seen |= await changed(watcher)


@one_database
async def test_orders_that_have_no_place_any_more_are_gone(sender: RunningSender) -> None:
    async with running(sender, limits=FEW) as watched:
        with watched.watch() as watcher:
            await changed(watcher)
            for number in ("1", "2", "3"):
                sender.clock.advance(seconds=1)
                await sender.place(number)
                await sender.complete(number)
            had: dict[str, str] = {}
            gone: list[str] = []
            while had.get("3") != "completed":
                changes = await watcher.next(WITHIN)
                assert changes is not None
                had |= statuses(changes)
                gone += changes.gone
            assert {number for number in had if number not in gone} == {"2", "3"}


@one_database
async def test_nobody_watches_and_nothing_is_read(sender: RunningSender) -> None:
    reads: list[object] = []
    read = sender.database.read

    async def read_and_note(work: Any) -> Any:
        if getattr(work, "func", None) is orders.board:
            reads.append(work)
        return await read(work)

    async with running(sender) as watched:
        sender.database.read = read_and_note  # type: ignore[method-assign]
        watched.wake()
        with watched.watch() as watcher:
            await changed(watcher)
        count = len(reads)
        assert count >= 1
        for _ in range(3):
            watched.wake()
            await asyncio.sleep(2 * QUICK.every_seconds)
        assert len(reads) <= count + 1  # a look that had begun


@one_database
async def test_own_change_is_shown_without_waiting_for_the_next_look(sender: RunningSender) -> None:
    async with running(sender, Pace(every_seconds=3600, least_seconds=0.01)) as watched:
        with watched.watch() as watcher:
            await changed(watcher)
            await sender.place("1")
            watched.wake()
            assert await changed(watcher) == {"1": "open"}


@one_database
async def test_quiet_board_times_out_and_a_sender_that_leaves_ends_the_watching(
    sender: RunningSender,
) -> None:
    async with running(sender) as watched:
        with watched.watch() as watcher:
            await changed(watcher)
            with pytest.raises(TimeoutError):
                await watcher.next(0.2)
            waiting = asyncio.create_task(watcher.next(WITHIN))
            await asyncio.sleep(0)
            watched.end()
            assert await waiting is None


# --- as the API has it


@pytest.fixture
def service(processes: Processes) -> SenderProcess:
    return processes.start_sender(redis_url="redis://127.0.0.1:1/0")  # it is not needed


@contextlib.contextmanager
def listening(service: SenderProcess, headers: dict[str, str]) -> Iterator[Iterator[str]]:
    with (
        httpx2.Client(base_url=service.url, headers=headers, timeout=WITHIN, trust_env=False) as client,
        client.stream("GET", "/orders/changes") as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield (line.removeprefix("data: ") for line in answer.iter_lines() if line)


def test_stream_has_each_change_and_ends_when_the_sender_leaves(
    service: SenderProcess, processes: Processes
) -> None:
    headers = processes.api_headers
    with (
        httpx2.Client(base_url=service.url, headers=headers, trust_env=False) as client,
        listening(service, headers) as lines,
    ):
        assert msgspec.json.decode(next(lines)) == {"orders": [], "gone": [], "more": False}
        client.post("/orders", json={"order_id": "1", "customer_id": "alice"}).raise_for_status()
        (order,) = msgspec.json.decode(next(lines))["orders"]
        assert (order["order_id"], order["status"]) == ("1", "open")
        client.post("/orders/1/cancel").raise_for_status()
        (order,) = msgspec.json.decode(next(lines))["orders"]
        assert order["status"] == "cancelled"
        assert service.terminate() == 0
        assert list(lines) == []


def test_key_needs_the_scope_of_orders(processes: Processes) -> None:
    keys = f"{processes.api_key},shop:events:a-key-for-events-only,office:orders:a-key-for-orders-only"
    service = processes.start_sender(redis_url="redis://127.0.0.1:1/0", api_keys=keys)
    with httpx2.Client(base_url=service.url, trust_env=False) as client:
        assert client.get("/orders/changes").status_code == 401
        refused = {"Authorization": "Bearer a-key-for-events-only"}
        assert client.get("/orders/changes", headers=refused).status_code == 403
        given = {"Authorization": "Bearer a-key-for-orders-only"}
        assert client.get("/orders/changes?limit=1", headers=given).status_code == 400
    with listening(service, given) as lines:
        assert msgspec.json.decode(next(lines))["orders"] == []


@one_database
async def test_board_that_is_full_refuses(sender: RunningSender) -> None:
    with contextlib.ExitStack() as watching:
        for _ in range(LIMITS.watchers):
            watching.enter_context(sender.api.board.watch())
        answer = await sender.client.get("/orders/changes")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:orderbell:problem:overloaded")
    assert answer.headers["retry-after"]
    await await_until(lambda: not sender.api.board.is_full)
