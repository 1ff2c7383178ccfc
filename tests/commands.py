"""`python -m …`, for tests: spawned, as users do it, or forked, which begins in a third of the time.

To import a sender takes a second of processor time, and a run of all tests starts some 300 services. The
standard library's fork server imports all of Orderbell once (`tests.fork_server`); a forked service goes on
from there. Loops, threads, sockets and random seeds can't be inherited; they are made after the fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Command:
    """`python -m module arguments`. Its output is appended to `log`; `group` is its process group."""

    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    log: Path
    group: int
    errors: Path | None = None  # where standard error goes, if not to the log as well


class Running(Protocol):
    """The part of a `subprocess.Popen` that tests use."""

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


def run(
    module: str,
    *arguments: str,
    environment: dict[str, str],
    directory: Path = REPOSITORY,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of `python -m module arguments` with its output captured, but forked."""
    with tempfile.TemporaryDirectory() as name:
        output, errors = Path(name) / "output", Path(name) / "errors"
        running = fork(Command(module, arguments, environment, directory, output, 0, errors))
        try:
            code = running.wait(timeout)
        finally:
            running.kill()
        texts = [path.read_text(encoding="utf-8") for path in (output, errors)]
        return subprocess.CompletedProcess((module, *arguments), code, *texts)


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.fork_server"])


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
    for path, numbers in ((command.log, (1, 2)), (command.errors, (2,))):
        if path is not None:
            with path.open("ab") as file:
                for number in numbers:
                    os.dup2(file.fileno(), number)
    sys.argv = [command.module, *command.arguments]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)
