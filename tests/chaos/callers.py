"""The callers: services that complete orders at a steady rate, and repeat each request until it is answered.

Each order is placed, then completed; both requests carry an Idempotency-Key and are repeated, at any of
the senders, until an answer comes. An order that is completed and was never answered may exist or not.

Some alerts have a life after that: they expire, are taken back, or are read somewhere else. Meanwhile
customers' lists are read, one after the other, and written down.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from shared.times import format_time
from tests.chaos import companion, listing
from tests.chaos.ledger import Change, Expiring, LedgerWriter, Post, now

if TYPE_CHECKING:
    from types import TracebackType

TURN = 0.01  # seconds; how often orders are begun
MAX_UNDER_WAY = 1_000  # orders; beyond that none are begun, and the rate falls
ANSWER_SECONDS = 8.0  # for one request, then it is sent again
PAUSE = 0.05, 0.5  # seconds before a request is sent again
EXPIRES = 5.0  # seconds after it was completed, at most; many before they could be shown
CHANGES = 3.0  # seconds after it was completed, at most: an alert is taken back, or marked as read
LOOKS = 0.2  # seconds between two looks at lists


class Life(msgspec.Struct, frozen=True):
    """The shares of the alerts that are taken back, that expire and that are read: no alert has two fates."""

    retracted: float = 0.0
    expiring: float = 0.0
    read: float = 0.0


NONE = Life()
LIVELY = Life(0.15, 0.1, 0.15)


class _Start(msgspec.Struct, tag="start"):
    customers: list[str]
    ports: list[int]  # of senders
    api_key: str
    rate: float
    ledger: str
    seed: int
    name: str
    life: Life


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
    expires: float  # when the last alert that can expires


class Callers:
    """Commands the callers' process."""

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
        life: Life = NONE,
    ) -> None:
        """Begin to place so many orders a second. Customers are chosen unevenly: some order often, many
        seldom.
        """
        start = _Start(customers, ports, api_key, rate, str(ledger), seed, name, life)
        self._process.tell(start)

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
        """Raises `OSError`, `EOFError` and `TimeoutError`; the outcome of the request is then unknown."""
        headers = ["content-type: application/json", f"idempotency-key: {key}"]
        return await self._ask(f"POST {path}", headers, body)

    async def get(self, path: str) -> _Answer:
        """Raises the same."""
        return await self._ask(f"GET {path}", [], b"")

    async def _ask(self, what: str, headers: list[str], body: bytes) -> _Answer:
        async with asyncio.timeout(ANSWER_SECONDS):
            streams = self._pop_idle() or await asyncio.open_connection("127.0.0.1", self._port)
            try:
                answer = await self._exchange(*streams, what, headers, body)
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
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        what: str,
        headers: list[str],
        body: bytes,
    ) -> _Answer:
        lines = [
            f"{what} HTTP/1.1",
            "host: 127.0.0.1",
            f"authorization: Bearer {self._api_key}",
            *headers,
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
        self._life = start.life
        self._expires = 0.0
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
        fate = self._chance.random()
        answer = await self._until_answered("/orders", body, f"place-{order_id}")
        if answer.status in (200, 201):
            expires = self._life.retracted <= fate < self._life.retracted + self._life.expiring
            body = self._expiring(order_id) if expires else b"{}"
            answer = await self._until_answered(f"/orders/{order_id}/complete", body, f"complete-{order_id}")
        good = answer.status == 200
        self.answered += good
        self.refused += not good
        self.ledger.write(Post(now(), order_id, customer, "ok" if good else "refused"))
        if good:
            await self._change(order_id, customer, fate, answer.body)

    def _expiring(self, order_id: str) -> bytes:
        seconds = self._soon(EXPIRES)
        moment = format_time(datetime.now(UTC) + timedelta(seconds=seconds))
        self._expires = max(self._expires, now() + seconds)
        self.ledger.write(Expiring(order_id, now() + seconds))
        return msgspec.json.encode({"expirytime": moment})

    def _soon(self, longest: float) -> float:
        """Seconds, a third of them less than a tenth of the longest."""
        return longest * self._chance.random() * self._chance.random()

    async def _change(self, order_id: str, customer: str, fate: float, completed: bytes) -> None:
        """Take its alert back, in one way or the other, or mark it as read; most are left alone."""
        event = msgspec.json.decode(completed)["event"]
        cursor = f"{event['channel']}={event['epoch']}.{event['seq']}"
        alone: dict[str, object] = {"ids": [event["id"]], "customer_id": customer}
        way = self._chance.random() < 0.5
        if fate < self._life.retracted:
            path = "/retractions" if way else f"/orders/{order_id}/cancel"
            await self._post_change(order_id, "retract", path, {"order_id": order_id} if way else {})
            if self._life.read and way:  # on a device that has not heard of it: that changes nothing
                await self._post_change(order_id, "read", "/read", alone)
        elif fate > 1 - self._life.read:
            await self._post_change(order_id, "read", "/read", {"cursors": [cursor]} if way else alone)

    async def _post_change(
        self, order_id: str, what: Literal["retract", "read"], path: str, body: dict[str, object]
    ) -> None:
        await asyncio.sleep(self._soon(CHANGES))
        self.ledger.write(Change(now(), order_id, what, "invoke"))
        answer = await self._until_answered(path, msgspec.json.encode(body), f"{what}-{order_id}")
        self.ledger.write(Change(now(), order_id, what, "ok" if answer.status == 200 else "refused"))

    async def look(self) -> None:
        """At one customer's list after the other. Each look begins when the one before it was answered."""
        while True:
            await asyncio.sleep(LOOKS)
            (customer,) = self._chance.choices(self._customers, cum_weights=self._weights)
            channel = f"customer:{customer}"
            try:
                answer = await self._chance.choice(self._senders).get(
                    f"/channels/{channel}/alerts?limit={listing.PAGE}"
                )
            except (OSError, EOFError, TimeoutError):
                continue
            if answer.status == 200:
                self.ledger.write(listing.listed(channel, "sender", [answer.body]))

    async def _until_answered(self, path: str, body: bytes, key: str) -> _Answer:
        """The first answer that does not ask to come back."""
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
        return Status(self.answered, len(self.under_way), self.refused, dict(self.asked_again), self._expires)


async def _main() -> None:
    callers: _Callers | None = None
    tasks: list[asyncio.Task[None]] = []

    async def do(command: _Command) -> object:
        nonlocal callers
        if isinstance(command, _Start):
            callers = _Callers(command)
            tasks.append(asyncio.create_task(callers.run()))
            if command.life != NONE:
                tasks.append(asyncio.create_task(callers.look()))
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
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    companion.run(_main)
