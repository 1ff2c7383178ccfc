"""How long a customer waits: from the POST that completes an order to the frame at the browser.

Open loop: orders are completed when they are due, however long the ones before take, and each order's time
counts from when it was due. So a moment in which everything stands still is counted for every order that
waited in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench import orders
from bench.browser import open_browser
from bench.caller import callers
from bench.table import Table, median, percentile
from bench.usage import Usage

if TYPE_CHECKING:
    from bench.browser import Browser
    from bench.caller import Caller
    from bench.run import Run
    from bench.stack import Stack

RATES = (100, 200)  # orders a second
CUSTOMERS = 200
GATEWAYS = 2
_CALLERS = 64  # connections to the sender; a due order waits only if all are in use
_WARM_UP = 200  # orders
_LATE_SECONDS = 10.0  # after the last POST, what has not come counts as lost

NOTES = (
    f"One sender (SQLite, synchronous=FULL), {GATEWAYS} gateways, {CUSTOMERS} customers' WebSockets, all on"
    " one machine with the client. Open loop; medians of the rounds.",
    "Answer: until the caller has its 200. Frame: until the browser has the event. CPU: user and system time"
    " of that process; 100 % is one core.",
)


@dataclass
class Round:
    rate: int
    orders: int
    lost: int
    answer_p50: float  # milliseconds
    answer_p99: float
    frame_p50: float
    frame_p99: float
    frame_max: float
    sender_cpu: float  # percent of a core
    gateways_cpu: float
    client_cpu: float


async def run(run: Run) -> Table:
    table = Table(
        "post-to-frame",
        "From the POST to the frame",
        [
            "orders a second",
            "answer p50 ms",
            "p99 ms",
            "frame p50 ms",
            "p99 ms",
            "max ms",
            "lost",
            "sender CPU %",
            "gateways CPU %",
            "client CPU %",
        ],
        NOTES,
    )
    for rate in RATES:
        rounds = [await _round(run, rate, n) for n in range(run.rounds)]
        table.rounds += [asdict(one) for one in rounds]
        table.add(
            rate,
            median([r.answer_p50 for r in rounds]),
            median([r.answer_p99 for r in rounds]),
            median([r.frame_p50 for r in rounds]),
            median([r.frame_p99 for r in rounds]),
            max(r.frame_max for r in rounds),
            sum(r.lost for r in rounds),
            median([r.sender_cpu for r in rounds]),
            median([r.gateways_cpu for r in rounds]),
            median([r.client_cpu for r in rounds]),
        )
    return table


async def _round(run: Run, rate: int, number: int) -> Round:
    run.progress(f"POST to frame: {rate} orders a second, round {number + 1} of {run.rounds}")
    count = int(rate * run.seconds)
    with run.stack(gateways=GATEWAYS) as stack:
        placed = [(f"order-{n}", f"customer-{n % CUSTOMERS}") for n in range(_WARM_UP + count)]
        await orders.place(stack, placed)
        watch = Watch()
        browsers = await _open_browsers(stack, watch)
        order_ids = [order for order, _ in placed]
        await _complete(stack, order_ids[:_WARM_UP], rate, watch)
        watch.forget()
        result = await _measure(stack, order_ids[_WARM_UP:], rate, watch)
        for browser in browsers:
            browser.close()
    return result


class Watch:
    """When each order was due, was answered and was shown."""

    def __init__(self) -> None:
        self.forget()
        self._hellos = asyncio.Semaphore(0)
        self._shown = asyncio.Event()

    def forget(self) -> None:
        self.due: dict[bytes, float] = {}
        self.answered: dict[bytes, float] = {}
        self.shown: dict[bytes, float] = {}

    def show(self, text: bytes) -> None:
        now = time.monotonic()
        order = text.partition(b'"subject":"')[2].partition(b'"')[0]
        if order:
            self.shown[order] = now
            self._shown.set()
        elif b'"orderbell.hello"' in text:
            self._hellos.release()

    async def wait_hellos(self, count: int) -> None:
        for _ in range(count):
            await self._hellos.acquire()

    async def wait_shown(self) -> None:
        """Until all that were due are, or are too late."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LATE_SECONDS):
                while len(self.shown) < len(self.due):
                    self._shown.clear()
                    await self._shown.wait()


async def _open_browsers(stack: Stack, watch: Watch) -> list[Browser]:
    gateways = [server for server in stack.servers if server is not stack.sender]
    browsers = []
    for n in range(CUSTOMERS):
        port = gateways[n % len(gateways)].port
        browsers.append(await open_browser(port, stack.token(f"customer-{n}"), watch.show))
    await watch.wait_hellos(CUSTOMERS)
    return browsers


async def _complete(stack: Stack, order_ids: list[str], rate: int, watch: Watch) -> None:
    """Each when it is due; returns when all are shown, or are too late."""
    async with callers(stack.sender.port, _CALLERS) as all_callers:
        free: asyncio.LifoQueue[Caller] = asyncio.LifoQueue()
        for caller in all_callers:
            free.put_nowait(caller)
        started = time.monotonic() + 0.05
        async with asyncio.TaskGroup() as tasks:
            for n, order in enumerate(order_ids):
                due = started + n / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                watch.due[order.encode()] = due
                tasks.create_task(_complete_one(stack, order, free, watch))
        await watch.wait_shown()


async def _complete_one(stack: Stack, order: str, free: asyncio.Queue[Caller], watch: Watch) -> None:
    caller = await free.get()
    answer = await caller.call(orders.completion(stack, order))
    watch.answered[order.encode()] = time.monotonic()
    free.put_nowait(caller)
    if answer.status != 200:
        raise orders.OrderRefused(f"{answer.status} {answer.body.decode(errors='replace')}")


async def _measure(stack: Stack, order_ids: list[str], rate: int, watch: Watch) -> Round:
    sender = Usage([stack.sender.pid])
    gateways = Usage([server.pid for server in stack.servers if server is not stack.sender])
    client_cpu, started = time.process_time(), time.monotonic()
    await _complete(stack, order_ids, rate, watch)
    seconds = time.monotonic() - started
    answers = [1e3 * (watch.answered[order] - due) for order, due in watch.due.items()]
    frames = [1e3 * (watch.shown[order] - due) for order, due in watch.due.items() if order in watch.shown]
    return Round(
        rate,
        len(order_ids),
        len(order_ids) - len(frames),
        percentile(answers, 0.5),
        percentile(answers, 0.99),
        percentile(frames, 0.5),
        percentile(frames, 0.99),
        max(frames),
        100 * sender.cpu / seconds,
        100 * gateways.cpu / seconds,
        100 * (time.process_time() - client_cpu) / seconds,
    )
