"""How Orderbell's costs grow: with gateways, with connections, with the length of what was missed."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from bench.connecting import measure as measure_connecting
from bench.contenders import Event, Orderbell
from bench.fan_out import BATCH, PACE, SOCKETS, Row, to_one
from bench.fan_out import measure as measure_fan_out
from bench.load import running_load
from bench.table import Table, median
from bench.usage import Usage

if TYPE_CHECKING:
    from bench.run import Run

GATEWAYS = (1, 2, 4, 8)
CONNECTIONS = (1_000, 5_000, 10_000, 15_000)
MISSED = (10, 100, 1_000)
_BEHIND = 50  # connections that catch up at the same time
_WHOLE_SECONDS = 120.0


async def run(run: Run) -> Table:
    table = Table(
        "growth",
        "Growth of Orderbell's costs",
        [
            "what grows",
            "µs a delivery, to one",
            "KiB a connection",
            "CPU µs to connect",
            "catching up µs an event",
        ],
        [
            f"Gateways: {SOCKETS:,} sockets over them, {PACE:,} events a second the whole way, gateways' CPU"
            " summed. Connections: one gateway, events flat out into Redis.",
            f"Missed: {_BEHIND} connections at once, each with so many events to catch up; gateway's CPU,"
            " connecting included. Medians of the rounds.",
        ],
    )
    for gateways in GATEWAYS:
        row = Row(f"{gateways} gateways", to_one, 1, gateways, seconds_a_step=BATCH / PACE)
        table.add(f"gateways: {gateways}", await _delivery(run, table, row), None, None, None)
    for sockets in CONNECTIONS:
        steps = partial(to_one, sockets)
        row = Row(f"{sockets} connections", steps, 1, to_redis=True, sockets=sockets)
        table.add(
            f"connections: {sockets:,}",
            await _delivery(run, table, row),
            *await _connecting(run, table, sockets),
            None,
        )
    for missed in MISSED:
        table.add(f"missed: {missed:,}", None, None, None, await _catching_up(run, table, missed))
    return table


async def _delivery(run: Run, table: Table, row: Row) -> float:
    rounds = []
    for n in range(run.rounds):
        run.progress(f"growth: {row.name}, round {n + 1} of {run.rounds}")
        rounds.append(await measure_fan_out(run, Orderbell, row))
    table.rounds += [asdict(one) for one in rounds]
    return median([one.microseconds for one in rounds])


async def _connecting(run: Run, table: Table, sockets: int) -> tuple[float, float]:
    rounds = []
    for n in range(run.rounds):
        run.progress(f"growth: connecting {sockets:,}, round {n + 1} of {run.rounds}")
        rounds.append(await measure_connecting(run, Orderbell, sockets))
    table.rounds += [asdict(one) for one in rounds]
    return median([one.kibibytes for one in rounds]), median([one.microseconds for one in rounds])


async def _catching_up(run: Run, table: Table, missed: int) -> float:
    costs = []
    for n in range(run.rounds):
        run.progress(f"growth: {missed} missed events, round {n + 1} of {run.rounds}")
        costs.append(await _catching_up_once(run, missed))
    table.rounds.append({"missed": missed, "microseconds": costs})
    return median(costs)


async def _catching_up_once(run: Run, missed: int) -> float:
    orderbell = Orderbell()
    async with contextlib.AsyncExitStack() as stack:
        await orderbell.start(run, 1, stack)
        load = stack.enter_context(running_load(run.binaries, run.new_directory("load"), run.group))
        events = (Event(customer, n) for n in range(1, missed + 1) for customer in range(_BEHIND))
        while batch := list(itertools.islice(events, 500)):
            await orderbell.publish(batch)
        lines = [orderbell.connection(n, 0, after=f"customer:customer-{n}=1.0") for n in range(_BEHIND)]
        gateway = Usage(orderbell.gateway_pids)
        await load.reset()
        await load.connect(lines)
        await load.wait_all(_BEHIND * missed, seconds=_WHOLE_SECONDS)
        return 1e6 * gateway.cpu / (_BEHIND * missed)
