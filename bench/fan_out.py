"""What a delivery costs a gateway: one event to all, one event to one customer, and that over four gateways.

An event to all follows when the one before has come to everybody. Events to one customer each go in batches
of a hundred customers: flat out, a batch straight into Redis when the one before has come; and at a fixed
pace, the whole way, where all gateways wake as often and a delivery costs more, because everything is cold
each time. What is counted is processor time, user and system, of the gateways alone; it hardly depends on
what else the machine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.contenders import Contender, Event
from bench.load import running_load
from bench.table import Table, median, median_ratio
from bench.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.load import Load
    from bench.run import Run

SOCKETS = 2_000
BATCH = 100
PACE = 2_000  # events a second, to one customer each
GATEWAYS = 4
_WARM_UP_SECONDS = 1.0
_STEP_SECONDS = 60.0  # what has not come until then is lost


@dataclass
class Round:
    contender: str
    row: str
    gateways: int
    deliveries: int
    seconds: float
    gateway_cpu: float
    redis_cpu: float
    load_cpu: float
    bytes: int  # of one event's text
    p50_ms: float  # from the moment it was published to its arrival
    p99_ms: float
    max_ms: float

    @property
    def microseconds(self) -> float:
        """Of the gateways' processor time, a delivery."""
        return 1e6 * self.gateway_cpu / self.deliveries


@dataclass(frozen=True)
class Row:
    name: str
    steps: Callable[[], Iterator[list[Event]]]  # what is published at once
    width: int  # deliveries of one event
    gateways: int = 1
    seconds_a_step: float = 0.0  # 0: the next step follows when all has come
    to_redis: bool = False  # with nothing before Redis
    sockets: int = SOCKETS


async def measure(run: Run, make: type[Contender], row: Row) -> Round:
    """One round on a fresh start."""
    contender = make()
    async with contextlib.AsyncExitStack() as stack:
        await contender.start(run, row.gateways, stack)
        load = stack.enter_context(
            running_load(run.binaries, run.new_directory("load"), run.group, engineio=contender.engineio)
        )
        await load.connect(
            [contender.connection(n, n % row.gateways) for n in range(row.sockets)],
            at_once=contender.connects_at_once,
        )
        steps = row.steps()
        await step_for(_WARM_UP_SECONDS, contender, load, row, steps)
        return await _measure(run, contender, load, row, steps)


async def _measure(
    run: Run, contender: Contender, load: Load, row: Row, steps: Iterator[list[Event]]
) -> Round:
    before = await load.reset()
    gateway, redis = Usage(contender.gateway_pids), Usage([contender.redis_pid])
    started = time.monotonic()
    await step_for(run.seconds, contender, load, row, steps)
    seconds, gateway_cpu, redis_cpu = time.monotonic() - started, gateway.cpu, redis.cpu
    after = await load.wait(0, seconds=1)
    return Round(
        contender.name,
        row.name,
        row.gateways,
        after.delivered,
        seconds,
        gateway_cpu,
        redis_cpu,
        after.cpu - before.cpu,
        after.bytes // after.delivered,
        after.p50_ms,
        after.p99_ms,
        after.max_ms,
    )


async def step_for(
    seconds: float, contender: Contender, load: Load, row: Row, steps: Iterator[list[Event]]
) -> None:
    """Publish step by step for so long; returns when all has come."""
    await load.reset()
    started, expected = time.monotonic(), 0
    for number, events in enumerate(steps):
        await asyncio.sleep(max(0.0, started + number * row.seconds_a_step - time.monotonic()))
        await (contender.publish_to_redis(events) if row.to_redis else contender.publish(events))
        expected += row.width * len(events)
        if not row.seconds_a_step:
            await load.wait_all(expected, seconds=_STEP_SECONDS)
        if time.monotonic() - started > seconds:
            break
    await load.wait_all(expected, seconds=_STEP_SECONDS)


def to_all() -> Iterator[list[Event]]:
    n = 0
    while True:
        n += 1
        yield [Event(None, n)]


def to_one(sockets: int = SOCKETS, batch: int = BATCH) -> Iterator[list[Event]]:
    n = 0
    while True:
        n += 1
        for first in range(0, sockets, batch):
            yield [Event(customer, n) for customer in range(first, first + batch)]


ROWS = (
    Row("to all", to_all, SOCKETS),
    Row("to one, flat out", to_one, 1, to_redis=True),
    Row("to one", to_one, 1, seconds_a_step=BATCH / PACE),
    Row(f"to one, {GATEWAYS} gateways", to_one, 1, GATEWAYS, seconds_a_step=BATCH / PACE),
)


async def run(run: Run) -> Table:
    table = Table(
        "fan-out",
        f"Processor time of the gateways, µs a delivery, {SOCKETS:,} sockets",
        ["gateway", *(f"{row.name} {what}".strip() for row in ROWS for what in ("", "÷ floor", "Redis"))],
        [
            "Medians of the rounds, and of their ratios to the floor of the same round; user and system time."
            " Redis: the same of the Redis server."
        ],
    )
    rounds: defaultdict[tuple[str, Row], list[Round]] = defaultdict(list)
    for row in ROWS:
        for make in run.turns(f"fan-out, {row.name}"):
            one = await measure(run, make, row)
            rounds[make.name, row].append(one)
            table.rounds.append(asdict(one))
    floor = run.contenders[0].name
    for make in run.contenders:
        values: list[str | float | None] = [make.name]
        for row in ROWS:
            mine, floors = rounds[make.name, row], rounds[floor, row]
            costs = [one.microseconds for one in mine]
            values += [
                median(costs),
                median_ratio(costs, [one.microseconds for one in floors]),
                median([1e6 * one.redis_cpu / one.deliveries for one in mine]),
            ]
        table.add(*values)
    return table
