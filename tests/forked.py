"""`python -m …`, begun in a third of the time: forked from a process that has imported all of Orderbell.

To import a sender takes a second of processor time, and a run of all tests starts some 300 services. The
standard library's fork server imports once; each service is a fork of it that runs its module from there on
with an environment, arguments and a log of its own. What can't be inherited is made after the fork: loops,
threads, sockets, random seeds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PACKAGES = ("receiver", "sender", "shared")
# What those import only when they begin.
_AT_START = (
    "aiosqlite",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)

_context = multiprocessing.get_context("forkserver")


def _modules() -> list[str]:
    """All but those that do something when they are imported."""
    walked = (
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(import_module(package).__path__, prefix=f"{package}.")
        if not module.name.startswith("sender.migrations")  # Alembic's, which runs them
    )
    return [*PACKAGES, *(name for name in walked if not name.endswith(".__main__")), *_AT_START]


_context.set_forkserver_preload(_modules())


@dataclass(frozen=True)
class _Run:
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    log: Path
    group: int

    def __call__(self) -> None:
        os.setpgid(0, self.group)
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.environment)
        with self.log.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.argv = [self.module, *self.arguments]
        runpy.run_module(self.module, run_name="__main__", alter_sys=True)


class Forked:
    """Has what tests use of a `subprocess.Popen`."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        group: int,
    ) -> None:
        run = _Run(module, tuple(arguments), dict(environment), directory, log, group)
        self._process = _context.Process(target=run, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
