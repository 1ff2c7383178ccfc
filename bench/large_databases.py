"""What the sender's statements cost as PostgreSQL's tables grow, and how many completions a second are left.

Pages are counted by auto_explain in the running sender's own sessions (EXPLAIN (ANALYZE, BUFFERS)): what it
really runs, with the plans that it really gets. Autovacuum is off, so that each state stays what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from bench import orders
from bench.caller import callers
from bench.large import as_of_postgres, freshen, open_orders
from bench.postgres import find_binaries, running_postgres
from bench.table import Table, median

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from bench.caller import Caller
    from bench.run import Run
    from bench.stack import Stack

SIZES = (1_000, 1_000_000, 10_000_000)  # events; a tenth as many channels
SINCE_VACUUM = 500_000  # events published
CALLERS = (8, 32)
RATE = 100  # orders a second while statements are watched
_WATCHED_SECONDS = 8.0
_WARM_SECONDS = 4.0  # the relay's floor is known then
_AGO = """to_char((now() - interval '{}') AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
_OLD, TWO_HOURS_AGO = _AGO.format("8 days"), _AGO.format("2 hours")
_NOW = """to_char(now() AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
_EXPLAINED = (
    "session_preload_libraries=auto_explain",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_analyze=on",
    "auto_explain.log_buffers=on",
    "auto_explain.log_timing=off",
    "auto_explain.log_format=json",
    "log_line_prefix=@@",
    "lc_messages=C",
)
_SETTINGS = ("autovacuum=off", "max_wal_size=8GB", "shared_buffers=512MB", "synchronous_commit=on")

_FILLING = ("autovacuum=off", "max_wal_size=8GB", "shared_buffers=4GB", "fsync=off", "full_page_writes=off")


class Plan(NamedTuple):
    statement: str
    pages: int


async def statements(run: Run) -> Table:
    """Pages of each statement in each state."""
    found: dict[str, dict[str, float]] = {}
    for size in sizes(run):
        async with filled_database(run, size, *_EXPLAINED) as filled:
            found[f"{size:,}"] = await filled.watch(run)
            async with _execution(filled.url) as other:
                await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                await other.execute("SELECT pg_current_xact_id(), (SELECT count(*) FROM orderbell.outbox)")
                await filled.publish(SINCE_VACUUM)
                found[f"{size:,}, open"] = await filled.watch(run)
            found[f"{size:,}, + 500,000"] = await filled.watch(run)
    table = Table(
        "large-statements",
        "Pages a statement, as the tables grow",
        ["statement", *found],
        [
            "Columns: events in the database, a tenth as many channels, vacuumed. + 500,000: published since"
            " the last vacuum. Open: the same, while another transaction is open since before. Medians of"
            f" all executions in {_WATCHED_SECONDS:.0f} s; {RATE} completions a second, retention at work."
        ],
    )
    for statement in sorted({name for pages in found.values() for name in pages}):
        table.add(statement, *(pages.get(statement) for pages in found.values()))
    table.rounds.append(found)
    return table


async def completions(run: Run) -> Table:
    """Rates on a large database against an empty one, in turns."""
    table = Table(
        "large-completions",
        "Completions a second, large against empty",
        ["events", "callers", "empty", "large", "ratio"],
        [
            "Median of the rounds' ratios; each round measures both, one after the other. Retention is at"
            " work on the large one."
        ],
    )
    small, *large = sizes(run)
    for size in large:
        async with filled_database(run, small) as empty, filled_database(run, size) as full:
            for count in CALLERS:
                pairs = []
                for n in range(run.rounds):
                    run.progress(f"{size:,} events, {count} callers, round {n + 1} of {run.rounds}")
                    pairs.append((await empty.complete(run, count), await full.complete(run, count)))
                table.rounds.append({"events": size, "callers": count, "rates": pairs})
                table.add(
                    f"{size:,}",
                    count,
                    median([a for a, _ in pairs]),
                    median([b for _, b in pairs]),
                    median([b / a for a, b in pairs]),
                )
    return table


def sizes(run: Run) -> list[int]:
    """Events in a database: few, and then as many as this run is allowed."""
    return [*(size for size in SIZES if size < run.largest), run.largest]


@dataclass
class Filled:
    """A database and the sender on it, which runs only while something is measured."""

    url: str
    log: Path
    size: int
    stack: Stack
    _placed: int = 0

    @property
    def channels(self) -> int:
        return max(self.size // 10, 1)

    async def watch(self, run: Run) -> dict[str, float]:
        """The median pages of each statement."""
        run.progress(f"watching statements on {self.size:,} events")
        names = await self.place(int(RATE * (_WARM_SECONDS + _WATCHED_SECONDS)))
        with self.stack.running_sender():
            async with callers(self.stack.sender.port, 1) as (caller,):
                await self._complete_paced(caller, names[: int(RATE * _WARM_SECONDS)])
                beginning = self.log.stat().st_size
                await self._complete_paced(caller, names[int(RATE * _WARM_SECONDS) :])
        await asyncio.sleep(0.5)
        with self.log.open("rb") as log:
            log.seek(beginning)
            plans = parse(log.read().decode(errors="replace"))
        pages = defaultdict(list)
        for plan in plans:
            pages[plan.statement].append(float(plan.pages))
        return {statement: median(counts) for statement, counts in pages.items()}

    async def complete(self, run: Run, count: int) -> float:
        """Completions a second, in a closed loop."""
        names = iter(await self.place(int(4_000 * run.seconds)))
        with self.stack.running_sender():
            async with callers(self.stack.sender.port, count) as all_callers:
                await asyncio.sleep(1.0)  # retention begins
                began, done = time.monotonic(), 0

                async def call(caller: Caller) -> None:
                    nonlocal done
                    for name in names:
                        answer = await caller.call(orders.completion(self.stack, name))
                        if answer.status != 200:
                            raise orders.OrderRefused(
                                f"{answer.status} {answer.body.decode(errors='replace')}"
                            )
                        done += 1
                        if time.monotonic() - began > run.seconds:
                            return

                async with asyncio.TaskGroup() as tasks:
                    for caller in all_callers:
                        tasks.create_task(call(caller))
                return done / (time.monotonic() - began)

    async def publish(self, count: int) -> None:
        """Record and publish so many events after the last vacuum."""
        async with _execution(self.url) as connection:
            await connection.execute("SET search_path = orderbell; SET synchronous_commit = off")
            await connection.execute(_RECORD.format(count=count, number=self._placed))
            await connection.execute(
                "DELETE FROM outbox WHERE position <= (SELECT max(position) FROM events)"
            )

    async def place(self, count: int) -> list[str]:
        prefix = f"order-{self._placed}"
        self._placed += 1
        async with _execution(self.url) as connection:
            await connection.execute("SET search_path = orderbell; SET synchronous_commit = off")
            placing = open_orders(
                count,
                self.channels,
                prefix=prefix,
                now=_NOW,
                series=f"generate_series(1, {count}) AS n",
            )
            await connection.execute(placing)
            await connection.execute("CHECKPOINT")
        return [f"{prefix}-{n}" for n in range(1, count + 1)]

    async def _complete_paced(self, caller: Caller, names: Sequence[str]) -> None:
        began = time.monotonic()
        for n, name in enumerate(names):
            await asyncio.sleep(max(0.0, began + n / RATE - time.monotonic()))
            answer = await caller.call(orders.completion(self.stack, name))
            if answer.status != 200:
                raise orders.OrderRefused(f"{answer.status} {answer.body.decode(errors='replace')}")


@contextlib.asynccontextmanager
async def filled_database(run: Run, size: int, *settings: str) -> AsyncIterator[Filled]:
    binaries = find_binaries()
    if binaries is None:
        raise orders.OrderRefused("no PostgreSQL here that can be started")
    data = await _filled_directory(run, binaries, size)
    directory = run.new_directory("postgres")
    with (
        running_postgres(binaries, directory, run.group, *_SETTINGS, *settings, data=data) as url,
        run.stack(gateways=0, database_url=url) as stack,
    ):
        stack.sender.end()
        stack.servers.clear()
        async with _execution(url) as connection:
            await connection.execute("SET search_path = orderbell; " + freshen(TWO_HOURS_AGO))
        yield Filled(url, directory / "log", size, stack)


async def _filled_directory(run: Run, binaries: Path, size: int) -> Path:
    """Of a server that has ended; filled once a run, or once for all runs that keep it."""
    kept = (run.databases or run.directory / "filled").resolve() / f"{size}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        directory = run.new_directory("postgres")
        with (
            running_postgres(binaries, directory, run.group, *_FILLING) as url,
            run.stack(gateways=0, database_url=url) as stack,
        ):
            stack.sender.end()  # it has made the tables
            stack.servers.clear()
            run.progress(f"filling a database with {size:,} events")
            async with _execution(url) as connection:
                await connection.execute("SET search_path = orderbell; SET synchronous_commit = off")
                for statement in as_of_postgres(max(size // 10, 1), size, _OLD):
                    await connection.execute(statement)
                await connection.execute("VACUUM ANALYZE")
        shutil.move(directory / "data", kept)
    return kept


@contextlib.asynccontextmanager
async def _execution(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        await connection.execute("SET auto_explain.log_min_duration = -1")
        yield connection
    finally:
        await connection.close()


def parse(log: str) -> list[Plan]:
    """The plans in what PostgreSQL has logged."""
    plans = []
    for entry in log.split("\n@@"):
        _, found, plan = entry.partition(" plan:\n")
        if found:
            with contextlib.suppress(json.JSONDecodeError):  # cut off at the end of the file
                logged = json.loads(plan)
                pages = logged["Plan"]["Shared Hit Blocks"] + logged["Plan"]["Shared Read Blocks"]
                plans.append(Plan(_name(logged["Query Text"]), pages))
    return plans


def _name(query: str) -> str:
    """One line that tells the statement from others, whatever its parameters."""
    words = re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", query)).strip()
    words = re.sub(r"\$\d+(::[A-Z\[\] ]+)?", "?", words)
    return words if len(words) <= 90 else f"{words[:55]} … {words[-32:]}"


# In their own channels, which Redis does not know, so nothing seems to be lost there.
_RECORD = """
    WITH taken AS (
        INSERT INTO channels (channel, seq, pruned_seq, epoch)
        SELECT 'customer:published-{number}-' || n, 10, 0, 1 FROM generate_series(1, {count} / 10) AS n
        RETURNING channel),
    recorded AS (
        INSERT INTO events (channel, seq, epoch, identity, content_digest, recorded_at, text)
        SELECT channel, seq, 1, md5(channel || '/' || seq), '',
            to_char(now() AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '{{}}' || repeat(' ', 400)
        FROM taken CROSS JOIN generate_series(1, 10) AS seq
        RETURNING position, epoch)
    INSERT INTO outbox SELECT position, epoch FROM recorded
"""
