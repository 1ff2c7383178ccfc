"""A rolling restart of everything behind other people's balancers, with the files of docs/proxies.md."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.commands.embedded import free_port
from tests.chaos.proxy import Proxy, Toxics
from tests.chaos.run import Load, running
from tests.interop import proxies

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import Processes

pytestmark = [pytest.mark.long, pytest.mark.postgres]

LOAD = Load(customers=300, rate=200, second_devices=30)
CALM_SECONDS = 4.0  # a start, and the checks after which a balancer sends clients to it again
READY_DELAY_SECONDS = 3.0  # two checks of each second, and a machine that is busy


@pytest.mark.alone
@pytest.mark.parametrize("name", proxies.KINDS)
def test_rolling_restart_behind_it_loses_doubles_and_reorders_nothing_and_resets_no_post(
    name: str, tmp_path: Path, process_group: int
) -> None:
    with running(
        tmp_path,
        process_group,
        load=LOAD,
        say=print,
        database="postgres",
        senders=2,
        drain_seconds=2.0,
        front=partial(proxies.running, name, tmp_path, process_group),
        ready_delay_seconds=str(READY_DELAY_SECONDS),
    ) as run:
        began = run.elapsed
        for process in (*run.system.gateways, *run.system.senders):
            run.sleep(CALM_SECONDS)
            assert process.terminate() == 0
            process.start()
        run.sleep(CALM_SECONDS)
        run.wait_connected()
        seconds = run.elapsed - began
        verdict = run.finish()
    assert verdict.kept, verdict.examples
    assert verdict.answered > LOAD.rate * seconds / 3  # the machine may be slow, but the load must be real
    assert run.answers == {}
    assert set(verdict.ends) <= {1012}, verdict.ends  # every browser was sent away with a word


CALLERS, ROUNDS = 30, 3
IDLE_SECONDS = 4.97  # uvicorn's own limit is 5 s: a POST must not meet a connection that ends at that moment
DISTANCE = Toxics(latency_seconds=0.04)


def test_post_after_an_idle_time_is_never_502(
    tmp_path: Path, process_group: int, processes: Processes
) -> None:
    """nginx keeps connections to a sender for 60 s, at 40 ms distance."""
    sender = processes.start_sender()
    with Proxy(process_group) as distance:
        port = distance.open("nginx:sender", sender.port)
        distance.change("nginx:sender", up=DISTANCE, down=DISTANCE)
        senders = [port, free_port()]  # the other isn't there
        with (
            proxies.running("nginx", tmp_path, process_group, [free_port(), free_port()], senders) as front,
            httpx2.Client(
                base_url=f"http://127.0.0.1:{front.senders}", headers=processes.api_headers, trust_env=False
            ) as client,
            ThreadPoolExecutor(CALLERS) as callers,
        ):

            def place(number: int) -> int:
                order = {"order_id": str(number), "customer_id": f"c{number}"}
                return client.post("/orders", json=order).status_code

            answers: list[int] = []
            for turn in range(ROUNDS):
                if turn:
                    time.sleep(IDLE_SECONDS)
                answers += callers.map(place, range(turn * CALLERS, (turn + 1) * CALLERS))
    assert answers == [201] * CALLERS * ROUNDS
