"""`make bench-abuse`: what good clients notice while a gateway is attacked.

A thousand good clients, fifty events a second to one of them each, from the POST to the frame. First they
are measured in quiet, then under one of the attacks of bench/attackers.py; a ratio is of the two in one
round. An event's time counts from when it was due, so that a moment in which everything stands still is
counted for each event that waited in it.

Attackers run on the same cores, at a lower priority: good clients are to be held up by the gateway, not by
the attackers' own work. What the attack costs is best seen in the gateway's processor time, and in the same
attack on a peer that is not prepared for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from uvicorn.loops.auto import auto_loop_factory

from bench import machine, orders
from bench.attackers import Done, Orders
from bench.attacks import ATTACKS, GOOD, RESUMING, Attack, Target
from bench.caller import callers
from bench.contenders import Event
from bench.load import compile_native, running_load
from bench.peers.gateways import Starlette, Ws
from bench.peers.gateways import found as found_peers
from bench.run import Run
from bench.stack import REPOSITORY
from bench.table import Table, median
from bench.usage import Usage, resident_bytes
from shared.commands.embedded import path_server, wheel_server
from shared.process.guard import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.contenders import Contender
    from bench.load import Load
    from bench.stack import Server

RATE = 50  # events a second
PAGE = REPOSITORY / "docs" / "security.md"
BEGIN, END = "<!-- abuse: begin -->\n", "<!-- abuse: end -->\n"

_ADDRESSES = 40  # from which they come
_HISTORY = 500  # events that each of some of them has
_NOISE_BYTES = 16_000  # of each event to those that never read
_LATE_SECONDS = 10.0  # after the last event was due, what has not come is lost
_SETTLE_SECONDS = 7.0  # after an attack, before memory is measured
_END_SECONDS = 20.0
_LIVEZ_SECONDS = 5.0
_NICE = "10"


@dataclass
class Round:
    contender: str
    attack: str
    quiet_p99_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    lost: int
    closed: int
    gateway_cpu: float  # percent of a core
    memory_before: float  # MiB
    memory_most: float
    memory_after: float
    livez_ms: float  # the slowest answer
    end_seconds: float | None  # from SIGTERM, under attack; None if it was not asked to end
    done: Done = field(default_factory=Done)

    @property
    def ratio(self) -> float:
        return self.p99_ms / self.quiet_p99_ms


class Attacking:
    """One attack on one gateway, newly started."""

    apart = False  # attackers and gateway on processors of their own

    def __init__(self, run: Run, contender: Any, attack: Attack) -> None:
        self._run = run
        self._contender = contender
        self._attack = attack
        self._load: Load
        self._counts: Counter[int] = Counter()
        self._customer = 0
        self._livez_ms = 0.0
        self._memory_most = 0.0

    async def measure(self) -> Round:
        contender, run = self._contender, self._run
        async with contextlib.AsyncExitStack() as stack:
            await contender.start(run, 1, stack)
            self._load = stack.enter_context(running_load(run.binaries, run.new_directory("load"), run.group))
            await self._load.connect([contender.connection(n, 0) for n in range(GOOD)], at_once=64)
            if self._attack.prepare:
                await getattr(self, self._attack.prepare)()
            await self._serve(1.0)
            before = self._memory()
            quiet, _ = await self._serve(run.seconds)
            cpu = Usage(contender.gateway_pids)
            async with self._under_attack() as done, self._meanwhile():
                counted, lost = await self._serve(run.seconds)
                share = 100 * cpu.cpu / cpu.seconds
            await asyncio.sleep(_SETTLE_SECONDS)
            after = self._memory()
            ended = await self._end() if isinstance(contender, Target) else None
        return Round(
            contender.name,
            self._attack.name,
            quiet.p99_ms,
            counted.p50_ms,
            counted.p99_ms,
            counted.max_ms,
            lost,
            counted.closed,
            share,
            before,
            self._memory_most,
            after,
            self._livez_ms,
            ended,
            done[0],
        )

    async def _serve(self, seconds: float) -> tuple[Any, int]:
        """Send events to good clients for so long; returns what was counted, and how many were lost."""
        await self._load.reset()
        started, count = time.monotonic(), int(seconds * RATE)
        async with asyncio.TaskGroup() as posts:
            for n in range(count):
                due = started + n / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                customer = self._customer = (self._customer + 1) % GOOD
                self._counts[customer] += 1
                if isinstance(self._contender, Target):
                    # An event is sent when it is due, whether or not those before it are answered.
                    posts.create_task(self._contender.publish_due(customer, self._counts[customer], due))
                else:
                    await self._contender.publish([Event(customer, self._counts[customer])])
        counted = await self._load.wait(count, seconds=_LATE_SECONDS)
        return counted, count - counted.delivered

    def _memory(self) -> float:
        return resident_bytes(self._contender.gateway_pids) / 2**20

    @property
    def _server(self) -> Server:
        gateway: Server = self._contender.gateways[0]
        return self._contender.stack.sender if self._attack.on_sender else gateway

    @contextlib.asynccontextmanager
    async def _under_attack(self) -> AsyncIterator[list[Done]]:
        """Attacks while this is entered; the attackers' report is there afterwards."""
        process, done = self._start_attackers(), list[Done]()
        try:
            yield done
        finally:
            output, _ = await asyncio.to_thread(process.communicate)
            done.append(msgspec.json.decode(output.splitlines()[-1], type=Done))

    def _start_attackers(self) -> subprocess.Popen[bytes]:
        attack = self._attack
        requests, messages = attack.requests(self._contender), attack.messages(self._contender)
        given = Orders(attack.kind, self._server.port, attack.sockets, _ADDRESSES, requests, messages)
        process = subprocess.Popen(
            ["nice", "-n", _NICE, sys.executable, "-m", "bench.attackers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            process_group=self._run.group,
        )
        if self.apart:
            *others, last = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(process.pid, {last})
            for pid in self._contender.gateway_pids:
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), others or {last})
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(given) + b"\n")
        process.stdin.flush()
        return process

    @contextlib.asynccontextmanager
    async def _meanwhile(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._watch())]
        if self._attack.beside and isinstance(self._contender, Target):
            tasks.append(asyncio.create_task(getattr(self, self._attack.beside)()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            if task.done():
                task.result()  # a fault of ours

    async def _watch(self) -> None:
        """Whether /livez answers, and how much memory the gateway has."""
        while True:
            started = time.monotonic()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LIVEZ_SECONDS):
                    await _ask_livez(self._server.port)
            self._livez_ms = max(self._livez_ms, 1e3 * (time.monotonic() - started))
            self._memory_most = max(self._memory_most, self._memory())
            await asyncio.sleep(0.25)

    async def _end(self) -> float:
        """SIGTERM, under attack."""
        gateway: Server = self._contender.gateways[0]
        async with self._under_attack():
            await asyncio.sleep(1.5)
            started = time.monotonic()
            gateway.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(gateway.process.wait, _END_SECONDS)
            return time.monotonic() - started

    # What goes with an attack.

    async def _history(self) -> None:
        for n in range(RESUMING):
            await self._contender.publish_many(f"customer:mallory-{n}", _HISTORY, note="x" * 200)

    async def _noise(self) -> None:
        """Large events on the topic that the attackers hear."""
        async with callers(self._contender.stack.sender.port, 1) as (caller,):
            while True:
                one = orders.event("topic:noise", pad="x" * _NOISE_BYTES)
                await caller.call(orders.single(self._contender.stack, one))
                await asyncio.sleep(0.5)


async def _ask_livez(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await reader.read(64)
    finally:
        writer.close()


COLUMNS = [
    "attack",
    "p99 ms quiet",
    "p99 ms",
    "p99 ÷ quiet",
    "worst ÷ quiet",
    "max ms",
    "lost",
    "closed",
    "gateway CPU %",
    "attackers CPU %",
    "MiB before",
    "most",
    "after",
    "/livez max ms",
    "SIGTERM s",
]
NOTES = [
    f"{GOOD:,} good clients, {RATE} events a second to one of them each, from the POST to the frame (peers:"
    f" from publishing into Redis). Attackers come from {_ADDRESSES} addresses and run on the same cores.",
    "Medians of the rounds and of their ratios; max, lost, closed, most and the last two are the worst of all"
    f" rounds. After: {_SETTLE_SECONDS:.0f} s after the attack. SIGTERM comes under attack; two seconds of"
    " its time are for goodbyes.",
]


def _row(rounds: Sequence[Round]) -> list[str | float | int | None]:
    ends = [one.end_seconds for one in rounds if one.end_seconds is not None]
    return [
        median([one.quiet_p99_ms for one in rounds]),
        median([one.p99_ms for one in rounds]),
        median([one.ratio for one in rounds]),
        max(one.ratio for one in rounds),
        max(one.max_ms for one in rounds),
        sum(one.lost for one in rounds),
        sum(one.closed for one in rounds),
        median([one.gateway_cpu for one in rounds]),
        median([one.done.cpu for one in rounds]),
        median([one.memory_before for one in rounds]),
        max(one.memory_most for one in rounds),
        median([one.memory_after for one in rounds]),
        max(one.livez_ms for one in rounds),
        max(ends) if ends else None,
    ]


async def measure(run: Run, make: type[Contender], attacks: Sequence[Attack]) -> Table:
    title = f"Under attack: {make.name}"
    name = "abuse" if issubclass(make, Target) else f"abuse-{make.__name__.lower()}"
    table = Table(name, title, COLUMNS, NOTES)
    for attack in attacks:
        rounds = []
        for number in range(run.rounds):
            run.progress(f"{make.name}: {attack.name}, round {number + 1} of {run.rounds}")
            rounds.append(await Attacking(run, make(), attack).measure())
            run.progress(f"    {rounds[-1]}")
        table.rounds += [asdict(one) for one in rounds]
        table.add(attack.name, *_row(rounds))
    return table


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Of each attack; medians are shown.")
@click.option("--seconds", default=10.0, show_default=True, help="Of quiet, and of each attack.")
@click.option("--only", multiple=True, help="Attacks whose name has this text; may be repeated.")
@click.option(
    "--apart",
    is_flag=True,
    help="Attackers have the last processor, the gateway the others: neither waits for the other's work.",
)
@click.option("--peers/--no-peers", default=True, show_default=True, help="Attack those installed, too.")
@click.option(
    "--source",
    default=REPOSITORY,
    show_default="this one",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of another version of Orderbell, to compare.",
)
@click.option("--page", is_flag=True, help="Write the table into docs/security.md.")
@click.option("--results", default=Path(__file__).parent / "results", type=click.Path(path_type=Path))
def main(
    rounds: int,
    seconds: float,
    only: tuple[str, ...],
    apart: bool,
    peers: bool,
    source: Path,
    page: bool,
    results: Path,
) -> None:
    """Attack a gateway and a sender on this machine, and measure what good clients notice."""
    redis_binary = wheel_server() or path_server()
    if redis_binary is None:
        raise click.ClickException("no Redis: install the extra `embedded`, valkey-server or redis-server")
    attacks = [one for one in ATTACKS if not only or any(text.lower() in one.name.lower() for text in only)]
    if not attacks:
        raise click.ClickException(f"no attack has {' or '.join(map(repr, only))} in its name")
    Target.source = source.resolve()
    Attacking.apart = apart
    compared = [one for one in found_peers() if peers and one.name in (Starlette.name, Ws.name)]
    contenders: list[type[Contender]] = [Target, *compared]
    with Guard() as guard, tempfile.TemporaryDirectory(prefix="orderbell-bench-") as directory:
        path = Path(directory)
        run = Run(redis_binary, compile_native(path), path, guard.group, rounds, seconds, contenders)
        described = machine.describe(redis_binary, peers=len(contenders) > 1)
        texts = []
        for make in contenders:
            some = [one for one in attacks if make is Target or not one.of_ours]
            with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
                table = runner.run(measure(run, make, some))
            texts.append(table.write(results, described))
            click.echo(f"\n{texts[-1]}")
    if page:
        write_page(texts)


def write_page(texts: Sequence[str]) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{''.join(texts)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(prog_name="python -m bench.abuse")
