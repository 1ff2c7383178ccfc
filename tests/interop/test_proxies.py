"""A rolling restart of everything behind other people's balancers, with the files of docs/proxies.md."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.chaos.run import Load, running
from tests.interop import proxies

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.postgres]

LOAD = Load(customers=300, rate=200, second_devices=30)
CALM_SECONDS = 2.0
READY_DELAY_SECONDS = 3.0  # two checks of each second, and a machine that is busy


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
    assert verdict.answered > LOAD.rate * seconds / 3  # the machine may be slow; the load must be one
    assert run.answers == {}
    assert set(verdict.ends) <= {1012}, verdict.ends  # every browser was sent away with a word
