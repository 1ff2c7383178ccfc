"""What each transport costs a gateway: processor time of a delivery to one customer, and memory of a client.

The clients are connections of this process that read, count events, and say nothing but what their transport
asks for. In each round a new gateway has the same number of each kind, and events go flat out into Redis, a
hundred at a time to as many customers of one kind, the next when all have come. The kinds take short turns,
so that whatever else the machine does meets all of them. Memory is measured on a gateway of each kind's own.

Mercure's hub and Spring's simple broker, where they are installed, take their turns with the others, each on
a Redis of its own. They verify no token, keep no history and notice no gap.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar, cast

from bench.contenders import Event, Orderbell
from bench.peers.gateways import Mercure, Spring
from bench.table import Table, median, median_ratio
from bench.usage import Usage, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.contenders import Contender
    from bench.run import Run

CUSTOMERS = 500  # of each kind
TURNS = 10  # of each kind in a round
BATCH = 100
IDLE = 10_000
SETTLE_SECONDS = 0.3
_AT_ONCE = 100
_SECONDS = 120.0
_PING, _PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)  # empty ones; no JSON has these bytes
_CURSOR = re.compile(rb'"cursor":"([^"]*)"\}$')


class Counter:
    """Of all clients: those that are greeted, and the events that have come."""

    def __init__(self) -> None:
        self.ready = 0
        self.events = 0
        self.lost = 0
        self._changed = asyncio.Event()

    def change(self) -> None:
        self._changed.set()

    async def wait_ready(self, count: int) -> None:
        await self._wait(lambda: self.ready >= count)

    async def wait_events(self, count: int) -> None:
        await self._wait(lambda: self.events >= count)

    async def _wait(self, reached: object) -> None:
        assert callable(reached)
        async with asyncio.timeout(_SECONDS):
            while not reached():
                if self.lost:
                    raise ConnectionError(f"{self.lost} connections have ended")
                self._changed.clear()
                await self._changed.wait()


class Client(asyncio.Protocol):
    """A WebSocket."""

    name: ClassVar[str] = "websocket"
    of: ClassVar[type[Contender]] = Orderbell  # whose gateway it connects to

    def __init__(self, counter: Counter, port: int, customer: str, token: str) -> None:
        """`token` is empty where no gateway asks for one."""
        self.counter = counter
        self.port = port
        self.customer = customer
        self.token = token
        self.greeted = False
        self.closing = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.begin()

    def begin(self) -> None:
        self.ask("/events", *self.upgrade("cloudevents.json"))

    def upgrade(self, subprotocol: str) -> list[str]:
        key = base64.b64encode(os.urandom(16)).decode()
        return [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Sec-WebSocket-Protocol: {subprotocol}",
        ]

    def ask(self, target: str, *headers: str) -> None:
        lines = [f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"Authorization: Bearer {self.token}"] if self.token else []
        lines += [*headers, "", ""]
        self.transport.write("\r\n".join(lines).encode())

    def data_received(self, data: bytes) -> None:
        if not self.greeted and self.greets(data):
            self.greet()
        if _PING in data:
            self.transport.write(_PONG)
        self.count(data)

    def greets(self, data: bytes) -> bool:
        return b"orderbell.hello" in data

    def greet(self) -> None:
        self.greeted = True
        self.counter.ready += 1
        self.counter.change()

    def count(self, data: bytes) -> None:
        if events := data.count(b'"seq":'):
            self.counter.events += events
            self.counter.change()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closing:
            self.counter.lost += 1
            self.counter.change()

    def close(self) -> None:
        self.closing = True
        self.transport.abort()


class EventStream(Client):
    name = "sse"

    def begin(self) -> None:
        self.ask("/events", "Accept: text/event-stream")


class Stomp(Client):
    name = "stomp"

    def begin(self) -> None:
        self.ask("/stomp", *self.upgrade("v12.stomp"))

    def data_received(self, data: bytes) -> None:
        if b"101 Switching" in data:
            self.send(f"CONNECT\naccept-version:1.2\npasscode:{self.token}\n\n\0")
            self.send("SUBSCRIBE\nid:1\ndestination:/user/queue/orders\nack:client\nreceipt:live\n\n\0")
        super().data_received(data)

    def greets(self, data: bytes) -> bool:
        return b"RECEIPT" in data

    def send(self, frame: str) -> None:
        text = frame.encode()
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        self.transport.write(b"\x81" + size + bytes(4) + text)  # under a mask of zeros


class LongPoll(Client):
    name = "long-polling"
    _sessions = itertools.count()

    def begin(self) -> None:
        self.session = f"bench-{os.getpid()}-{next(self._sessions)}"
        self.answer = b""
        self.poll("")

    def poll(self, cursor: str) -> None:
        self.ask(f"/events?wait=55&session={self.session}" + (f"&after={cursor}" if cursor else ""))

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, _, body = self.answer.partition(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", head)
        if size is None or len(body) < int(size[1]):
            return
        self.answer = b""
        super().data_received(body)
        found = _CURSOR.search(body)
        assert found is not None, body
        self.poll(found[1].decode())


class MercureStream(Client):
    name = Mercure.name
    of: ClassVar[type[Contender]] = Mercure

    def begin(self) -> None:
        self.ask(f"/.well-known/mercure?topic={self.customer}", "Accept: text/event-stream")

    def greets(self, data: bytes) -> bool:
        return b"200 OK" in data


class SpringStomp(Stomp):
    """The broker confirms no subscription. It is there by the first turn, which is not counted."""

    name = Spring.name
    of: ClassVar[type[Contender]] = Spring

    def data_received(self, data: bytes) -> None:
        if b"101" in data[:16]:
            self.send("CONNECT\naccept-version:1.2\nhost:127.0.0.1\n\n\0")
        if b"CONNECTED" in data:
            self.send(f"SUBSCRIBE\nid:1\ndestination:/topic/{self.customer}\n\n\0")
        Client.data_received(self, data)

    def greets(self, data: bytes) -> bool:
        return b"CONNECTED" in data


OURS: tuple[type[Client], ...] = (Client, EventStream, Stomp, LongPoll)
PEERS: tuple[type[Client], ...] = (MercureStream, SpringStomp)


async def run(run: Run) -> Table:
    table = Table(
        "transports",
        "What a client of each transport costs a gateway",
        ["transport", "CPU µs a delivery, to one", "÷ WebSocket", f"KiB a client, {IDLE:,} idle"],
        [
            f"{CUSTOMERS:,} customers of each, one client each; medians of the turns, and of their ratios to"
            " the WebSocket's turn before. Memory: what the gateway's grows by, a customer's feed included."
        ],
    )
    kinds = (*OURS, *(one for one in PEERS if one.of in run.streams))
    costs: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(1, run.rounds + 1):
        run.progress(f"transports: round {number} of {run.rounds}")
        async with contextlib.AsyncExitStack() as stack:
            contenders = {one: one() for one in dict.fromkeys(kind.of for kind in kinds)}
            for contender in contenders.values():
                await contender.start(run, 1, stack)
            for kind, cost in await _deliveries(run, [(kind, contenders[kind.of]) for kind in kinds]):
                costs[kind.name].append(cost)
                table.rounds.append({"transport": kind.name, "microseconds": cost})
    for kind in kinds:
        memory = None
        if kind in OURS:
            run.progress(f"transports: {kind.name}, memory")
            memory = await _memory(run, kind)
            table.rounds.append({"transport": kind.name, "kib": memory})
        mine = costs[kind.name]
        table.add(kind.name, median(mine), median_ratio(mine, costs[Client.name]), memory)
    return table


async def _deliveries(
    run: Run, kinds: Sequence[tuple[type[Client], Contender]]
) -> list[tuple[type[Client], float]]:
    """Microseconds a delivery, turn by turn."""
    groups = []
    for number, (kind, contender) in enumerate(kinds):
        customers, counter = range(number * CUSTOMERS, (number + 1) * CUSTOMERS), Counter()
        clients = await _connect(contender, kind, customers, counter)
        groups.append((kind, contender, customers, counter, itertools.count(1), clients))
    await asyncio.sleep(SETTLE_SECONDS)
    turn_seconds = run.seconds / TURNS
    costs = []
    try:
        for turn in range(1 + TURNS):  # what is made once is not any turn's
            for kind, contender, customers, counter, places, _ in groups:
                before = counter.events
                usage = Usage(contender.gateway_pids)
                await _publish_for(turn_seconds, contender, counter, customers, places)
                await asyncio.sleep(SETTLE_SECONDS)  # what follows is this kind's: a poll asks again
                if turn:
                    costs.append((kind, 1e6 * usage.cpu / (counter.events - before)))
    finally:
        for *_, clients in groups:
            for client in clients:
                client.close()
    return costs


async def _publish_for(
    seconds: float,
    contender: Contender,
    counter: Counter,
    customers: Sequence[int],
    places: itertools.count[int],
) -> None:
    loop = asyncio.get_running_loop()
    until, expected = loop.time() + seconds, counter.events
    while loop.time() < until:
        n = next(places)
        for start in range(0, len(customers), BATCH):
            await contender.publish_to_redis([Event(one, n) for one in customers[start : start + BATCH]])
            expected += BATCH
            await counter.wait_events(expected)


async def _memory(run: Run, kind: type[Client]) -> float:
    """On a gateway of its own: memory that was freed is not given back."""
    async with contextlib.AsyncExitStack() as stack:
        contender = Orderbell()
        await contender.start(run, 1, stack)
        counter = Counter()
        clients = await _connect(contender, kind, range(500), counter)  # what is there once
        before = resident_bytes(contender.gateway_pids)
        clients += await _connect(contender, kind, range(500, 500 + IDLE), counter)
        await asyncio.sleep(3)
        after = resident_bytes(contender.gateway_pids)
        for client in clients:
            client.close()
        return (after - before) / IDLE / 1024


async def _connect(
    contender: Contender, kind: type[Client], customers: Sequence[int], counter: Counter
) -> list[Client]:
    loop = asyncio.get_running_loop()
    port = contender.gateways[0].port
    ready, clients = counter.ready, list[Client]()
    for start in range(0, len(customers), _AT_ONCE):
        for customer in (f"customer-{n}" for n in customers[start : start + _AT_ONCE]):
            token = contender.stack.token(customer) if isinstance(contender, Orderbell) else ""
            client = kind(counter, port, customer, token)
            await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
            clients.append(client)
        await counter.wait_ready(ready + len(clients))
    return clients
