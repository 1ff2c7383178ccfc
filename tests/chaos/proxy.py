"""A TCP proxy that misbehaves on command: one edge for each pair of processes that talk to each other.

    with Proxy(process_group) as proxy:
        port = proxy.open("gateway-1:redis", redis_port)
        proxy.change("gateway-1:redis", up=Toxics(black_hole=True))   # towards Redis
        proxy.heal("gateway-1:redis")
        proxy.cut("gateway-1:redis", How.RESET)

`up` is what the connecting side sends, `down` what it receives. What a black hole swallows is held and comes
when it is healed, as TCP would send it again; only the waiting side's deadlines notice it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
from typing import TYPE_CHECKING

import msgspec

from tests.chaos import companion

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any

_READ = 65536


class How(enum.Enum):
    """How connections are cut."""

    FIN = "fin"  # each end sees that the other has closed
    RESET = "reset"
    HALF_UP = "half-up"  # what is sent up ends there; answers still come
    HALF_DOWN = "half-down"  # requests still go up, and nothing comes back any more


class Toxics(msgspec.Struct, frozen=True):
    """What happens to the bytes of one direction."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    slice_bytes: int = 0  # sent in pieces of this size, with a turn of the loop between them
    bytes_per_second: int = 0
    black_hole: bool = False
    reset_after_bytes: int | None = None  # of one connection, counted from when this was set


HEALTHY = Toxics()


class _Open(msgspec.Struct, tag="open"):
    edge: str
    target: int
    seed: str


class _Change(msgspec.Struct, tag="change"):
    edge: str
    up: Toxics
    down: Toxics
    refuse: bool


class _Retarget(msgspec.Struct, tag="retarget"):
    edge: str
    target: int


class _Cut(msgspec.Struct, tag="cut"):
    edge: str
    how: How


class _Count(msgspec.Struct, tag="count"):
    edge: str


_Command = _Open | _Change | _Retarget | _Cut | _Count


class Proxy:
    """Commands the proxy's process. Ports are on loopback. The seed is for the jitter only."""

    def __init__(self, process_group: int, *, seed: int = 0) -> None:
        self._seed = seed
        self._process = companion.Companion("tests.chaos.proxy", process_group=process_group)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end()

    def open(self, edge: str, target: int) -> int:
        """The port that leads to the target's."""
        return self._process.ask(_Open(edge, target, f"{self._seed} {edge}"), int)

    def change(
        self, edge: str, *, up: Toxics = HEALTHY, down: Toxics = HEALTHY, refuse: bool = False
    ) -> None:
        """From now on, for connections that are open as well; `refuse` concerns new ones alone."""
        self._process.tell(_Change(edge, up, down, refuse))

    def heal(self, edge: str) -> None:
        self.change(edge)

    def retarget(self, edge: str, target: int) -> None:
        """New connections go there. Cut the others, or leave them where they are."""
        self._process.tell(_Retarget(edge, target))

    def cut(self, edge: str, how: How = How.RESET) -> int:
        """How many connections that were."""
        return self._process.ask(_Cut(edge, how), int)

    def connections(self, edge: str) -> int:
        return self._process.ask(_Count(edge), int)


# Everything below runs in the proxy's own process.


class Delays:
    """How long the bytes of one direction of one connection wait. The same seed, the same waits."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)

    def seconds(self, size: int, toxics: Toxics) -> float:
        delay = toxics.latency_seconds + self._chance.random() * toxics.jitter_seconds
        return delay + (size / toxics.bytes_per_second if toxics.bytes_per_second else 0.0)


class _Edge:
    def __init__(self, target: int, seed: str) -> None:
        self.target = target
        self.seed = seed
        self.opened = 0  # connections
        self.up = self.down = HEALTHY
        self.refuse = False
        self.links: set[_Link] = set()
        self.changed = asyncio.Event()
        self._server: asyncio.Server

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=2048)
        return int(self._server.sockets[0].getsockname()[1])

    def change(self, command: _Change) -> None:
        self.up, self.down, self.refuse = command.up, command.down, command.refuse
        self.changed.set()  # streams that wait in a black hole look again
        self.changed = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            _reset(writer)
            return
        try:
            target = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        self.opened += 1
        link = _Link(self, (reader, writer), target)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)


class _Link:
    """One connection through an edge: two streams, `near` of the one who connected and `far`."""

    def __init__(
        self,
        edge: _Edge,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._edge = edge
        self._near = near
        self._far = far
        self._writers = near[1], far[1]
        self._delays = Delays(f"{edge.seed} {edge.opened} up"), Delays(f"{edge.seed} {edge.opened} down")
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        for _, writer in (self._near, self._far):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways: list[Coroutine[Any, Any, None]] = [
            self._pass_on(self._near[0], self._far[1], lambda: self._edge.up, self._delays[0]),
            self._pass_on(self._far[0], self._near[1], lambda: self._edge.down, self._delays[1]),
        ]
        self._tasks = [asyncio.create_task(way) for way in ways]
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        toxics: Callable[[], Toxics],
        delays: Delays,
    ) -> None:
        passed = 0
        limited = toxics().reset_after_bytes
        try:
            while data := await reader.read(_READ):
                while toxics().black_hole:
                    await self._edge.changed.wait()
                now = toxics()
                if now.reset_after_bytes != limited:
                    passed, limited = 0, now.reset_after_bytes
                if limited is not None and passed + len(data) > limited:
                    writer.write(data[: limited - passed])
                    await asyncio.sleep(0)  # a turn of the loop, in which they leave
                    self.cut(How.RESET)
                    return
                passed += len(data)
                await asyncio.sleep(delays.seconds(len(data), now))
                await _send(writer, data, now)
            while toxics().black_hole:
                await self._edge.changed.wait()
            writer.write_eof()
        except (OSError, RuntimeError):  # one end is gone, or going: so is the other
            self.cut(How.RESET)

    def cut(self, how: How) -> None:
        if how is How.RESET:
            for writer in self._writers:
                _reset(writer)
        elif how is How.FIN:
            for writer in self._writers:
                writer.close()
        else:
            way = self._tasks[how is How.HALF_DOWN]
            way.cancel()
            with contextlib.suppress(OSError, RuntimeError):  # it may be closing already
                self._writers[how is How.HALF_UP].write_eof()


async def _send(writer: asyncio.StreamWriter, data: bytes, toxics: Toxics) -> None:
    for start in range(0, len(data), toxics.slice_bytes or len(data)):
        writer.write(data[start : start + (toxics.slice_bytes or len(data))])
        await writer.drain()
        if toxics.slice_bytes:
            await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN: what is on its way is lost."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError):  # ValueError is uvloop's: it has ended by itself
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _main() -> None:
    edges: dict[str, _Edge] = {}

    async def do(command: _Command) -> object:
        if isinstance(command, _Open):
            edges[command.edge] = _Edge(command.target, command.seed)
            return await edges[command.edge].listen()
        edge = edges[command.edge]
        if isinstance(command, _Change):
            edge.change(command)
        elif isinstance(command, _Retarget):
            edge.target = command.target
        elif isinstance(command, _Cut):
            links = list(edge.links)
            for link in links:
                link.cut(command.how)
            return len(links)
        return len(edge.links)

    await companion.obey(_Command, do)


if __name__ == "__main__":
    companion.run(_main)
