"""The callers: services that complete orders, at a steady rate, and ask again until they are answered.

Each order is placed, then completed; both requests carry an Idempotency-Key and are repeated, at any of
the senders, until an answer comes. An order that is completed and was never answered may exist or not.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tests.chaos import companion
from tests.chaos.ledger import LedgerWriter, Post, now

if TYPE_CHECKING:
    from types import TracebackType

TURN = 0.01  # seconds; how often orders are begun
MAX_UNDER_WAY = 1_000  # orders; beyond that none are begun, and the rate falls
ANSWER_SECONDS = 8.0  # for one request, then it is sent again
PAUSE = 0.05, 0.5  # seconds before a request is sent again


class _Start(msgspec.Struct, tag="start"):
    customers: list[str]
    ports: list[int]  # of senders
    api_key: str
    rate: float
    ledger: str
    seed: int
    name: str


class _Rate(msgspec.Struct, tag="rate"):
    rate: float


class _Complete(msgspec.Struct, tag="complete"):
    customers: list[str]


class _Status(msgspec.Struct, tag="status"):
    pass


class _Stop(msgspec.Struct, tag="stop"):
    seconds: float


_Command = _Start | _Rate | _Complete | _Status | _Stop


class Status(msgspec.Struct):
    answered: int
    under_way: int
    refused: int
    asked_again: dict[
        str, int
    ]  # requests that were sent again, by the status that was no answer, or the error


class Callers:
    """The one who commands them."""

    def __init__(self, process_group: int) -> None:
        self._process = companion.Companion("tests.chaos.callers", process_group=process_group)

    def __enter__(self) -> Callers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end()

    def start(
        self,
        customers: list[str],
        ports: list[int],
        api_key: str,
        ledger: Path,
        *,
        rate: float,
        seed: int = 0,
        name: str = "order",
    ) -> None:
        """Orders a second, of customers who are chosen unevenly: some order often, many seldom."""
        self._process.tell(_Start(customers, ports, api_key, rate, str(ledger), seed, name))

    def set_rate(self, rate: float) -> None:
        self._process.tell(_Rate(rate))

    def complete(self, customers: list[str]) -> None:
        """One order of each, now; returns when all are answered."""
        self._process.tell(_Complete(customers))

    def status(self) -> Status:
        return self._process.ask(_Status(), Status)

    def stop(self, *, seconds: float = 30.0) -> Status:
        """No more orders; returns when those under way are answered, or that time is over."""
        return self._process.ask(_Stop(seconds), Status)


# Everything below runs in the callers' own process.


class _Answer(NamedTuple):
    status: int
    body: bytes
    last: bool  # of this connection


class _Sender:
    """Connections to one sender, kept alive. HTTP just as far as our own server speaks it."""

    def __init__(self, port: int, api_key: str) -> None:
        self._port = port
        self._api_key = api_key
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes, key: str) -> _Answer:
        """Raises `OSError`, `EOFError` and `TimeoutError`; then nobody knows what became of it."""
        async with asyncio.timeout(ANSWER_SECONDS):
            streams = self._pop_idle() or await asyncio.open_connection("127.0.0.1", self._port)
            try:
                answer = await self._exchange(*streams, path, body, key)
            except BaseException:
                streams[1].transport.abort()
                raise
        if answer.last:
            streams[1].close()
        else:
            self._idle.append(streams)
        return answer

    def _pop_idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (writer.is_closing() or reader.at_eof()):  # a fault, or a balancer, may have ended it
                return reader, writer
            writer.close()
        return None

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes, key: str
    ) -> _Answer:
        lines = [
            f"POST {path} HTTP/1.1",
            "host: 127.0.0.1",
            f"authorization: Bearer {self._api_key}",
            "content-type: application/json",
            f"idempotency-key: {key}",
            f"content-length: {len(body)}",
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        last = b"\r\nconnection: close\r\n" in head
        return _Answer(int(head[9:12]), await reader.readexactly(length), last)


class _Callers:
    def __init__(self, start: _Start) -> None:
        self.rate = start.rate
        self.answered = self.refused = 0
        self.asked_again: Counter[str] = Counter()
        self.under_way: set[asyncio.Task[None]] = set()
        self.ledger = LedgerWriter(Path(start.ledger))
        self._senders = [_Sender(port, start.api_key) for port in start.ports]
        self._customers = start.customers
        # The last of 500 orders a hundredth as often as the first: some channels are busy, many idle.
        self._weights = list(accumulate(1 / (n + 5) for n in range(len(start.customers))))
        self._chance = random.Random(start.seed)
        self._name = start.name
        self._count = 0

    async def run(self) -> None:
        due, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
        owed = 0.0
        while True:
            owed = min(
                owed + self.rate * (loop.time() - due), self.rate
            )  # a second's, where it can't keep up
            due = loop.time()
            count = min(int(owed), MAX_UNDER_WAY - len(self.under_way))
            owed -= count
            for customer in self._chance.choices(self._customers, cum_weights=self._weights, k=count):
                self.begin(customer)
            await asyncio.sleep(TURN)

    def begin(self, customer: str) -> asyncio.Task[None]:
        self._count += 1
        task = asyncio.create_task(self._order(f"{self._name}-{self._count}", customer))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    async def _order(self, order_id: str, customer: str) -> None:
        body = msgspec.json.encode({"order_id": order_id, "customer_id": customer})
        self.ledger.write(Post(now(), order_id, customer, "invoke"))
        answer = await self._until_answered("/orders", body, f"place-{order_id}")
        if answer.status in (200, 201):
            answer = await self._until_answered(f"/orders/{order_id}/complete", b"{}", f"complete-{order_id}")
        good = answer.status == 200
        self.answered += good
        self.refused += not good
        self.ledger.write(Post(now(), order_id, customer, "ok" if good else "refused"))

    async def _until_answered(self, path: str, body: bytes, key: str) -> _Answer:
        """The first answer that isn't "come back"."""
        while True:
            try:
                answer = await self._chance.choice(self._senders).post(path, body, key)
            except (OSError, EOFError, TimeoutError) as error:
                self.asked_again[type(error).__name__] += 1
            else:
                if answer.status < 500:
                    return answer
                self.asked_again[str(answer.status)] += 1
            await asyncio.sleep(self._chance.uniform(*PAUSE))

    async def stop(self, seconds: float) -> Status:
        self.rate = 0.0
        await asyncio.sleep(2 * TURN)  # a turn that began before still places what it owed
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=seconds)
        status = self.status()
        for task in list(self.under_way):
            task.cancel()
        self.ledger.flush()
        return status

    def status(self) -> Status:
        return Status(self.answered, len(self.under_way), self.refused, dict(self.asked_again))


async def _main() -> None:
    callers: _Callers | None = None
    beginning: asyncio.Task[None] | None = None

    async def do(command: _Command) -> object:
        nonlocal callers, beginning
        if isinstance(command, _Start):
            callers = _Callers(command)
            beginning = asyncio.create_task(callers.run())
            return None
        assert callers is not None, "start them first"
        if isinstance(command, _Status):
            return callers.status()
        if isinstance(command, _Stop):
            return await callers.stop(command.seconds)
        if isinstance(command, _Rate):
            callers.rate = command.rate
        else:
            await asyncio.gather(*map(callers.begin, command.customers))
        return None

    await companion.obey(_Command, do)
    if beginning is not None:
        beginning.cancel()


if __name__ == "__main__":
    companion.run(_main)
