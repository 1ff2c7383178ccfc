"""What a delivery costs a gateway: one event to all, one event to one customer, and that over four gateways.

Closed loop, so that it is the same work for all, however fast they are: an event to all follows when the one
before has come to everybody; events to one customer each go in batches of a hundred customers, one batch
when the one before has come. What is counted is processor time, user and system, of the gateways alone; it
hardly depends on what else the machine does.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.contenders import Contender, Event, Floor, Orderbell
from bench.load import running_load
from bench.table import Table, median
from bench.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.load import Load
    from bench.run import Run

SOCKETS = 2_000
BATCH = 100
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

    @property
    def microseconds(self) -> float:
        """Of the gateways' processor time, a delivery."""
        return 1e6 * self.gateway_cpu / self.deliveries


async def measure(
    run: Run, make: Callable[[], Contender], row: str, steps: Iterable[list[Event]], width: int, gateways: int
) -> Round:
    """One round on a fresh start. A step is what is published at once; `width`: its deliveries."""
    contender = make()
    async with contextlib.AsyncExitStack() as stack:
        await contender.start(run, gateways, stack)
        load = stack.enter_context(
            running_load(run.binaries, run.new_directory("load"), run.group, engineio=contender.engineio)
        )
        await load.connect([contender.connection(n, n % gateways) for n in range(SOCKETS)])
        await _step_for(_WARM_UP_SECONDS, contender, load, steps, width)
        return await _measure(run, contender, load, row, steps, width, gateways)


async def _measure(
    run: Run,
    contender: Contender,
    load: Load,
    row: str,
    steps: Iterable[list[Event]],
    width: int,
    gateways: int,
) -> Round:
    before = await load.reset()
    gateway, redis = Usage(contender.gateway_pids), Usage([contender.redis_pid])
    started = time.monotonic()
    await _step_for(run.seconds, contender, load, steps, width)
    seconds, gateway_cpu, redis_cpu = time.monotonic() - started, gateway.cpu, redis.cpu
    after = await load.wait(0, seconds=1)
    return Round(
        contender.name,
        row,
        gateways,
        after.delivered,
        seconds,
        gateway_cpu,
        redis_cpu,
        after.cpu - before.cpu,
        after.bytes // after.delivered,
    )


async def _step_for(
    seconds: float, contender: Contender, load: Load, steps: Iterable[list[Event]], width: int
) -> None:
    await load.reset()
    started, expected = time.monotonic(), 0
    for events in steps:
        await contender.publish(events)
        expected += width * len(events)
        await load.wait_all(expected, seconds=_STEP_SECONDS)
        if time.monotonic() - started > seconds:
            return


def to_all() -> Iterator[list[Event]]:
    n = 0
    while True:
        n += 1
        yield [Event(None, n)]


def to_one() -> Iterator[list[Event]]:
    n = 0
    while True:
        n += 1
        for first in range(0, SOCKETS, BATCH):
            yield [Event(customer, n) for customer in range(first, first + BATCH)]


ROWS: Sequence[tuple[str, Callable[[], Iterator[list[Event]]], int, int]] = (
    ("to all", to_all, SOCKETS, 1),
    ("to one", to_one, 1, 1),
    (f"to one, {GATEWAYS} gateways", to_one, 1, GATEWAYS),
)


async def run(run: Run) -> Table:
    table = Table(
        "fan-out",
        f"Processor time of the gateways, µs a delivery, {SOCKETS:,} sockets",
        ["gateway", *(f"{name} {what}" for name, *_ in ROWS for what in ("", "÷ floor", "Redis"))],
        ["Medians of the rounds; user and system time. Redis: the same of the Redis server."],
    )
    floors: list[float] = []
    for make in (Floor, Orderbell):
        values: list[str | float | None] = [make.name]
        for column, (name, steps, width, gateways) in enumerate(ROWS):
            rounds = []
            for n in range(run.rounds):
                run.progress(f"fan-out: {make.name}, {name}, round {n + 1} of {run.rounds}")
                rounds.append(await measure(run, make, name, steps(), width, gateways))
            table.rounds += [asdict(one) for one in rounds]
            cost = median([one.microseconds for one in rounds])
            if make is Floor:
                floors.append(cost)
            values += [
                cost,
                cost / floors[column],
                median([1e6 * r.redis_cpu / r.deliveries for r in rounds]),
            ]
        table.add(*values)
    return table
