"""A process beside ours that does one thing, commanded by lines of JSON.

The proxy, the clients and the callers each run in one, so that they take no time from each other, nor from
the code that measures. A command is a line on its standard input, the answer a line on its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

REPOSITORY = Path(__file__).parent.parent.parent

A = TypeVar("A")


class Failed(Exception):
    """What the companion could not do, in its words."""


class _Answer(msgspec.Struct):
    answer: Any = None
    error: str | None = None


class Companion:
    """Our end. `ask` waits for the answer, and raises `EOFError` if the companion has died."""

    def __init__(self, module: str, *, process_group: int) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=process_group,
        )

    def ask(self, command: msgspec.Struct, kind: type[A]) -> A:
        """Raises `Failed` and `EOFError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"{self.module} has ended with {self._process.wait()}")
        said = msgspec.json.decode(line, type=_Answer)
        if said.error is not None:
            raise Failed(said.error)
        return msgspec.convert(said.answer, kind)

    def tell(self, command: msgspec.Struct) -> None:
        """`ask` for commands without an answer."""
        self.ask(command, object)

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The companion's own end: its main on the fastest loop there is."""
    factory = None
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factory = uvloop.new_event_loop
    runner = asyncio.Runner(loop_factory=factory)
    runner.run(main())
    os._exit(0)  # hundreds of connections are open, and nothing reads any more how each of them ended


async def obey(command_type: Any, do: Callable[[Any], Awaitable[object]]) -> None:
    """Do what the lines on standard input say, one after the other, until there are no more."""
    reader = asyncio.StreamReader(limit=2**26)  # a swarm's tokens are one line
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        try:
            answer = _Answer(await do(msgspec.json.decode(line, type=command_type)))
        except (OSError, LookupError, ValueError) as error:
            answer = _Answer(error=f"{type(error).__name__}: {error}")
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
