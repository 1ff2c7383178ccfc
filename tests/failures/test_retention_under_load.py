"""Retention beside callers: it keeps up with ten times what arrives, and callers hardly notice."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest

from bench import large_databases, large_sqlite
from bench.caller import callers, post
from bench.large import freshen
from tests.large_databases import execute, fill_postgres, fill_sqlite, in_thread, make_tables
from tests.postgres_servers import fresh_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.caller import Caller
    from tests.processes import Processes, SenderProcess

pytestmark = [pytest.mark.postgres, pytest.mark.long, pytest.mark.alone]

EVENTS, CHANNELS = 400_000, 40_000
RATE = 50.0  # orders a second
SECONDS = 5.0  # of each measurement
ROUNDS = 3  # of a quiet and a pruning one
CALLERS = 16
# Ratios of medians over the rounds, each pruning round against the quiet one before it. On a quiet machine
# 1.2 and 2 are to be kept; one that others use gives some more either way.
P50, P99 = 2.0, 3.0


class Measured(NamedTuple):
    p50: float  # seconds
    p99: float
    deleted: float  # events a second


@pytest.fixture(params=["sqlite", "postgres"])
def filled_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'filled.db'}"
        make_tables(url)
        fill_sqlite(tmp_path / "filled.db", channels=CHANNELS, events=EVENTS)
        with closing(sqlite3.connect(tmp_path / "filled.db")) as connection, connection:
            connection.execute(freshen(large_sqlite.TWO_HOURS_AGO))
        yield url
        return
    with fresh_database(request.getfixturevalue("postgres_url")) as url:
        make_tables(url)
        fill_postgres(url, channels=CHANNELS, events=EVENTS)
        execute(url, ["SET search_path = orderbell", freshen(large_databases.TWO_HOURS_AGO)])
        yield url.replace("+asyncpg", "", 1)


def test_retention_deletes_ten_times_what_arrives_and_callers_hardly_notice(
    filled_url: str, processes: Processes
) -> None:
    rounds = []
    for number in range(ROUNDS):
        quiet = measured(processes, filled_url, f"quiet-{number}", history_days="3650")
        pruning = measured(processes, filled_url, f"pruning-{number}", history_days="7")
        assert quiet.deleted == 0
        rounds.append((quiet, pruning))
        print(f"quiet {quiet}, pruning {pruning}")
    p50 = statistics.median(pruning.p50 / quiet.p50 for quiet, pruning in rounds)
    p99 = statistics.median(pruning.p99 / quiet.p99 for quiet, pruning in rounds)
    deleted = statistics.median(pruning.deleted for _, pruning in rounds)
    print(f"p50 {p50:.2f} x, p99 {p99:.2f} x, {deleted:,.0f} deleted a second")
    assert deleted >= 10 * RATE
    assert p50 <= P50
    assert p99 <= P99


def measured(processes: Processes, url: str, name: str, *, history_days: str) -> Measured:
    sender = processes.start_sender(database_url=url, log_level="WARNING", history_days=history_days)
    try:
        return in_thread(_measure(sender, processes.api_key, name))  # type: ignore[no-any-return]
    finally:
        sender.terminate()


async def _measure(sender: SenderProcess, api_key: str, name: str) -> Measured:
    count = int(RATE * SECONDS)
    async with callers(sender.port, CALLERS) as all_callers:
        free: asyncio.Queue[Caller] = asyncio.Queue()
        for caller in all_callers:
            free.put_nowait(caller)

        async def call(at: float, request: bytes) -> float:
            """Seconds from the moment when the request was due to its answer."""
            await asyncio.sleep(at - time.monotonic())
            caller = await free.get()
            answer = await caller.call(request)
            free.put_nowait(caller)
            assert answer.status in (200, 201), answer
            return time.monotonic() - at

        orders = [f"{name}-{n}" for n in range(count)]
        placing = [
            b'{"order_id":"%b","customer_id":"filled-%d"}' % (order.encode(), n * 61 % CHANNELS + 1)
            for n, order in enumerate(orders)
        ]
        now = time.monotonic()
        await asyncio.gather(
            *(call(now + n / 400, post("/orders", body, api_key)) for n, body in enumerate(placing))
        )
        began, before = time.monotonic(), pruned(sender)
        taken = await asyncio.gather(
            *(
                call(began + n / RATE, post(f"/orders/{order}/complete", b"", api_key))
                for n, order in enumerate(orders)
            )
        )
        deleted = (pruned(sender) - before) / (time.monotonic() - began)
    hundredths = statistics.quantiles(taken, n=100)
    return Measured(hundredths[49], hundredths[98], deleted)


def pruned(sender: SenderProcess) -> float:
    text = httpx2.get(f"{sender.url}/metrics", timeout=5).text
    found = re.search(r"^orderbell_events_pruned_total (\S+)", text, re.MULTILINE)
    assert found, text
    return float(found[1])
