"""What `make run` prepares, and when it does so again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="not run: no make here")

FILES = ("Makefile", "pyproject.toml", "requirements.lock", "requirements-embedded.lock")


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # What the `make` that runs this test was given is not for this one.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment = {name: value for name, value in own.items() if name != "ARGS"}
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that is set up."""
    directory = tmp_path / "a checkout"
    directory.mkdir()
    for name in FILES:
        shutil.copy2(REPOSITORY / name, directory)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=directory, check=True)
    (directory / ".venv" / "run.stamp").touch()
    return directory


def test_what_is_set_up_is_run_at_once(checkout: Path) -> None:
    done = make(checkout, "-n", "run")
    assert (done.stdout.strip(), done.stderr) == ("exec .venv/bin/orderbell up --by-make", "")


def test_folder_that_was_moved_is_set_up_anew(checkout: Path) -> None:
    """Its scripts name a Python that is gone: exit code 127."""
    moved = checkout.rename(checkout.with_name("another place"))
    lines = make(moved, "-n", "run").stdout.splitlines()
    assert lines[0] == "echo 'orderbell: this folder was moved; setting up .venv anew'; rm -rf .venv"
    assert any("-m venv .venv" in line for line in lines)
    assert any("--require-hashes --requirement requirements.lock" in line for line in lines)


def test_steps_show_that_they_go_on_and_fail_as_they_should(checkout: Path) -> None:
    with (checkout / "Makefile").open("a", encoding="utf-8") as makefile:
        makefile.write("slow:\n\t$(call shown,something slow,sleep 2.5)\n")
        makefile.write("broken:\n\t$(call shown,something broken,sh -c 'exit 7')\n")
    slow = make(checkout, "slow")
    assert slow.returncode == 0, slow.stderr
    assert slow.stdout.startswith("orderbell: something slow ..")
    broken = make(checkout, "broken")
    assert broken.returncode == 2
    assert "Error 7" in broken.stderr
