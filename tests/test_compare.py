"""The foundations of `make compare`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.compare import BUSY_COLUMNS, IDLE_COLUMNS, SINGLE_COLUMNS, measure, one_at_a_time, page
from bench.listeners import WAYS, Listener, LongPolling, Polling, WebSocket
from bench.stack import running_stack
from bench.table import Table
from shared.commands.embedded import path_server, wheel_server
from shared.process.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.stack import Server, Stack


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Server]]:
    redis = wheel_server() or path_server()
    assert redis is not None
    directory: Path = tmp_path_factory.mktemp("compare") / "stack"
    with Guard() as guard, running_stack(redis, directory, guard.group, gateways=1) as stack:
        yield stack, stack.servers[-1]


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gets_all_messages_and_counts_what_they_cost(
    served: tuple[Stack, Server], way: type[Listener]
) -> None:
    measured = asyncio.run(measure(*served, way, 10))
    assert len(measured.delays) == measured.events == measured.connections * 10
    assert all(0 < delay < 30 for delay in measured.delays)
    assert measured.bytes > measured.events * 300  # an event has about as many
    assert measured.cpu > 0
    least = 2 if issubclass(way, Polling) else 1
    assert measured.requests >= least * measured.connections
    if not issubclass(way, Polling):
        assert measured.requests == measured.connections


def test_page_judges_the_claims_by_the_figures() -> None:
    busy = Table("b", "Busy", BUSY_COLUMNS)
    idle = Table("i", "Idle", IDLE_COLUMNS)
    for count, http in ((1, 100.0), (2_000, 900_000.0)):
        for way in WAYS:
            cpu = http if issubclass(way, Polling) else 250.0 * (1 if count == 1 else 400)
            busy.add(count, way.name, 1.0, 1.0, cpu, 1.0, 1.0)
    for way in WAYS:
        idle.add(way.name, 1.0, 60.0 if issubclass(way, Polling) else 0.0, 1.0)
    single = Table("s", "Single", SINGLE_COLUMNS)
    for way in WAYS:
        single.add(way.name, 1.0, 1.0, 1.0, 1.0, 1_000.0 if issubclass(way, Polling) else 4_000.0)
    text = page(busy, idle, single, "Measured on one.")
    verdicts = [line.split("|")[2].strip() for line in text.splitlines() if " here |" in line]
    assert verdicts == ["true here", "false here", "true here", "false here", "true here"]


@pytest.mark.long
@pytest.mark.parametrize("way", [LongPolling, WebSocket])
def test_one_message_at_a_time_costs_a_request_each_by_polling_and_none_over_a_socket(
    served: tuple[Stack, Server], way: type[Listener]
) -> None:
    rate, requests, size, cpu = asyncio.run(one_at_a_time(*served, way, 0.2))
    assert rate > 0
    assert size > 300
    assert cpu > 0
    assert requests >= 1 if way is LongPolling else requests == 0
