"""The reconnect storm: a gateway dies, and all its browsers come to another at once, with events to catch up.

Each browser comes with its cursor and has missed five events. It is over when the last browser is whole:
every event there, once, in order. The gateway that is left is one process, or has a worker for each core.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.contenders import Event, Orderbell
from bench.load import LoadFailed, running_load
from bench.table import Table, median
from bench.usage import Usage
from shared.redis.server import connect_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.run import Run

CLIENTS = 5_000
MISSED = 5
_BATCH = 500
_WHOLE_SECONDS = 120.0


@dataclass
class Round:
    workers: int
    redis_emptied: bool
    lost: int
    seconds: float
    connect_seconds: float
    gateway_cpu: float
    sender_cpu: float
    redis_cpu: float


async def run(run: Run) -> Table:
    table = Table(
        "storm",
        f"Reconnect storm: {CLIENTS:,} browsers, {MISSED} missed events each",
        [
            "gateway",
            "Redis",
            "until the last is whole s",
            "all connected s",
            "lost",
            "gateway CPU s",
            "sender CPU s",
            "Redis CPU s",
        ],
        [
            "Their gateway is killed; they missed events; all connect to another gateway at once, without any"
            " jitter, each with its cursor. Medians of the rounds.",
            "Emptied: Redis lost everything meanwhile, so the sender's history answers.",
        ],
    )
    cores = len(os.sched_getaffinity(0))
    for workers, emptied in ((1, False), (1, True), (cores, False), (cores, True)):
        processes = "1 process" if workers == 1 else f"{workers} workers"
        redis = "emptied" if emptied else "as it was"
        rounds = []
        for n in range(run.rounds):
            run.progress(f"storm: {processes}, Redis {redis}, round {n + 1} of {run.rounds}")
            rounds.append(await _round(run, workers, emptied=emptied))
        table.rounds += [asdict(one) for one in rounds]
        table.add(
            processes,
            redis,
            median([one.seconds for one in rounds]),
            median([one.connect_seconds for one in rounds]),
            sum(one.lost for one in rounds),
            median([one.gateway_cpu for one in rounds]),
            median([one.sender_cpu for one in rounds]),
            median([one.redis_cpu for one in rounds]),
        )
    return table


async def _round(run: Run, workers: int, *, emptied: bool) -> Round:
    orderbell = Orderbell()
    async with contextlib.AsyncExitStack() as stack:
        await orderbell.start(run, 1, stack)
        left = orderbell.stack.start_gateway(workers)
        orderbell.gateways.append(left)
        load = stack.enter_context(running_load(run.binaries, run.new_directory("load"), run.group))
        await load.connect([orderbell.connection(n, 0) for n in range(CLIENTS)])
        await load.reset()
        await _publish(orderbell, [Event(n, 1) for n in range(CLIENTS)])
        await load.wait_all(CLIENTS, seconds=_WHOLE_SECONDS)
        orderbell.gateways[0].kill()
        await _publish(orderbell, [Event(n, 2 + m) for m in range(MISSED) for n in range(CLIENTS)])
        if emptied:
            async with connect_server(orderbell.stack.redis.url) as redis:
                await redis.flushall()
        lines = [orderbell.connection(n, 1, after=f"customer:customer-{n}=1.1") for n in range(CLIENTS)]
        gateway, sender = Usage(left.pids), Usage([orderbell.stack.sender.pid])
        redis_usage = Usage([orderbell.redis_pid])
        await load.reset()
        connected = await load.start_connecting(lines, at_once=CLIENTS, seconds=_WHOLE_SECONDS)
        whole = await load.wait(CLIENTS * MISSED, seconds=_WHOLE_SECONDS)
        if whole.disordered or whole.failed:
            raise LoadFailed(f"{whole.disordered} out of order, {whole.failed} refused; {whole.error}")
        return Round(
            workers,
            emptied,
            CLIENTS * MISSED - whole.delivered,
            whole.seconds,
            connected.connect_seconds,
            gateway.cpu,
            sender.cpu,
            redis_usage.cpu,
        )


async def _publish(orderbell: Orderbell, events: Sequence[Event]) -> None:
    waiting = iter(events)
    while batch := list(itertools.islice(waiting, _BATCH)):
        await orderbell.publish(batch)
