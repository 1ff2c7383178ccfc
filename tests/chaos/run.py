"""One run: load, faults, calm, and the checker's verdict."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.chaos import checker, ledger
from tests.chaos.callers import NONE, Callers, Life
from tests.chaos.clients import Swarm, Who
from tests.chaos.ledger import Fault, LedgerWriter, now
from tests.chaos.nemesis import KINDS, Mended
from tests.chaos.system import running_system
from tests.processes import REPOSITORY
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.chaos.checker import Verdict
    from tests.chaos.ledger import Listed, Stored, StoredChange
    from tests.chaos.nemesis import Planned
    from tests.chaos.system import OpenFront, System

CONNECT_SECONDS = 60.0  # for the whole swarm, at first
SETTLE_SECONDS = 60.0  # for everything to be shown: a device that found no gateway tries again within 30 s
PROGRESS_SECONDS = 5.0
TOKEN_SECONDS = 6 * 3600.0
DEVICE_READS = 0.05  # of the alerts that pop up, where alerts are read


@dataclass(frozen=True)
class Load:
    customers: int = 500
    rate: float = 200.0  # orders a second
    second_devices: int = 50  # customers with two devices
    transports: tuple[str, ...] = ("websocket",)  # of the devices, in turn
    life: Life = NONE  # what becomes of alerts later
    come_seconds: float = 0.0  # within which the devices connect at first, one after the other


@dataclass
class Run:
    """A system under load, and its ledger. The caller decides what goes wrong."""

    system: System
    swarm: Swarm
    callers: Callers
    directory: Path
    customers: list[str]
    devices: dict[str, str]  # customers by the names of their devices
    say: Callable[[str], None]
    lively: bool = False  # alerts have a life, and lists of them are judged
    faults: list[Fault] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)  # that made callers ask again, when it is over
    began: float = field(default_factory=now)
    _said: float = 0.0

    @property
    def elapsed(self) -> float:
        return now() - self.began

    def sleep(self, seconds: float) -> None:
        """Sleep, and print how the run is going."""
        until = now() + seconds
        while (left := until - now()) > 0:
            time.sleep(min(left, 0.25))
            if now() - self._said > PROGRESS_SECONDS:
                self.progress("")

    def progress(self, event: str) -> None:
        self._said = now()
        clients, callers = self.swarm.status(), self.callers.status()
        at = " + ".join(map(str, clients.at_gateways))
        self.say(
            f"[{self.elapsed:5.0f} s] {callers.answered:7,} answered  {clients.shown:7,} shown  "
            f"{at} connected  {event}"
        )

    @contextlib.contextmanager
    def fault(self, kind: str, seed: int = 0, **target: object) -> Iterator[str]:
        """The fault happens now and is mended at the end; the ledger gets both."""
        began = now()
        with KINDS[kind].run(self.system, random.Random(seed), **target) as what:
            happened = now()
            self.progress(f"{kind} ({what})" if what else kind)
            yield what
        ended = happened if KINDS[kind].recovers is Mended.AT_ITS_BEGINNING else now()
        self.faults.append(Fault(kind, began, ended, what))
        self.progress(f"mended: {kind}")

    def spread(self) -> None:
        """As many devices at each gateway, as a balancer would have it after a while."""
        gateways = len(self.system.gateways)
        for number in range(gateways):
            some = list(self.devices)[number::gateways]
            self.swarm.leave(some)
            self.swarm.come(some, number)
        self.wait_connected()

    def wait_connected(self) -> None:
        wait_until(lambda: self.swarm.status().connected >= len(self.devices), CONNECT_SECONDS)

    def finish(
        self, *, allowed: frozenset[str] = frozenset(), settle_seconds: float = SETTLE_SECONDS
    ) -> Verdict:
        """No more orders; wait until all is shown, and judge. Resets for these reasons are allowed.

        Senders continue requests whose callers have given up. What such a request records after the heads
        were read is not judged, because no device waited for it. Everything that was answered was recorded
        before.
        """
        status = self.callers.stop(seconds=SETTLE_SECONDS)
        self.answers = Counter(status.asked_again)
        self.sleep(status.expires - now())
        heads = self.system.heads(self.customers)
        self.settle(settle_seconds, heads=heads)
        lists = self._lists(settle_seconds) if self.lively else []
        self.swarm.stop()
        with LedgerWriter(self.directory / "faults.jsonl") as writer:
            for fault in self.faults:
                writer.write(fault)
            for event in recorded_by(heads, self.system.stored(self.customers)):
                writer.write(event)
            for one in lists:
                writer.write(one)
        entries = ledger.read(sorted(self.directory.glob("*.jsonl")))
        return checker.check(entries, self.devices, allowed=allowed)

    def _lists(self, seconds: float) -> list[Listed]:
        """The customers' lists, once every device knows how many alerts are unread, or after that time."""
        began = now()
        while now() - began < seconds and self._counts_differ():
            self.sleep(0.2)
        return self.system.lists(self.customers)

    def _counts_differ(self) -> bool:
        right, known = self.system.unread(self.customers), self.swarm.unread()
        return any(known[device] != right[customer] for device, customer in self.devices.items())

    def settle(self, seconds: float = SETTLE_SECONDS, *, heads: dict[str, str] | None = None) -> float:
        """Wait until every device is at its channel's head, as it is now or was; how long that took."""
        began = now()
        heads = heads or self.system.heads(self.customers)
        while now() - began < seconds and self.behind(heads):
            self.sleep(0.1)
        return now() - began

    def behind(self, heads: dict[str, str]) -> list[str]:
        """The devices that have not got so far."""
        places = self.swarm.places()
        return [
            device
            for device, customer in self.devices.items()
            if _numbers(places[device].get(f"customer:{customer}", "0.0"))
            < _numbers(heads[f"customer:{customer}"])
        ]


def recorded_by(
    heads: dict[str, str], stored: Iterable[Stored | StoredChange]
) -> Iterator[Stored | StoredChange]:
    """The events up to these heads."""
    for event in stored:
        if (event.epoch, event.seq) <= _numbers(heads[event.channel]):
            yield event


def _numbers(place: str) -> tuple[int, int]:
    epoch, _, seq = place.partition(".")
    return int(epoch), int(seq)


@contextlib.contextmanager
def running(
    directory: Path,
    process_group: int,
    *,
    load: Load,
    say: Callable[[str], None],
    seed: int = 0,
    database: str = "sqlite",
    gateways: int = 2,
    senders: int = 1,
    without: dict[str, str] | None = None,
    dedupe: bool = True,
    heed: bool = True,
    drain_seconds: float = 3.0,
    front: OpenFront | None = None,
    source: Path = REPOSITORY,
    **settings: str,
) -> Iterator[Run]:
    """The system is up, all devices are connected, orders come."""
    customers = [f"c{n}" for n in range(load.customers)]
    with (
        running_system(
            directory,
            process_group,
            gateways=gateways,
            senders=senders,
            database=database,
            without=without,
            drain_seconds=drain_seconds,
            seed=seed,
            front=front,
            source=source,
            log_level="INFO",
            **settings,
        ) as system,
        Swarm(process_group) as swarm,
        Callers(process_group) as callers,
    ):
        people = _people(system, customers, load)
        devices = {who.device: who.customer for who in people}
        ports, clients = system.client_ports, directory / "clients.jsonl"
        reads = DEVICE_READS if load.life.read else 0.0
        swarm.start(
            people,
            ports,
            clients,
            seed=seed,
            dedupe=dedupe,
            heed=heed,
            reads=reads,
            come_seconds=load.come_seconds,
        )
        callers.start(
            customers,
            system.caller_ports,
            system.processes.api_key,
            directory / "callers.jsonl",
            rate=0,
            seed=seed,
            life=load.life,
        )
        run = Run(system, swarm, callers, directory, customers, devices, say, lively=load.life != NONE)
        run.wait_connected()
        run.progress("everybody is there")
        callers.set_rate(load.rate)
        yield run


def _people(system: System, customers: list[str], load: Load) -> list[Who]:
    transports = itertools.cycle(load.transports)
    second_devices = load.second_devices

    def who(device: str, customer: str, gateway: int) -> Who:
        token = system.processes.token(customer, lifetime_seconds=TOKEN_SECONDS)
        return Who(device, customer, token, gateway, next(transports))

    first = [who(f"{customer}/1", customer, n) for n, customer in enumerate(customers)]
    step = max(1, len(customers) // second_devices) if second_devices else len(customers) + 1
    second = [who(f"{customer}/2", customer, n + 1) for n, customer in enumerate(customers) if n % step == 0]
    return first + second


class _On(NamedTuple):
    """A fault that is on."""

    until: float  # seconds from the start
    touches: str
    stack: contextlib.ExitStack


def mixed(run: Run, plan: Sequence[Planned], seconds: float) -> Verdict:
    """All kinds of faults, as planned. The last is still on when the last order is placed."""
    on: list[_On] = []
    run.began = now()
    for planned in plan:
        kind = KINDS[planned.kind]
        _mend(run, on, lambda fault, p=planned: fault.until <= p.at)  # type: ignore[misc] # p is Planned
        run.sleep(planned.at - run.elapsed)
        # Some take longer to happen than was planned; two that touch the same don't come together.
        _mend(run, on, lambda fault, k=kind: fault.touches == k.touches)  # type: ignore[misc] # k is Kind
        stack = contextlib.ExitStack()
        stack.enter_context(run.fault(planned.kind, planned.seed))
        on.append(_On(run.elapsed + planned.seconds, kind.touches, stack))
    run.sleep(seconds - run.elapsed)
    run.callers.set_rate(0)
    _mend(run, on, lambda fault: True)
    return run.finish()


def _mend(run: Run, on: list[_On], which: Callable[[_On], bool]) -> None:
    for fault in sorted(filter(which, on), key=lambda fault: fault.until):
        run.sleep(fault.until - run.elapsed)
        fault.stack.close()
        on.remove(fault)
