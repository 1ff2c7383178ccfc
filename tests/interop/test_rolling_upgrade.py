"""Senders and gateways of an earlier version beside those of this one, under load, in both orders."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.chaos.run import Load, running
from tests.machine import not_run
from tests.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import ReceiverProcess, SenderProcess

pytestmark = [pytest.mark.long, pytest.mark.postgres]

BEFORE = "495b902"  # the commit before the modules moved to their rooms
LOAD = Load(customers=100, rate=60, second_devices=20)
BESIDE_SECONDS = 5.0  # each mixture lasts so long; some looks for what was missed come every two seconds


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier version, out of our own history."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", BEFORE], cwd=REPOSITORY, capture_output=True, timeout=60
    )
    if archive.returncode != 0:
        not_run(f"no commit {BEFORE} in this repository's history: {archive.stderr.decode().strip()}")
    directory = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory


@pytest.mark.parametrize("first", ["senders", "gateways"])
def test_services_replaced_one_after_the_other_lose_double_and_reorder_nothing(
    first: str, earlier: Path, tmp_path: Path, process_group: int
) -> None:
    with running(
        tmp_path,
        process_group,
        load=LOAD,
        say=print,
        database="postgres",
        senders=2,
        drain_seconds=1.0,
        source=earlier,
    ) as run:
        run.sleep(BESIDE_SECONDS)
        system = run.system
        ordered: list[SenderProcess | ReceiverProcess] = [*system.senders, *system.gateways]
        if first == "gateways":
            ordered = [*system.gateways, *system.senders]
        for process in ordered:
            run.progress(f"{system.name(process)} is replaced")
            assert process.terminate() == 0
            process.run_from(REPOSITORY)
            process.start()
            run.sleep(BESIDE_SECONDS)
        run.wait_connected()
        verdict = run.finish()
    assert verdict.kept, verdict.examples
    assert verdict.answered > LOAD.rate * BESIDE_SECONDS
