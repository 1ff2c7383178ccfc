"""How long an event takes to a browser at 2,000 events a second, to one customer each.

Twenty events every ten milliseconds, whether or not those before have arrived. From the moment an event is
published into Redis, beside the floor and the peers; and for Orderbell also the whole way, from the POST.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.contenders import Orderbell
from bench.fan_out import SOCKETS, Row, measure, to_one
from bench.table import Table, median, median_ratio

if TYPE_CHECKING:
    from bench.fan_out import Round
    from bench.run import Run

RATE = 2_000  # events a second
_BATCH = 20
_FROM_THE_POST = "Orderbell, from the POST"

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
            " into Redis to the frame at the client. Medians of the rounds, and of their ratios.",
            "From the POST: the same events in batches to the sender, so with the commit and the relay.",
        ],
    )
    rounds: defaultdict[str, list[Round]] = defaultdict(list)
    for make in run.turns("latency"):
        rounds[make.name].append(await measure(run, make, _ROW))
    for number in range(1, run.rounds + 1):
        run.progress(f"latency: {_FROM_THE_POST}, round {number} of {run.rounds}")
        rounds[_FROM_THE_POST].append(await measure(run, Orderbell, replace(_ROW, to_redis=False)))
    floors = [one.p99_ms for one in rounds[run.contenders[0].name]]
    for name, mine in rounds.items():
        table.rounds += [asdict(one) for one in mine]
        p99s = [one.p99_ms for one in mine]
        table.add(
            name,
            median([one.p50_ms for one in mine]),
            median(p99s),
            median_ratio(p99s, floors),
            max(one.max_ms for one in mine),
            median([100 * one.gateway_cpu / one.seconds for one in mine]),
        )
    return table
