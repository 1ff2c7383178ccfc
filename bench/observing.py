"""What observing costs a gateway: a delivery to all and to one customer, and a connection.

Four gateways run at the same time, each with its own sender and Redis, and are measured in short turns, so
that a machine that is busy for some minutes is so for all of them: one that leaves out what it would observe
of itself (bench/unobserved.py), one that logs warnings only, one with the defaults, and one with traces,
which go to a collector that throws them away. Each round starts all four anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.contenders import Event, Orderbell
from bench.fan_out import BATCH, PACE, SOCKETS, Row, step_for, to_all, to_one
from bench.load import running_load
from bench.table import Table, median
from bench.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from bench.load import Load
    from bench.run import Run

TURNS = 8  # of each contender in a round, for each row
CONNECTIONS = 500  # in one turn
_CONNECTING = "connecting"
ROWS = (Row("to all", to_all, SOCKETS), Row("to one", to_one, 1, seconds_a_step=BATCH / PACE))


class Unobserved(Orderbell):
    name = "observes nothing"
    gateway_module = "bench.unobserved"


class Quiet(Orderbell):
    name = "LOG_LEVEL=WARNING"


class AsUsual(Orderbell):
    name = "defaults"
    environment: Mapping[str, str] = {"ORDERBELL_LOG_LEVEL": "INFO"}


class Traced(Orderbell):
    name = "TRACES=true"

    def __init__(self, collector: int) -> None:
        super().__init__()
        self.environment = {
            **AsUsual.environment,
            "ORDERBELL_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        }


@dataclass
class Turn:
    contender: str
    row: str
    count: int
    gateway_cpu: float

    @property
    def microseconds(self) -> float:
        return 1e6 * self.gateway_cpu / self.count


@dataclass
class _Running:
    contender: Orderbell
    load: Load
    connecting: Load
    steps: dict[str, Iterator[list[Event]]]


async def run(run: Run) -> Table:
    table = Table(
        "observing",
        f"What observing costs a gateway: processor time, {SOCKETS:,} sockets",
        [
            "gateway",
            *(f"{row} {what}" for row in (*_NAMES, _CONNECTING) for what in ("µs", "÷ nothing", "quartiles")),
        ],
        [
            f"Medians of {run.rounds} × {TURNS} turns, and of the ratios within a turn; user and system time,"
            f" a delivery or a connection. To one: {PACE:,} events a second, the whole way."
        ],
    )
    turns: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(1, run.rounds + 1):
        run.progress(f"observing: round {number} of {run.rounds}")
        for turn in await _round(run):
            turns[turn.contender, turn.row].append(turn.microseconds)
            table.rounds.append(asdict(turn))
    for name in dict.fromkeys(contender for contender, _ in turns):
        values: list[str | float | None] = [name]
        for row in (*_NAMES, _CONNECTING):
            costs = turns[name, row]
            ratios = [mine / none for mine, none in zip(costs, turns[Unobserved.name, row], strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            values += [median(costs), f"{median(ratios):.3f}", f"{low:.3f} to {high:.3f}"]
        table.add(*values)
    return table


async def _round(run: Run) -> list[Turn]:
    turns = []
    async with contextlib.AsyncExitStack() as stack:
        collector = await stack.enter_async_context(_collector())
        all_of_them = [
            await _start(run, contender, stack)
            for contender in (Unobserved(), Quiet(), AsUsual(), Traced(collector))
        ]
        for row in ROWS:
            for number in range(-1, TURNS):  # the first is to warm up
                shift = number % len(all_of_them)
                for one in (*all_of_them[shift:], *all_of_them[:shift]):
                    turn = await _deliver(run, one, row)
                    if number >= 0:
                        turns.append(turn)
        for number in range(-1, TURNS):
            shift = number % len(all_of_them)
            for one in (*all_of_them[shift:], *all_of_them[:shift]):
                turn = await _connect(one)
                if number >= 0:
                    turns.append(turn)
    return turns


async def _start(run: Run, contender: Orderbell, stack: contextlib.AsyncExitStack) -> _Running:
    await contender.start(run, 1, stack)
    load, connecting = (
        stack.enter_context(running_load(run.binaries, run.new_directory("load"), run.group))
        for _ in range(2)
    )
    await load.connect(
        [contender.connection(n, 0) for n in range(SOCKETS)], at_once=contender.connects_at_once
    )
    numbers = itertools.count(1)  # each socket gets the events to all, and afterwards those to it alone
    steps = {"to all": _to_all(numbers), "to one": _to_one(numbers)}
    return _Running(contender, load, connecting, steps)


def _to_all(numbers: Iterator[int]) -> Iterator[list[Event]]:
    for n in numbers:
        yield [Event(None, n)]


def _to_one(numbers: Iterator[int]) -> Iterator[list[Event]]:
    for n in numbers:
        for first in range(0, SOCKETS, BATCH):
            yield [Event(customer, n) for customer in range(first, first + BATCH)]


async def _deliver(run: Run, one: _Running, row: Row) -> Turn:
    gateway = Usage(one.contender.gateway_pids)
    await step_for(run.seconds, one.contender, one.load, row, one.steps[row.name])
    cpu = gateway.cpu
    counted = await one.load.wait(0, seconds=1)
    return Turn(one.contender.name, row.name, counted.delivered, cpu)


async def _connect(one: _Running) -> Turn:
    """Connections come, and go again: both are counted."""
    lines = [one.contender.connection(SOCKETS + n, 0) for n in range(CONNECTIONS)]
    gateway = Usage(one.contender.gateway_pids)
    await one.connecting.connect(lines, at_once=one.contender.connects_at_once)
    await one.connecting.close()
    await asyncio.sleep(_ENDED_SECONDS)
    return Turn(one.contender.name, _CONNECTING, CONNECTIONS, gateway.cpu)


@contextlib.asynccontextmanager
async def _collector() -> AsyncIterator[int]:
    """Takes what an OpenTelemetry exporter sends, over HTTP/1.1, and throws it away. Yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


_NAMES = tuple(row.name for row in ROWS)
_ENDED_SECONDS = 0.3  # until the gateway has noticed that they are gone
