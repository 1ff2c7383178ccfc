"""A minute of everything that can fail, on a fixed seed. `make chaos` is the long one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos import report
from tests.chaos.callers import LIVELY, Life
from tests.chaos.clients import TRANSPORTS
from tests.chaos.nemesis import plan
from tests.chaos.run import Load, mixed, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.checker import Verdict

SEED = 38522  # one of few whose minute has all of MUST_HAPPEN
SECONDS = 60.0
MIXED_SEED = 7
MIXED_SECONDS = 25.0
MIXED_LOAD = Load(customers=42, rate=15, second_devices=7, transports=TRANSPORTS)
LOAD = Load(customers=60, rate=25, second_devices=10, life=LIVELY)
# After each fault. A device that finds no gateway looks again within 30 s; usually it takes a tenth of this.
RECOVERED_SECONDS = 40.0
MUST_HAPPEN = {
    "kill -9": {"gateway killed", "sender killed"},
    "SIGSTOP": {"gateway frozen", "sender frozen", "redis frozen"},
    "SIGTERM": {"gateway drained", "sender ended"},
    "emptied Redis": {"redis emptied"},
    "a fail-over that loses the tail": {"redis failed over"},
    "a black hole on the way to Redis": {"sender-redis black hole", "gateway-redis black hole"},
}


@pytest.mark.long
@pytest.mark.alone
def test_short_chaos_loses_doubles_and_reorders_nothing(tmp_path: Path, process_group: int) -> None:
    planned = plan(SEED, SECONDS)
    kinds = Counter(fault.kind for fault in planned)
    assert [what for what, some in MUST_HAPPEN.items() if not some & kinds.keys()] == []
    with running(tmp_path, process_group, load=LOAD, say=print, seed=SEED) as run:
        verdict = mixed(run, planned, SECONDS)
    print(report.table(verdict))
    assert verdict.kept, verdict.examples
    assert Counter(recovery.fault.kind for recovery in verdict.recoveries) == kinds
    assert {r.fault: r.worst for r in verdict.recoveries if r.worst > RECOVERED_SECONDS} == {}
    assert verdict.answered > LOAD.rate * SECONDS / 3
    assert verdict.shown >= verdict.answered  # who has two devices sees each twice
    assert min(verdict.retracted, verdict.expired, verdict.read) > verdict.answered / 20
    assert verdict.lists > SECONDS


@pytest.mark.long
@pytest.mark.alone
def test_chaos_over_all_transports_loses_doubles_and_reorders_nothing(
    tmp_path: Path, process_group: int
) -> None:
    planned = plan(MIXED_SEED, MIXED_SECONDS)
    assert {fault.kind for fault in planned} >= {"clients-gateway reset", "gateway drained", "redis killed"}
    with running(tmp_path, process_group, load=MIXED_LOAD, say=print, seed=MIXED_SEED) as run:
        verdict = mixed(run, planned, MIXED_SECONDS)
    print(report.table(verdict))
    assert verdict.kept, verdict.examples
    assert verdict.answered > MIXED_LOAD.rate * MIXED_SECONDS / 3
    assert (
        verdict.shown >= verdict.answered
    )  # every customer has one device at least, and so each transport some


EVENTFUL = Load(customers=4, rate=40, second_devices=4, life=Life(retracted=0.3, expiring=0.3, read=0.3))
NEEDED = {
    "retraction-event": "left_standing",
    "expiry-event": "disagreeing",
    "final-mark": "undone",
    "read-maximum": "undone",
    "unread-marks": "miscounted",
}


# If few alerts meet the fate that a safeguard is for, chance may hide that it is missing: an alert that comes
# after the last expiry brings the count that the expiry would have brought, and a mark that is set back shows
# only where a lower one comes last.
LOADS = {
    "expiry-event": dataclasses.replace(EVENTFUL, life=Life(expiring=0.9)),
    "read-maximum": dataclasses.replace(EVENTFUL, life=Life(read=0.9)),
}


def eventful(directory: Path, process_group: int, load: Load = EVENTFUL, **options: Any) -> Verdict:
    """Two seconds of alerts that most become something else."""
    with running(directory, process_group, load=load, say=print, gateways=1, **options) as run:
        run.sleep(2)
        verdict = run.finish(settle_seconds=2)
    print(report.table(verdict))
    assert verdict.answered > EVENTFUL.rate / 2
    return verdict


@pytest.mark.long
@pytest.mark.parametrize("safeguard", NEEDED)
def test_life_of_alerts_goes_wrong_without_this_and_the_checker_sees_it(
    safeguard: str, tmp_path: Path, process_group: int
) -> None:
    load = LOADS.get(safeguard, EVENTFUL)
    verdict = eventful(tmp_path, process_group, load, without={"sender": safeguard})
    assert getattr(verdict, NEEDED[safeguard]) > 0
    assert not verdict.kept
    assert verdict.lost == verdict.twice == verdict.out_of_order == verdict.reappeared == 0


@pytest.mark.long
def test_devices_that_heed_nothing_are_seen_by_the_checker(tmp_path: Path, process_group: int) -> None:
    verdict = eventful(tmp_path, process_group, heed=False)
    assert verdict.reappeared > 0
    others = (verdict.left_standing, verdict.disagreeing, verdict.undone, verdict.went_back)
    assert (others, verdict.lost, verdict.miscounted) == ((0, 0, 0, 0), 0, 0)
