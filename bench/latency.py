"""How long an event takes to a browser at 2,000 events a second, to one customer each.

Twenty events every ten milliseconds, whether or not those before have arrived. From the moment an event is
published into Redis, beside the floor and the peers; and for Orderbell also the whole way, from the POST.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.contenders import Orderbell
from bench.fan_out import SOCKETS, Row, measure, to_one
from bench.table import Table, median

if TYPE_CHECKING:
    from bench.contenders import Contender
    from bench.run import Run

RATE = 2_000  # events a second
_BATCH = 20

_ROW = Row(
    "2,000 a second",
    partial(to_one, batch=_BATCH),
    1,
    seconds_a_step=_BATCH / RATE,
    to_redis=True,
)


async def run(run: Run) -> Table:
    table = Table(
        "latency",
        f"Latency at {RATE:,} events a second, {SOCKETS:,} sockets",
        ["gateway", "p50 ms", "p99 ms", "p99 ÷ floor", "max ms", "gateway CPU %"],
        [
            f"{_BATCH} events every {1000 * _BATCH / RATE:.0f} ms, each to another customer; from publishing"
            " into Redis to the frame at the client. Medians of the rounds.",
            "From the POST: the same events in batches to the sender, so with the commit and the relay.",
        ],
    )
    floor = 0.0
    for make in run.contenders:
        floor = await _add(run, table, make, make.name, _ROW, floor)
    await _add(run, table, Orderbell, "Orderbell, from the POST", replace(_ROW, to_redis=False), floor)
    return table


async def _add(run: Run, table: Table, make: type[Contender], name: str, row: Row, floor: float) -> float:
    """The floor's p99: that of the first."""
    rounds = []
    for n in range(run.rounds):
        run.progress(f"latency: {name}, round {n + 1} of {run.rounds}")
        rounds.append(await measure(run, make, row))
    table.rounds += [asdict(one) for one in rounds]
    p99 = median([one.p99_ms for one in rounds])
    floor = floor or p99
    table.add(
        name,
        median([one.p50_ms for one in rounds]),
        p99,
        p99 / floor,
        max(one.max_ms for one in rounds),
        median([100 * one.gateway_cpu / one.seconds for one in rounds]),
    )
    return floor
