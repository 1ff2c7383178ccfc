"""An overloaded sender serves its callers again soon after the overload has ended.

Callers give up after a second and come again with the same key. A sender that works for those that have left
has no time for the others, which then leave as well: it would never recover by itself (Bronson et al.,
"Metastable Failures in Distributed Systems", HotOS 2021).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.postgres_servers import connected_to
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, SenderProcess

pytestmark = [pytest.mark.anyio, pytest.mark.long, pytest.mark.alone]

GIVE_UP_SECONDS = 1.0
SLOW_SECONDS = 4.0
CUSTOMERS = 20
PERIOD = 0.05  # seconds


class Callers:
    """Complete orders, each over connections of its own or over kept ones."""

    def __init__(self, sender: SenderProcess, api_key: str, *, kept: bool) -> None:
        self._port = sender.port
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] | None = [] if kept else None
        self._common = f"host: 127.0.0.1\r\nauthorization: Bearer {api_key}\r\n"
        self._tasks: set[asyncio.Task[None]] = set()
        self.begun = 0
        self.completed: set[str] = set()  # answered 200
        self.given_up = 0

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    async def come(self, rate: float, seconds: float) -> None:
        """`rate` new callers a second."""
        began, count = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            while count < passed * rate:
                count += 1
                self._begin()
            await asyncio.sleep(0.01)  # the pace of arrivals, not a wait for anything

    def _begin(self) -> None:
        self.begun += 1
        task = asyncio.create_task(
            self._complete(f"order-{self.begun}", f"customer-{self.begun % CUSTOMERS}")
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _complete(self, order_id: str, customer: str) -> None:
        body = json.dumps({"order_id": order_id, "customer_id": customer, "data": {}}).encode()
        await self._until_answered("/orders", body, f"place-{order_id}")
        await self._until_answered(f"/orders/{order_id}/complete", b"{}", f"complete-{order_id}")
        self.completed.add(order_id)

    async def _until_answered(self, path: str, body: bytes, key: str) -> None:
        while True:
            try:
                async with asyncio.timeout(GIVE_UP_SECONDS):
                    status = await self._post(path, body, key)
            except (OSError, EOFError):  # TimeoutError is one
                self.given_up += 1
                status = 0
            if status in (200, 201):
                return
            await asyncio.sleep(0.05)  # as callers pause before they try again

    async def _post(self, path: str, body: bytes, key: str) -> int:
        reader, writer = (self._kept and self._kept.pop()) or await asyncio.open_connection(
            "127.0.0.1", self._port
        )
        answered = False
        try:
            head = f"POST {path} HTTP/1.1\r\n{self._common}content-type: application/json\r\n"
            head += f"idempotency-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            answered = b"connection: close" not in answer
        finally:
            if answered and self._kept is not None:
                self._kept.append((reader, writer))
            else:
                writer.transport.abort()
        return int(answer[9:12])

    def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for _, writer in self._kept or []:
            writer.transport.abort()


def processor_seconds(pid: int) -> float:
    """All threads' time."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files) / 1e9


@contextlib.asynccontextmanager
async def busy_machine(sender: SenderProcess, share: float) -> AsyncIterator[None]:
    """The sender gets this share of a processor's time, as if many other processes ran."""

    async def slow() -> None:
        while True:
            sender.resume()
            began, used = time.monotonic(), processor_seconds(sender.pid)
            while processor_seconds(sender.pid) - used < PERIOD * share:
                await asyncio.sleep(0.002)  # between two looks at its processor time
                if time.monotonic() - began > PERIOD:
                    break
            sender.stop()
            await asyncio.sleep(max(0.0, began + PERIOD - time.monotonic()))

    task = asyncio.create_task(slow())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        sender.resume()


@contextlib.asynccontextmanager
async def locked_database(url: str) -> AsyncIterator[None]:
    """Another program holds the lock that every write needs."""
    if url.startswith("sqlite"):
        with contextlib.closing(
            sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    async with connected_to(url) as connection, connection.transaction():
        await connection.execute("LOCK TABLE orderbell.orders IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.fixture
async def sender(processes: Processes, database_url: str) -> AsyncIterator[SenderProcess]:
    sender = processes.start_sender(database_url=database_url)
    yield sender
    sender.resume()


@pytest.mark.parametrize("kept", [False, True], ids=["new-connections", "kept-connections"])
async def test_sender_serves_callers_again_after_it_was_stopped_on_a_busy_machine(
    sender: SenderProcess, processes: Processes, kept: bool
) -> None:
    callers = Callers(sender, processes.api_key, kept=kept)
    try:
        async with busy_machine(sender, 0.2):
            await callers.come(20, 2)
        sender.stop()
        await callers.come(100, SLOW_SECONDS)
        assert callers.given_up
        async with busy_machine(sender, 0.2):
            # Those that wait come again each second, which alone is more than the sender can serve.
            coming = asyncio.create_task(callers.come(20, 60))
            await await_until(lambda: callers.under_way < 20, 25)
            coming.cancel()
        await await_until(lambda: not callers.under_way, 10)
    finally:
        callers.end()
    await assert_each_completed_once(sender, processes, callers)


async def test_sender_serves_callers_again_when_its_database_is_free(
    sender: SenderProcess, processes: Processes, database_url: str
) -> None:
    callers = Callers(sender, processes.api_key, kept=False)
    try:
        await callers.come(20, 1)
        async with locked_database(database_url):
            await callers.come(50, SLOW_SECONDS)
        assert callers.given_up
        await callers.come(20, 3)
        await await_until(lambda: not callers.under_way, 25)
    finally:
        callers.end()
    await assert_each_completed_once(sender, processes, callers)


async def assert_each_completed_once(sender: SenderProcess, processes: Processes, callers: Callers) -> None:
    assert len(callers.completed) == callers.begun
    found: list[str] = []
    async with httpx2.AsyncClient(base_url=sender.url, headers=processes.api_headers) as client:
        for number in range(CUSTOMERS):
            answer = await client.get(f"/channels/customer:customer-{number}/events?limit=200")
            assert answer.status_code == 200, answer.text
            found += [event["data"]["order_id"] for event in answer.json()["events"]]
    assert sorted(found) == sorted(callers.completed)
