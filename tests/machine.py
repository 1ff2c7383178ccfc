"""Programs of this machine that some tests need: a proxy, a pooler, another language's client."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

NOT_RUN = "not run: "
SKIPPED = f"Skipped: {NOT_RUN}"  # as pytest reports it
_INSTALL_SECONDS = 300
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def not_run(reason: str) -> NoReturn:
    """Ends the test as not run, with the reason in the summary; in CI as failed."""
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(NOT_RUN + reason)


def program(name: str, package: str) -> Path:
    """The path of a program; without it the test is not run. `package` is Debian's."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        not_run(f"no {name} (Debian: {package})")
    return Path(path)


def install_packages(directory: Path) -> None:
    """What the directory's package-lock.json names, from npm; without them the test is not run.

    By one worker at a time: npm removes what is there before it installs.
    """
    npm, lock = program("npm", "npm"), directory / "package-lock.json"
    installing: list[Path | str] = [npm, "ci", "--prefix", directory, "--prefer-offline"]
    installing += ["--ignore-scripts", "--no-audit", "--no-fund"]
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        installed = directory / "node_modules" / ".package-lock.json"  # npm's, written last
        if installed.exists() and installed.stat().st_mtime > lock.stat().st_mtime:
            return
        done = subprocess.run(installing, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    if done.returncode != 0:
        not_run(f"npm does not install what {lock} names: {done.stderr[-300:]}")
