"""Programs of this machine that some tests need: a proxy, a pooler, another language's client."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

NOT_RUN = "not run: "
SKIPPED = f"Skipped: {NOT_RUN}"  # as pytest reports it
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
