"""What ORDERBELL_LIVE_KEYS cost: a gateway's processor time for a delivery to one customer, signed and not.

Events take the whole way, through the sender, because it is the sender that signs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.contenders import Orderbell, SignedOrderbell
from bench.fan_out import BATCH, PACE, SOCKETS, Row, measure, to_one
from bench.table import Table, median, median_ratio

if TYPE_CHECKING:
    from bench.fan_out import Round
    from bench.run import Run

ROW = Row("to one", to_one, 1, seconds_a_step=BATCH / PACE)


async def run(run: Run) -> Table:
    table = Table(
        "signing",
        f"Signed and unsigned events, to one of {SOCKETS:,} customers each, {PACE:,} a second",
        ["", "gateway CPU µs a delivery", "÷ unsigned", "Redis CPU µs a delivery"],
        ["Medians of the rounds, and of their ratios; user and system time."],
    )
    rounds: defaultdict[str, list[Round]] = defaultdict(list)
    for number in range(1, run.rounds + 1):
        for make in (Orderbell, SignedOrderbell):
            run.progress(f"signing: {make.name}, round {number} of {run.rounds}")
            one = await measure(run, make, ROW)
            rounds[make.name].append(one)
            table.rounds.append(asdict(one))
    unsigned = [one.microseconds for one in rounds[Orderbell.name]]
    for name, mine in rounds.items():
        costs = [one.microseconds for one in mine]
        redis = [1e6 * one.redis_cpu / one.deliveries for one in mine]
        table.add(name, median(costs), median_ratio(costs, unsigned), median(redis))
    return table
