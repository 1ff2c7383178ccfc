"""Senders and gateways of an earlier version beside those of this one, under load, in both orders.

Gateways are replaced one after the other. The senders of one PostgreSQL are all stopped before the first new
one starts, as CHANGELOG.md says: our tables have moved. Callers ask again meanwhile, and lose nothing.
"""

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

pytestmark = pytest.mark.long

BEFORE = "495b902"  # the commit before the modules moved to their rooms
LOAD = Load(customers=100, rate=60, second_devices=20)
BESIDE_SECONDS = 5.0  # that each mixture lasts; some checks for missed events come every two seconds


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier version, from our own history."""
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
@pytest.mark.parametrize(
    ("database", "senders"), [("sqlite", 1), pytest.param("postgres", 2, marks=pytest.mark.postgres)]
)
def test_services_of_two_versions_lose_double_and_reorder_nothing(
    database: str, senders: int, first: str, earlier: Path, tmp_path: Path, process_group: int
) -> None:
    with running(
        tmp_path,
        process_group,
        load=LOAD,
        say=print,
        database=database,
        senders=senders,
        drain_seconds=1.0,
        source=earlier,
    ) as run:
        run.sleep(BESIDE_SECONDS)
        system = run.system
        together: list[list[SenderProcess | ReceiverProcess]] = [[one] for one in system.gateways]
        together.insert(0 if first == "senders" else len(together), list(system.senders))
        for processes in together:
            run.progress(f"replacing {', '.join(map(system.name, processes))}")
            for process in processes:
                assert process.terminate() == 0
                process.run_from(REPOSITORY)
            for process in processes:
                process.start()
            run.sleep(BESIDE_SECONDS)
        run.wait_connected()
        verdict = run.finish()
    assert verdict.kept, verdict.examples
    assert verdict.answered > LOAD.rate * BESIDE_SECONDS
