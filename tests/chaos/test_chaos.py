"""A short run of everything that can fail, on a fixed seed. `make chaos` is the long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos import report
from tests.chaos.nemesis import plan
from tests.chaos.run import Load, mixed, running

if TYPE_CHECKING:
    from pathlib import Path

SEED = 8436  # Redis killed, failed over, cut off; a sender and a gateway killed; clients cut
SECONDS = 40.0
LOAD = Load(customers=60, rate=25, second_devices=10)


def test_short_chaos_loses_doubles_and_reorders_nothing(tmp_path: Path, process_group: int) -> None:
    with running(tmp_path, process_group, load=LOAD, say=print, seed=SEED) as run:
        verdict = mixed(run, plan(SEED, SECONDS), SECONDS)
    print(report.table(verdict))
    assert verdict.kept
    assert verdict.shown > 100
