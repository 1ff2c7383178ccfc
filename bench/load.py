"""The load generator, native/load.c, as a process that takes commands."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCES = Path(__file__).parent / "native"
CONNECT_SECONDS = 120.0
_COMPILE = ("cc", "-O2", "-Wall")


class Counted(msgspec.Struct):
    """What native/load.c has counted since its last `reset`; connections since its last `connect`."""

    ready: int
    failed: int
    closed: int
    connect_seconds: float
    delivered: int
    disordered: int
    others: int
    bytes: int
    seconds: float  # from the reset to the last delivery
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu: float  # seconds, since its start
    error: str


class LoadFailed(Exception):
    """What was measured is not what was asked for."""


class Load:
    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self._process = process
        self._directory = directory

    async def connect(self, lines: Sequence[str], *, at_once: int = 256) -> Counted:
        """Drop what is open and open these; returns when all are ready. Raises `LoadFailed`."""
        counted = await self.start_connecting(lines, at_once=at_once)
        if counted.ready < len(lines):
            raise LoadFailed(f"{counted.ready} of {len(lines)} connections are ready; {counted.error}")
        return counted

    async def start_connecting(
        self, lines: Sequence[str], *, at_once: int, seconds: float = CONNECT_SECONDS
    ) -> Counted:
        """As `connect`, but some may fail."""
        path = self._directory / "connections"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return await self._command(f"connect {path} {at_once} {seconds * 1000:.0f}")

    async def wait(self, deliveries: int, *, seconds: float) -> Counted:
        """Returns when so many events have come since the last reset, or time is up."""
        return await self._command(f"wait {deliveries} {seconds * 1000:.0f}")

    async def wait_all(self, deliveries: int, *, seconds: float) -> Counted:
        """As `wait`; raises `LoadFailed` unless they came whole and in order."""
        counted = await self.wait(deliveries, seconds=seconds)
        if counted.delivered != deliveries or counted.disordered or counted.closed:
            raise LoadFailed(
                f"{counted.delivered} of {deliveries} deliveries, {counted.disordered} out of order,"
                f" {counted.closed} connections closed; {counted.error}"
            )
        return counted

    async def reset(self) -> Counted:
        return await self._command("reset")

    async def close(self) -> Counted:
        return await self._command("close")

    async def _command(self, line: str) -> Counted:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        # In a thread: uvloop starts no process in a given process group, so its streams are plain ones.
        answer = await asyncio.to_thread(self._process.stdout.readline)
        if not answer:
            raise LoadFailed(f"the load generator ended at {line!r}")
        return msgspec.json.decode(answer, type=Counted)


def line(port: int, target: str, headers: Sequence[str] = (), *, ready: int = 0) -> str:
    """One connection for `Load.connect`; `ready`: messages that come before it counts as ready."""
    return f"{port}\t{target}\t{chr(0x1F).join(headers)}\t{ready}"


@contextmanager
def running_load(binaries: Path, directory: Path, group: int, *, engineio: bool = False) -> Iterator[Load]:
    directory.mkdir(parents=True)
    process = subprocess.Popen(
        [str(binaries / "load"), *(["--engineio"] if engineio else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=group,
    )
    try:
        yield Load(process, directory)
    finally:
        process.kill()
        process.communicate()


def compile_native(directory: Path) -> Path:
    """Where `load` and `floor` are, newly made."""
    for source in SOURCES.glob("*.c"):
        subprocess.run([*_COMPILE, "-o", directory / source.stem, source], check=True)
    return directory
