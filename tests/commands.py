"""`python -m …`, for tests: spawned, as users do it, or forked, which begins in a third of the time.

To import a sender takes a second of processor time, and a run of all tests starts some 300 services. The
standard library's fork server imports all of Orderbell once; a forked service goes on from there. What can't
be inherited is made after the fork: loops, threads, sockets, random seeds.
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
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("receiver", "sender", "shared")
# What those import only when they begin.
_AT_START = (
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)


@dataclass(frozen=True)
class Command:
    """`python -m module arguments`. What it says is appended to `log`; `group` is its process group."""

    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    log: Path
    group: int


class Running(Protocol):
    """What tests use of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def spawn(command: Command) -> Running:
    with command.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", command.module, *command.arguments],
            cwd=command.directory,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=command.group,
        )


def fork(command: Command) -> Running:
    return _Forked(command)


def _modules() -> list[str]:
    """All but those that do something when they are imported."""
    walked = (
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(import_module(package).__path__, prefix=f"{package}.")
        if not module.name.startswith("sender.database.migrations")  # Alembic's, which runs them
    )
    return [*PACKAGES, *(name for name in walked if not name.endswith(".__main__")), *_AT_START]


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_modules())


class _Forked:
    def __init__(self, command: Command) -> None:
        self._process = _context.Process(target=_become, args=(command,), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: signal.Signals, /) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(command: Command) -> None:
    """In the fork."""
    os.setpgid(0, command.group)
    os.chdir(command.directory)
    os.environ.clear()
    os.environ.update(command.environment)
    with command.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = [command.module, *command.arguments]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)
