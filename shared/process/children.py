"""Children: our own processes. Their lines go to our terminal, and when one ends all are ended."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import click

from shared.errors import NeighbourError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

END_SECONDS = 3.5  # from SIGTERM to SIGKILL; everything has ended within five
LAST_SECONDS = 0.5  # at least, for those that end last
_POLL_SECONDS = 0.05
_COLORS = ("cyan", "green", "yellow", "magenta", "blue", "bright_green", "bright_yellow", "bright_magenta")


def outcome_of(process: asyncio.subprocess.Process) -> str:
    """How the process has ended."""
    code = process.returncode
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class Child:
    """One process; `lines` are its last ones."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        *,
        color: str,
        width: int,
        ends_last: bool,
        quiet: bool,
    ) -> None:
        self.name = name
        self.process = process
        self.ends_last = ends_last
        self._quiet = quiet
        self.lines: collections.deque[str] = collections.deque(maxlen=20)
        self._prefix = click.style(f"{name:{width}} │", fg=color)

    @property
    def outcome(self) -> str:
        return outcome_of(self.process)

    async def wait(self) -> None:
        """Shows its lines as they come; returns when it has ended and all are shown."""
        assert self.process.stdout is not None
        # Not by readline, which gives up at lines of more than 64 KiB.
        rest = b""
        while chunk := await self.process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            self._show(lines)
        self._show([rest] if rest else [])
        await self.process.wait()

    def _show(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace")
            self.lines.append(text)
            if not self._quiet:
                with contextlib.suppress(BrokenPipeError):  # the reader of our output has gone; we go on
                    click.echo(f"{self._prefix} {text}", err=True)


class ChildEnded(NeighbourError):
    """A child ended without being asked to."""

    def __init__(self, child: Child) -> None:
        super().__init__(f"{child.name} {child.outcome}")
        self.child = child


class Children:
    """All of them in one process group (guard.py)."""

    def __init__(self, process_group: int, *, name_width: int) -> None:
        self._process_group = process_group
        self._name_width = name_width
        self._waits: dict[Child, asyncio.Task[None]] = {}

    async def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        ends_last: bool = False,
        quiet: bool = False,
    ) -> Child:
        """`ends_last`: the others need it until they are gone. `quiet`: its lines only appear in reports."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=self._process_group,
        )
        color = _COLORS[len(self._waits) % len(_COLORS)]
        child = Child(name, process, color=color, width=self._name_width, ends_last=ends_last, quiet=quiet)
        self._waits[child] = asyncio.create_task(child.wait())
        return child

    async def wait_ready(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Until the condition holds. Raises `ChildEnded`."""
        while not await ready():
            self.check()
            await asyncio.sleep(_POLL_SECONDS)

    async def wait_ended(self) -> Child:
        """The first that ends."""
        await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        return next(child for child, wait in self._waits.items() if wait.done())

    def check(self) -> None:
        """Raises `ChildEnded`."""
        for child, wait in self._waits.items():
            if wait.done():
                raise ChildEnded(child)

    async def end(self) -> None:
        """Returns when all are gone."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        for last in (False, True):
            await self._end([child for child in self._waits if child.ends_last is last], deadline)

    async def _end(self, children: Sequence[Child], deadline: float) -> None:
        waits = [self._waits[child] for child in children]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        if waits:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(waits, timeout=max(left, LAST_SECONDS))
        for child in children:
            if child.process.returncode is None:
                print(f"orderbell: {child.name} did not end and is killed", file=sys.stderr)
                child.process.kill()
        await asyncio.gather(*waits)
