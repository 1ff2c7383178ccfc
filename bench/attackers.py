"""Hostile clients, as a process of its own: `python -m bench.attackers`, for bench/abuse.py.

It reads what to do from standard input (`Orders`, JSON), attacks until its input ends, and writes what it did
(`Done`) as its last line. It never stops by itself: it reopens ended connections at once.

Its sockets come from loopback addresses of their own (127.0.1.1 and up), each of which a gateway takes for a
client: it trusts 127.0.0.1 as a proxy, and would exempt that from the limits by address.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import resource
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from uvicorn.loops.auto import auto_loop_factory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ANSWER_SECONDS = 5.0
_RETRY_SECONDS = 0.02
_CHUNK = 16 * 1024
_POUR_SECONDS = 0.5  # in which nothing is taken: the connection is opened anew
_MASK = b"\0\0\0\0"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, so that no port waits


class Orders(msgspec.Struct):
    attack: str
    port: int
    sockets: int
    addresses: int
    requests: list[str]  # whole heads, one for each identity that the attackers have
    messages: list[str] = []  # what they send over WebSockets, where the attack needs it


@dataclass
class Done:
    connected: int = 0
    refused: int = 0  # answered with something else, or not at all
    bytes: int = 0
    errors: int = 0  # connections that broke
    cpu: float = 0.0  # percent of a core that the attackers themselves took


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    first = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        return first + bytes([0x80 | len(payload)]) + _MASK + payload
    return first + b"\xfe" + struct.pack("!H", len(payload)) + _MASK + payload


class Attackers:
    def __init__(self, orders: Orders) -> None:
        self.done = Done()
        self._orders = orders
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()

    async def run(self) -> None:
        attack: Callable[[int], Awaitable[None]] = getattr(self, f"_{self._orders.attack}")
        async with asyncio.TaskGroup() as tasks:
            for n in range(self._orders.sockets):
                tasks.create_task(self._repeat(attack, n))

    async def _repeat(self, attack: Callable[[int], Awaitable[None]], n: int) -> None:
        await asyncio.sleep(n / self._orders.sockets)
        while True:
            try:
                await attack(n)
            except (OSError, TimeoutError):
                self.done.errors += 1
            await asyncio.sleep(_RETRY_SECONDS)

    # What attacks are made of.

    @contextlib.contextmanager
    def _socket(self, n: int, *, receive_bytes: int = 0) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK)  # bytes in our own kernel do no harm
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.bind((f"127.0.1.{1 + n % self._orders.addresses}", 0))
            yield sock

    async def _connect(self, sock: socket.socket) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._loop.sock_connect(sock, ("127.0.0.1", self._orders.port))

    async def _send(self, sock: socket.socket, data: bytes, seconds: float = ANSWER_SECONDS) -> None:
        async with asyncio.timeout(seconds):
            await self._loop.sock_sendall(sock, data)
        self.done.bytes += len(data)

    async def _receive(self, sock: socket.socket) -> bytes:
        """Raises `ConnectionError` at the end."""
        async with asyncio.timeout(ANSWER_SECONDS):
            data = await self._loop.sock_recv(sock, 65536)
        if not data:
            raise ConnectionResetError("closed")
        return data

    def _request(self, n: int) -> bytes:
        return self._orders.requests[n % len(self._orders.requests)].encode()

    async def _open(self, sock: socket.socket, n: int) -> bool:
        """A WebSocket; whether it was accepted."""
        await self._connect(sock)
        await self._send(sock, self._request(n))
        answer = await self._receive(sock)
        accepted = answer.startswith(b"HTTP/1.1 101")
        if accepted:
            self.done.connected += 1
        else:
            self.done.refused += 1
        return accepted

    async def _pour(self, sock: socket.socket, data: bytes) -> None:
        """As fast as it is taken, until the connection ends or nothing is taken any more. Nothing is read."""
        while True:
            await self._send(sock, data, _POUR_SECONDS)

    # The attacks.

    async def _never_read(self, n: int) -> None:
        with self._socket(n, receive_bytes=4096) as sock:
            if await self._open(sock, n):
                await asyncio.sleep(8 + random.random())

    async def _floods(self, n: int) -> None:
        kinds = [
            frame(9) * 2000,
            frame(10) * 2000,
            frame(1, b"x", final=False) + frame(0, final=False) * 2000,
            frame(1) * 2000,
            frame(9, b"x" * 125) * 100,
            frame(2, b"x" * 16_000),
        ]
        with self._socket(n) as sock:
            if await self._open(sock, n):
                await self._pour(sock, kinds[next(self._numbers) % len(kinds)])

    async def _slow(self, n: int) -> None:
        """Heads and bodies that are slow, or never end."""
        begin = b"GET / HTTP/1.1\r\nHost: x\r\n"
        post = b"POST /tickets HTTP/1.1\r\nHost: x\r\n"
        with self._socket(n) as sock:
            await self._connect(sock)
            self.done.connected += 1
            match n % 5:
                case 0:
                    await self._drip(sock, b"", b"")
                case 1:
                    await self._drip(sock, begin, b"X-A: b\r\n")
                case 2:
                    await self._drip(sock, post + b"Content-Length: 1000000000000\r\n\r\n", b"x")
                case 3:
                    await self._send(sock, begin)
                    await self._pour(sock, b"X-A: " + b"b" * 70 + b"\r\n")
                case 4:
                    await self._send(sock, post + b"Transfer-Encoding: chunked\r\n\r\n")
                    await self._pour(sock, b"4000\r\n" + b"x" * _CHUNK + b"\r\n")

    async def _drip(self, sock: socket.socket, first: bytes, drop: bytes) -> None:
        if first:
            await self._send(sock, first)
        while True:
            await asyncio.sleep(1.0)
            if drop:
                await self._send(sock, drop)
            else:
                await self._receive(sock)

    async def _handshakes(self, n: int) -> None:
        with self._socket(n) as sock:
            await self._open(sock, n)

    async def _garbage(self, n: int) -> None:
        """Random bytes instead of a request, or mutated frames behind a handshake."""
        with self._socket(n) as sock:
            if n % 2:
                await self._connect(sock)
                self.done.connected += 1
                await self._send(sock, os.urandom(random.randrange(1, 4096)))
                await self._receive(sock)
            elif await self._open(sock, next(self._numbers)):
                while True:
                    await self._send(sock, self._mutated())
                    await asyncio.sleep(0)

    def _mutated(self) -> bytes:
        message = bytearray(frame(random.choice((0, 1, 1, 1, 2, 8, 9, 10)), self._message()[:4000]))
        for _ in range(random.randrange(4)):
            message[random.randrange(len(message))] = random.randrange(256)
        return bytes(message)

    def _message(self) -> bytes:
        return random.choice(self._orders.messages).encode() if self._orders.messages else b"{}"

    async def _resume(self, n: int) -> None:
        """All of the history, again and again, by WebSocket or by polling."""
        with self._socket(n) as sock:
            if not await self._open(sock, n):
                return
            for _ in range(20):
                await self._receive(sock)

    async def _requests(self, n: int) -> None:
        """The same request over a connection that is kept, each when the one before is answered."""
        with self._socket(n) as sock:
            await self._connect(sock)
            self.done.connected += 1
            while True:
                await self._send(sock, self._request(next(self._numbers)))
                answer = await self._receive(sock)
                self.done.refused += not answer.startswith(b"HTTP/1.1 20")

    async def _messages(self, n: int) -> None:
        """Messages that cost work, at nearly the allowed rate."""
        with self._socket(n) as sock:
            if await self._open(sock, n):
                while True:
                    await self._send(sock, b"".join(frame(1, self._message()) for _ in range(15)))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self._receive(sock)


async def _attack() -> Done:
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    attackers = Attackers(orders)
    started = time.monotonic(), time.process_time()
    running = asyncio.create_task(attackers.run())
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()  # a fault of ours
    running.cancel()
    taken = time.process_time() - started[1]
    attackers.done.cpu = 100 * taken / (time.monotonic() - started[0])
    return attackers.done


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=_loop) as runner:
        done = runner.run(_attack())
    print(msgspec.json.encode(done).decode(), flush=True)
    os._exit(0)  # thousands of sockets at once: the kernel is quicker


def _loop() -> asyncio.AbstractEventLoop:
    make: Callable[[], Any] = auto_loop_factory()
    loop: asyncio.AbstractEventLoop = make()
    return loop


if __name__ == "__main__":
    main()
