"""`orderbell size`: what an installation needs, computed from figures that were measured.

Each figure has its source beside it. They are for planning: measure your own events and your own machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import click

# Gateways: README, "How fast it is". Measured on a shared core; a dedicated core does more.
CONNECTION_KIB = 2.5  # an idle WebSocket
GATEWAY_MIB = 70  # a gateway without connections
DELIVERY_SECONDS = 30e-6  # of processor time, to one customer
BUSY = 0.5  # of a core, at the peak; the rest is for the connections of a lost gateway

# Redis: docs/redis.md, `stream-node-max-bytes 1024`.
LOG_FIRST_KB = 1.5  # a channel with one event of the last day, head included
LOG_MORE_KB = 0.36  # each further one
HEAD_KB = 0.2  # a channel with an event in the last week
FRAGMENTATION = 1.3

# The database: docs/postgresql.md.
EVENT_BYTES = 1_300  # table and indexes, an event of 400 bytes
CHANNEL_BYTES = 200
WAL_BYTES = 2_300  # a completion, between two checkpoints
SENDER_PER_SECOND = 1_000  # completions a sender makes durable

DAY_SECONDS = 86_400
WEEK_DAYS = 7


@dataclass(frozen=True)
class Load:
    customers: int
    events_a_day: float  # of one customer, on average
    connected: float  # share of customers, at the busiest moment
    peak: float  # events in the busiest second over those of an average one
    history_days: float
    max_connections: int


@dataclass(frozen=True)
class Need:
    events_per_second: float  # at the peak
    connections: int
    gateways: int
    gateway_mib: float  # each
    senders: int
    redis_mib: float
    rows: int
    database_gib: float
    writes_per_second: float  # transactions at the peak, at most
    wal_mib_per_second: float  # at the peak


def need(load: Load) -> Need:
    per_day = load.customers * load.events_a_day
    at_peak = per_day / DAY_SECONDS * load.peak
    connections = math.ceil(load.customers * load.connected)
    by_connections = connections / load.max_connections
    # Each event goes to its customer's devices that are connected; all of one lost gateway come back in 10 s.
    by_processor = (at_peak * load.connected * DELIVERY_SECONDS) / BUSY
    gateways = max(2, math.ceil(max(by_connections, by_processor)) + 1)  # one may be lost
    each = math.ceil(connections / (gateways - 1))
    active = load.customers * (
        1 - math.exp(-load.events_a_day)
    )  # have an event today, if events are distributed at random
    recent = load.customers * (1 - math.exp(-load.events_a_day * WEEK_DAYS))
    redis_kb = active * LOG_FIRST_KB + max(0.0, per_day - active) * LOG_MORE_KB + (recent - active) * HEAD_KB
    rows = math.ceil(per_day * load.history_days)
    return Need(
        events_per_second=at_peak,
        connections=connections,
        gateways=gateways,
        gateway_mib=GATEWAY_MIB + each * CONNECTION_KIB / 1024,
        senders=max(2, math.ceil(at_peak / SENDER_PER_SECOND / BUSY)),
        redis_mib=redis_kb * FRAGMENTATION / 1024,
        rows=rows,
        database_gib=(rows * EVENT_BYTES + load.customers * CHANNEL_BYTES) / 2**30,
        writes_per_second=at_peak,
        wal_mib_per_second=at_peak * WAL_BYTES / 2**20,
    )


def show(load: Load) -> None:
    found = need(load)
    lines = [
        (
            "customers",
            f"{load.customers:,}; {load.events_a_day:g} event{'s' * (load.events_a_day != 1)} a day each,"
            f" {load.connected:.1%} of them connected at the peak",
        ),
        ("events", f"{found.events_per_second:,.1f} a second at the peak"),
        (
            "gateways",
            f"{found.gateways} with a core and {_mib(found.gateway_mib)} each, one of them to spare;"
            f" {found.connections:,} connections",
        ),
        ("senders", f"{found.senders}, at most half busy at the peak"),
        ("Redis", f"{_mib(found.redis_mib)}; it may be lost at any time"),
        (
            "database",
            f"{found.rows:,} events of {load.history_days:g} days, {found.database_gib:,.1f} GiB;"
            f" {found.wal_mib_per_second:,.2f} MiB of WAL a second at the peak",
        ),
    ]
    for name, text in lines:
        click.echo(f"{name:<10}{text}")
    if found.events_per_second > 2 * SENDER_PER_SECOND:
        click.echo("Measure your database first: one PostgreSQL takes all these writes.")


def _mib(mib: float) -> str:
    return f"{mib / 1024:,.1f} GiB" if mib >= 1024 else f"{math.ceil(mib):,} MiB"
