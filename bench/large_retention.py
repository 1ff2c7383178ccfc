"""What callers notice of retention on a large database, and whether it keeps up with what arrives.

Turns with and without anything to delete, one after the other, on the same database; callers in an open loop.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
import urllib.request
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench import orders
from bench.caller import callers
from bench.large_databases import filled_database, sizes
from bench.large_sqlite import filled_sqlite
from bench.postgres import find_binaries
from bench.table import Table, median

if TYPE_CHECKING:
    from bench.caller import Caller
    from bench.large_databases import Filled
    from bench.large_sqlite import FilledSqlite
    from bench.run import Run

RATE = 100.0  # orders completed a second
CALLERS = 16
_WARM_SECONDS = 3.0
_QUIET_DAYS, _PRUNING_DAYS = "3650", "7"


@dataclass(frozen=True)
class Turn:
    p50: float  # seconds, from when a request was due to its answer
    p99: float
    deleted: float  # events a second


async def retention(run: Run) -> Table:
    table = Table(
        "large-retention",
        "What callers notice of retention",
        [
            "database",
            "events",
            "p50 quiet ms",
            "p50 ratio",
            "p99 quiet ms",
            "p99 ratio",
            "deleted a second",
            "recorded",
        ],
        [
            f"{RATE:.0f} completions a second in an open loop; a turn without anything to delete, then one in"
            " which all but a thousand events are old. Medians of the turns, and of the pairs' ratios."
        ],
    )
    for size in sizes(run)[1:]:
        async with filled_sqlite(run, size) as filled:
            await _add(run, table, "SQLite", filled)
        if find_binaries():
            async with filled_database(run, size) as filled_postgres:
                await _add(run, table, "PostgreSQL", filled_postgres)
        else:
            run.progress("no PostgreSQL here: its rows are left out")
    return table


async def _add(run: Run, table: Table, database: str, filled: Filled | FilledSqlite) -> None:
    pairs: list[tuple[Turn, Turn]] = []
    for n in range(run.rounds):
        run.progress(f"retention on {database}, {filled.size:,} events, round {n + 1} of {run.rounds}")
        quiet = await _turn(run, filled, _QUIET_DAYS)
        pairs.append((quiet, await _turn(run, filled, _PRUNING_DAYS)))
        run.progress(f"{quiet} {pairs[-1][1]}")
    table.rounds.append(
        {"database": database, "events": filled.size, "pairs": [(asdict(a), asdict(b)) for a, b in pairs]}
    )
    table.add(
        database,
        f"{filled.size:,}",
        median([1_000 * quiet.p50 for quiet, _ in pairs]),
        median([pruning.p50 / quiet.p50 for quiet, pruning in pairs]),
        median([1_000 * quiet.p99 for quiet, _ in pairs]),
        median([pruning.p99 / quiet.p99 for quiet, pruning in pairs]),
        median([pruning.deleted for _, pruning in pairs]),
        RATE,
    )


async def _turn(run: Run, filled: Filled | FilledSqlite, days: str) -> Turn:
    warm = int(RATE * _WARM_SECONDS)
    names = await filled.place(warm + int(RATE * run.seconds))
    with filled.stack.running_sender(history_days=days) as sender:
        async with callers(sender.port, CALLERS) as all_callers:
            free: asyncio.Queue[Caller] = asyncio.Queue()
            for caller in all_callers:
                free.put_nowait(caller)

            async def call(at: float, name: str) -> float:
                await asyncio.sleep(at - time.monotonic())
                caller = await free.get()
                answer = await caller.call(orders.completion(filled.stack, name))
                free.put_nowait(caller)
                if answer.status != 200:
                    raise orders.OrderRefused(f"{answer.status} {answer.body.decode(errors='replace')}")
                return time.monotonic() - at

            async def paced(some: list[str]) -> list[float]:
                began = time.monotonic()
                return await asyncio.gather(*(call(began + n / RATE, name) for n, name in enumerate(some)))

            await paced(names[:warm])
            began, before = time.monotonic(), await asyncio.to_thread(_deleted, sender.port)
            taken = await paced(names[warm:])
            deleted = await asyncio.to_thread(_deleted, sender.port) - before
            hundredths = statistics.quantiles(taken, n=100)
            return Turn(hundredths[49], hundredths[98], deleted / (time.monotonic() - began))


def _deleted(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = re.search(r"^orderbell_events_pruned_total (\S+)", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0
