"""What a connection costs: processor time to open it, memory and processor time while it is idle.

Orderbell's are whole: handshake, token, subscription, look-ups, hello. Of the peers only Centrifugo checks a
token, which is in the others' favour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.load import running_load
from bench.table import Table, median, median_ratio
from bench.usage import Usage, resident_bytes

if TYPE_CHECKING:
    from bench.contenders import Contender
    from bench.run import Run

SOCKETS = 10_000
_WARM_UP = 200  # connections that come and go before
_SETTLE_SECONDS = 2.0


@dataclass
class Round:
    contender: str
    connections: int
    seconds: float
    connect_cpu: float
    redis_cpu: float
    memory: int  # bytes more than before
    idle_cpu: float  # of a core, with all of them

    @property
    def microseconds(self) -> float:
        return 1e6 * self.connect_cpu / self.connections

    @property
    def kibibytes(self) -> float:
        return self.memory / self.connections / 1024


async def run(run: Run) -> Table:
    table = Table(
        "connecting",
        f"What a connection costs the gateway, {SOCKETS:,} connections of as many customers",
        [
            "gateway",
            "KiB an idle connection",
            "CPU µs to connect",
            "CPU ÷ floor",
            "idle, all: CPU %",
            "connects a second",
        ],
        [
            "Memory: resident set with all connected, less that before, by their number. CPU: user and"
            " system. 256 connections are opened at a time (Channels: 32). Medians of the rounds,"
            " and of their ratios.",
            "Orderbell verifies a token (HS256) for each, subscribes, looks its places up and says hello;"
            " Centrifugo verifies a token, too; the others verify nothing.",
        ],
    )
    rounds: defaultdict[str, list[Round]] = defaultdict(list)
    for make in run.turns("connecting"):
        rounds[make.name].append(await measure(run, make))
    floors = [one.microseconds for one in rounds[run.contenders[0].name]]
    for name, mine in rounds.items():
        table.rounds += [asdict(one) for one in mine]
        costs = [one.microseconds for one in mine]
        table.add(
            name,
            median([one.kibibytes for one in mine]),
            median(costs),
            median_ratio(costs, floors),
            median([100 * one.idle_cpu for one in mine]),
            median([one.connections / one.seconds for one in mine]),
        )
    return table


async def measure(run: Run, make: type[Contender], sockets: int = SOCKETS) -> Round:
    contender = make()
    async with contextlib.AsyncExitStack() as stack:
        await contender.start(run, 1, stack)
        load = stack.enter_context(
            running_load(run.binaries, run.new_directory("load"), run.group, engineio=contender.engineio)
        )
        lines = [contender.connection(n, 0) for n in range(sockets)]
        await load.connect(lines[:_WARM_UP], at_once=contender.connects_at_once)
        await load.close()
        await asyncio.sleep(_SETTLE_SECONDS)
        memory = resident_bytes(contender.gateway_pids)
        used, redis = Usage(contender.gateway_pids), Usage([contender.redis_pid])
        counted = await load.connect(lines, at_once=contender.connects_at_once)
        connect_cpu, redis_cpu = used.cpu, redis.cpu
        await asyncio.sleep(_SETTLE_SECONDS)
        idle = Usage(contender.gateway_pids)
        await asyncio.sleep(run.seconds)
        idle_cpu = idle.cpu / idle.seconds
        memory = resident_bytes(contender.gateway_pids) - memory
        return Round(
            contender.name, sockets, counted.connect_seconds, connect_cpu, redis_cpu, memory, idle_cpu
        )
