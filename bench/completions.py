"""How many completions a second one sender makes durable, at 1, 8 and 32 callers.

Closed loop: each caller has one request under way. The relay publishes meanwhile, as it always does; that it
keeps up is shown by how long after the last answer the last event is in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench import orders
from bench.caller import callers
from bench.postgres import find_binaries, running_postgres
from bench.table import Table, median
from bench.usage import Usage
from shared.redis.server import connect_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from bench.caller import Caller
    from bench.run import Run
    from bench.stack import Stack

CALLERS = (1, 8, 32)
BATCH = 100  # events in one request
CUSTOMERS = 1_000
_ORDERS_A_SECOND = {1: 1_500, 8: 3_000, 32: 4_000}  # placed in advance, more than can be completed
_RELAYED_SECONDS = 60.0

NOTES = (
    "Durable: answered after a commit with synchronous=FULL (SQLite) or fsync and synchronous_commit"
    " (PostgreSQL). Closed loop, a request under way per caller; the relay publishes to Redis meanwhile."
    " Medians of the rounds.",
    "Floor: Python's sqlite3 alone, the same two statements, no HTTP, no JSON, no relay."
    " CPU: user and system time of the sender; 100 % is one core. Relayed: after the last answer.",
)


@dataclass
class Round:
    database: str
    what: str
    callers: int
    events: int
    seconds: float
    sender_cpu: float  # seconds
    client_cpu: float
    relayed_after: float  # seconds; until Redis has the last one

    @property
    def rate(self) -> float:
        return self.events / self.seconds


async def run(run: Run) -> Table:
    table = Table(
        "completions",
        "Completions a second, one sender",
        [
            "database, requests",
            "callers",
            "events a second",
            "sender CPU µs an event",
            "sender CPU %",
            "client CPU %",
            "relayed s",
        ],
        NOTES,
    )
    _add_floor(run, table)
    for database, opened in _databases(run):
        for what in ("complete", "event", "batch"):
            for count in CALLERS:
                rounds = [await _round(run, database, opened, what, count, n) for n in range(run.rounds)]
                _add(table, rounds)
    return table


def _databases(run: Run) -> Iterator[tuple[str, Callable[[], contextlib.AbstractContextManager[str]]]]:
    yield "SQLite", lambda: contextlib.nullcontext("")
    if binaries := find_binaries():
        yield "PostgreSQL", lambda: running_postgres(binaries, run.new_directory("postgres"), run.group)
    else:
        run.progress("no PostgreSQL here: its rows are left out")


def _add(table: Table, rounds: list[Round]) -> None:
    first = rounds[0]
    names = {
        "complete": "POST /orders/…/complete",
        "event": "POST /events",
        "batch": f"POST /events × {BATCH}",
    }
    table.rounds += [asdict(one) for one in rounds]
    table.add(
        f"{first.database}, {names[first.what]}",
        first.callers,
        median([r.rate for r in rounds]),
        median([1e6 * r.sender_cpu / r.events for r in rounds]),
        median([100 * r.sender_cpu / r.seconds for r in rounds]),
        median([100 * r.client_cpu / r.seconds for r in rounds]),
        median([r.relayed_after for r in rounds]),
    )


async def _round(
    run: Run,
    database: str,
    opened: Callable[[], contextlib.AbstractContextManager[str]],
    what: str,
    count: int,
    number: int,
) -> Round:
    run.progress(f"completions: {database}, {what}, {count} callers, round {number + 1} of {run.rounds}")
    with opened() as url, run.stack(gateways=0, database_url=url) as stack:
        async with (
            _requests(run, stack, what, count) as requests,
            callers(stack.sender.port, count) as all_callers,
        ):
            return await _measure(run, stack, database, what, requests, all_callers)


@contextlib.asynccontextmanager
async def _requests(run: Run, stack: Stack, what: str, count: int) -> AsyncIterator[Iterator[bytes]]:
    """As many as can be needed; what can be made before is."""
    if what == "complete":
        number = int(_ORDERS_A_SECOND[count] * run.seconds)
        await orders.place(stack, [(f"order-{n}", f"customer-{n % CUSTOMERS}") for n in range(number)])
        yield iter([orders.completion(stack, f"order-{n}") for n in range(number)])
        return
    channels = (f"customer:customer-{n % CUSTOMERS}" for n in itertools.count())
    events = (orders.event(channel) for channel in channels)
    if what == "event":
        yield (orders.single(stack, one) for one in events)
    else:
        yield (orders.batch(stack, itertools.islice(events, BATCH)) for _ in itertools.count())


async def _measure(
    run: Run, stack: Stack, database: str, what: str, requests: Iterator[bytes], all_callers: list[Caller]
) -> Round:
    expected = 200 if what == "complete" else 202
    done = 0

    async def call(caller: Caller) -> None:
        nonlocal done
        for request in requests:
            answer = await caller.call(request)
            if answer.status != expected:
                raise orders.OrderRefused(f"{answer.status} {answer.body.decode(errors='replace')}")
            done += 1
            if time.monotonic() > deadline:
                return

    sender = Usage([stack.sender.pid])
    client_cpu, started = time.process_time(), time.monotonic()
    deadline = started + run.seconds
    async with asyncio.TaskGroup() as tasks:
        for caller in all_callers:
            tasks.create_task(call(caller))
    seconds, sender_cpu = time.monotonic() - started, sender.cpu
    client_cpu = time.process_time() - client_cpu
    events = done * (BATCH if what == "batch" else 1)
    relayed_after = await _wait_relayed(stack, events)
    return Round(database, what, len(all_callers), events, seconds, sender_cpu, client_cpu, relayed_after)


async def _wait_relayed(stack: Stack, events: int) -> float:
    """Seconds until Redis has published that many. The stack is fresh: it has published nothing else."""
    started = time.monotonic()
    async with connect_server(stack.redis.url) as redis:
        while True:
            info = await redis.info("commandstats")
            if info.get("cmdstat_xadd", {}).get("calls", 0) >= events:
                return time.monotonic() - started
            if time.monotonic() - started > _RELAYED_SECONDS:
                raise orders.OrderRefused(f"{events} events are not in Redis after {_RELAYED_SECONDS:.0f} s")
            await asyncio.sleep(0.02)


def _add_floor(run: Run, table: Table) -> None:
    for size in (1, BATCH):
        rates = []
        for n in range(run.rounds):
            run.progress(f"completions: floor, {size} an event's commit, round {n + 1} of {run.rounds}")
            rates.append(_floor(run.new_directory("floor"), size, run.seconds / 2))
        table.rounds.append({"database": "floor", "batch": size, "rates": [rate for rate, _ in rates]})
        what = "a commit each" if size == 1 else f"{size} a commit"
        table.add(
            f"floor: sqlite3, {what}",
            1,
            median([rate for rate, _ in rates]),
            median([cpu for _, cpu in rates]),
            None,
            None,
            None,
        )


def _floor(path: Path, size: int, seconds: float) -> tuple[float, float]:
    """Events a second, and microseconds of processor time an event."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE channels (channel TEXT PRIMARY KEY, seq INTEGER) WITHOUT ROWID")
    database.execute("CREATE TABLE events (channel TEXT, seq INTEGER, text TEXT, PRIMARY KEY (channel, seq))")
    numbers = itertools.count()
    cpu, started, done = time.process_time(), time.monotonic(), 0
    while time.monotonic() - started < seconds:
        database.execute("BEGIN IMMEDIATE")
        for n in itertools.islice(numbers, size):
            channel = f"customer:customer-{n % CUSTOMERS}"
            (seq,) = database.execute(
                "INSERT INTO channels VALUES (?, 1) ON CONFLICT DO UPDATE SET seq = seq + 1 RETURNING seq",
                (channel,),
            ).fetchone()
            database.execute("INSERT INTO events VALUES (?, ?, ?)", (channel, seq, "x" * 330))
        database.execute("COMMIT")
        done += size
    elapsed, cpu = time.monotonic() - started, time.process_time() - cpu
    database.close()
    return done / elapsed, 1e6 * cpu / done
