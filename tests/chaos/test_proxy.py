"""The proxy: each toxic does what it says, one way or both, and ends when it is healed.

A toxic that did nothing would make every result of the chaos runs green.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.chaos.proxy import Delays, How, Proxy, Toxics
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

BLACK_HOLE = Toxics(black_hole=True)
NEVER_SECONDS = 0.2  # what did not come in this time does not come
_DATA_SEGMENTS_IN = struct.Struct("152xI")  # tcpi_data_segs_in of Linux' struct tcp_info


@pytest.fixture(scope="module")
def proxy(process_group: int) -> Iterator[Proxy]:
    with Proxy(process_group, seed=7) as proxy:
        yield proxy


@dataclass
class End:
    """One end of a connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, count: int = 65536) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.read(count)

    async def read_exactly(self, count: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(count)

    async def read_until_reset(self) -> bytes:
        """What came before the other end, or the proxy, reset the connection."""
        had = b""
        try:
            while data := await self.read():
                had += data
        except ConnectionResetError:
            return had
        raise AssertionError(f"it was closed, not reset, after {had!r}")

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(NEVER_SECONDS):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


class Edge:
    """A server, and a way to it through the proxy; connections end with it."""

    def __init__(self, proxy: Proxy, name: str) -> None:
        self.proxy = proxy
        self.name = name
        self.port = 0
        self.target = 0
        self._accepted: asyncio.Queue[End] = asyncio.Queue()
        self._ends: list[End] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, proxy: Proxy, name: str) -> AsyncIterator[Edge]:
        edge = cls(proxy, name)
        server = await asyncio.start_server(edge._accept, "127.0.0.1", 0)
        edge.target = server.sockets[0].getsockname()[1]
        edge.port = proxy.open(name, edge.target)
        try:
            yield edge
        finally:
            server.close()
            for end in edge._ends:
                end.writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(End(reader, writer))
        self._accepted.put_nowait(self._ends[-1])

    async def connect(self) -> tuple[End, End]:
        """The near end, which connected, and the far one."""
        near = End(*await asyncio.open_connection("127.0.0.1", self.port))
        far = await asyncio.wait_for(self._accepted.get(), 10)
        self._ends.append(near)
        near.writer.write(b"?")
        assert await far.read_exactly(1) == b"?"  # it is through
        return near, far

    def change(self, *, up: Toxics = Toxics(), down: Toxics = Toxics(), refuse: bool = False) -> None:  # noqa: B008 - frozen
        self.proxy.change(self.name, up=up, down=down, refuse=refuse)

    def heal(self) -> None:
        self.proxy.heal(self.name)

    def cut(self, how: How) -> int:
        return self.proxy.cut(self.name, how)


@pytest.fixture
async def edge(proxy: Proxy, key_prefix: str, anyio_backend: object) -> AsyncIterator[Edge]:
    async with Edge.running(proxy, key_prefix) as edge:
        yield edge


async def test_healthy_edge_passes_on_every_byte_and_each_end(edge: Edge) -> None:
    near, far = await edge.connect()
    near.writer.write(b"up" * 100_000)
    near.writer.write_eof()
    assert await far.read_exactly(200_000) == b"up" * 100_000
    assert await far.read() == b""
    far.writer.write(b"down")
    far.writer.write_eof()
    assert await near.read_exactly(4) == b"down"
    assert await near.read() == b""


async def test_latency_delays_what_goes_one_way_and_not_what_goes_the_other(edge: Edge) -> None:
    near, far = await edge.connect()
    edge.change(up=Toxics(latency_seconds=0.3))
    began = time.monotonic()
    near.writer.write(b"up")
    far.writer.write(b"down")
    arriving = asyncio.create_task(far.read_exactly(2))
    assert await near.read_exactly(4) == b"down"
    assert not arriving.done()
    assert await arriving == b"up"
    assert time.monotonic() - began > 0.29  # loops count in milliseconds


async def test_bytes_per_second_are_a_speed(edge: Edge) -> None:
    near, far = await edge.connect()
    edge.change(down=Toxics(bytes_per_second=10_000))
    began = time.monotonic()
    far.writer.write(b"x" * 3_000)
    await near.read_exactly(3_000)
    assert time.monotonic() - began > 0.29


def test_jitter_follows_its_seed_and_stays_within_its_bounds() -> None:
    toxics = Toxics(latency_seconds=0.1, jitter_seconds=0.2)

    def delays(seed: str) -> list[float]:
        some = Delays(seed)
        return [some.seconds(1, toxics) for _ in range(100)]

    assert delays("7 a") == delays("7 a")
    assert delays("7 a") != delays("8 a")
    assert 0.1 <= min(delays("7 a")) < 0.13
    assert 0.27 < max(delays("7 a")) <= 0.3


def segments(end: End) -> int:
    """How many pieces with data have come, as the kernel counts them."""
    sock = end.writer.get_extra_info("socket")
    (count,) = _DATA_SEGMENTS_IN.unpack_from(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
    return int(count)


async def test_slices_arrive_one_by_one(edge: Edge) -> None:
    near, far = await edge.connect()
    before = segments(far)
    near.writer.write(b"x" * 1_000)
    await far.read_exactly(1_000)
    whole, before = segments(far) - before, segments(far)
    edge.change(up=Toxics(slice_bytes=10))
    near.writer.write(b"x" * 1_000)
    await far.read_exactly(1_000)
    assert whole < 5
    assert segments(far) - before >= 10  # of 100; what waits for an acknowledgement the kernel joins


@pytest.mark.parametrize("way", ["up", "down"])
async def test_black_hole_holds_what_goes_in_until_it_is_healed(edge: Edge, way: str) -> None:
    near, far = await edge.connect()
    edge.change(**{way: BLACK_HOLE})  # type: ignore[arg-type] # up or down
    sends, waits = (near, far) if way == "up" else (far, near)
    waits.writer.write(b"the other way")
    assert await sends.read_exactly(13) == b"the other way"
    sends.writer.write(b"held")
    sends.writer.write_eof()
    assert await waits.hears_nothing()  # nor the end of it
    edge.heal()
    assert await waits.read_exactly(4) == b"held"
    assert await waits.read() == b""


async def test_black_hole_takes_new_connections_and_says_nothing_on_them(edge: Edge) -> None:
    edge.change(up=BLACK_HOLE, down=BLACK_HOLE)
    near = End(*await asyncio.open_connection("127.0.0.1", edge.port))
    near.writer.write(b"?")
    assert await near.hears_nothing()
    near.writer.transport.abort()


async def test_cut_by_fin_looks_to_both_ends_as_if_the_other_had_closed(edge: Edge) -> None:
    near, far = await edge.connect()
    assert edge.cut(How.FIN) == 1
    assert (await near.read(), await far.read()) == (b"", b"")


async def test_cut_by_reset_resets_both_ends_of_all_connections(edge: Edge) -> None:
    ends = [*await edge.connect(), *await edge.connect()]
    assert edge.cut(How.RESET) == 2
    for end in ends:
        assert await end.read_until_reset() == b""
    await await_until(lambda: edge.proxy.connections(edge.name) == 0)


@pytest.mark.parametrize("how", [How.HALF_UP, How.HALF_DOWN])
async def test_half_close_ends_one_way_and_leaves_the_other_open(edge: Edge, how: How) -> None:
    near, far = await edge.connect()
    ended, open_still = (far, near) if how is How.HALF_UP else (near, far)
    edge.cut(how)
    assert await ended.read() == b""
    ended.writer.write(b"still")
    assert await open_still.read_exactly(5) == b"still"
    open_still.writer.write(b"nobody gets this")
    assert await ended.read() == b""
    assert edge.proxy.connections(edge.name) == 1


async def test_limit_of_bytes_resets_the_connection_that_reaches_it_and_lets_no_more_through(
    edge: Edge,
) -> None:
    one, other = await edge.connect(), await edge.connect()
    edge.change(down=Toxics(reset_after_bytes=10))
    one[1].writer.write(b"123456")
    assert await one[0].read_exactly(6) == b"123456"
    one[1].writer.write(b"789012")
    assert await one[0].read_until_reset() == b"7890"
    assert await one[1].read_until_reset() == b""
    other[1].writer.write(b"0123456789")
    assert await other[0].read_exactly(10) == b"0123456789"


async def test_refusing_edge_resets_new_connections_and_keeps_existing_ones(edge: Edge) -> None:
    near, far = await edge.connect()
    edge.change(refuse=True)
    await _come_and_be_reset(edge.port)
    near.writer.write(b"still")
    assert await far.read_exactly(5) == b"still"


async def _come_and_be_reset(port: int) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionResetError:  # before we knew that it was made
        return
    assert await End(reader, writer).read_until_reset() == b""
    writer.transport.abort()


async def test_retargeted_edge_leads_new_connections_elsewhere_and_leaves_the_others(
    edge: Edge, proxy: Proxy, key_prefix: str
) -> None:
    async with Edge.running(proxy, f"{key_prefix}:other") as other:
        near, far = await edge.connect()
        proxy.retarget(edge.name, other.target)
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        there = await asyncio.wait_for(other._accepted.get(), 10)
        writer.write(b"elsewhere")
        assert await there.read_exactly(9) == b"elsewhere"
        near.writer.write(b"here")
        assert await far.read_exactly(4) == b"here"
        for end in (End(reader, writer), there):
            end.writer.transport.abort()
