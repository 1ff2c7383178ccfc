"""A gateway's own event goes the whole way, or the metric shows that it does not."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from receiver import metrics
from receiver.canary import Canary, Pace, Perch
from shared.channels import topic_channel
from shared.cursors import Place
from tests.end_to_end.test_main_path import api
from tests.gateways import run_gateway
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.processes import Processes

pytestmark = pytest.mark.anyio


def heard() -> float:
    return next(
        sample.value
        for family in metrics.canary.collect()
        for sample in family.samples
        if sample.name.endswith("_count")
    )


def failed() -> float:
    return next(
        sample.value
        for family in metrics.canary_failures.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


@pytest.fixture
def database(tmp_path: Path, anyio_backend: object) -> str:
    return f"sqlite:///{tmp_path / 'o'}.db"


async def test_the_canary_hears_itself(database: str, redis_url: str, key_prefix: str) -> None:
    async with (
        run_sender(database, redis_url, key_prefix) as sender,
        run_gateway(sender.client, redis_url, key_prefix) as gateway,
        singing(Canary(gateway.gateway.keeper, sender.client, "g:1/2", Pace(0.05))),
    ):
        before, failures = heard(), failed()
        await await_until(lambda: heard() >= before + 3)
        assert failed() == failures


async def test_an_event_that_is_recorded_and_not_relayed_fails(
    database: str, redis_url: str, key_prefix: str
) -> None:
    async with (
        run_sender(database, redis_url, key_prefix, relaying=False) as sender,
        run_gateway(sender.client, redis_url, key_prefix) as gateway,
        singing(Canary(gateway.gateway.keeper, sender.client, "g:1/2", Pace(0.05, wait=0.3))),
    ):
        before, failures = heard(), failed()
        await await_until(lambda: failed() >= failures + 2)
        assert heard() == before


async def test_a_sender_that_is_away_fails(database: str, redis_url: str, key_prefix: str) -> None:
    async with (
        run_sender(database, redis_url, key_prefix) as sender,
        run_gateway(sender.client, redis_url, key_prefix) as gateway,
        httpx2.AsyncClient(base_url="http://127.0.0.1:9", trust_env=False) as nowhere,
        singing(Canary(gateway.gateway.keeper, nowhere, "g:1/2", Pace(0.05))),
    ):
        failures = failed()
        await await_until(lambda: failed() >= failures + 2)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"id":1}', b"\xff", b'{"id":"1","x":' + b"[" * 100_000])
async def test_an_event_that_is_no_event_is_passed_over(text: bytes) -> None:
    Perch().deliver(topic_channel("canary g"), Place(1, 1), text)


@asynccontextmanager
async def singing(canary: Canary) -> AsyncIterator[None]:
    task = asyncio.create_task(canary.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_gateway_has_one_if_it_is_set_and_none_otherwise(processes: Processes) -> None:
    sender = processes.start_sender()
    gateway, quiet = processes.start_receiver(canary_seconds="0.1"), processes.start_receiver()
    async with api(processes, sender) as client:

        async def sings() -> bool:
            text = (await client.get(f"{gateway.url}/metrics")).text
            return "orderbell_canary_seconds_count 0.0" not in text

        await await_until(sings)
        assert "orderbell_canary_seconds_count 0.0" in (await client.get(f"{quiet.url}/metrics")).text
        # It is no client's connection.
        assert 'transport="canary"' not in (await client.get(f"{gateway.url}/metrics")).text


def test_its_events_are_not_deliveries() -> None:
    metrics.delivered["canary"] += 1
    metrics.note_second(0)
    assert metrics.deliveries._metrics.keys().isdisjoint({("canary",)})
    assert not metrics.delivered
