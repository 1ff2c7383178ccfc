"""The nemesis: what goes wrong, when, and for how long, as a seed says.

A fault is a context manager: it happens on entry and is mended on exit. What a system recovers from is
either its end (a Redis that is back) or its beginning (a gateway that is dead: its clients go elsewhere at
once, whether or not it is ever started again).
"""

from __future__ import annotations

import contextlib
import enum
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.chaos.proxy import How, Toxics
from tests.chaos.system import BLACK_HOLE
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tests.chaos.system import System
    from tests.processes import ReceiverProcess, ServiceProcess

LOST_TAIL = 50  # writes that the replica lacks, at least
START_SECONDS = 90.0  # for a process, whatever else goes wrong meanwhile

_CALM_SECONDS = 2.0, 6.0  # between two faults
_EDGE_TURNS = 18  # beside some 26 of the others, so that ten minutes have each kind of those
_BOTH = 0.25  # how often a second fault comes while the first is on


class Mended(enum.Enum):
    """From when on recovering is timed."""

    AT_ITS_BEGINNING = enum.auto()
    AT_ITS_END = enum.auto()


@dataclass(frozen=True)
class Kind:
    name: str
    run: Callable[..., AbstractContextManager[str]]  # of the system, and of what it shall choose with
    seconds: tuple[float, float]  # from, to
    recovers: Mended = Mended.AT_ITS_END
    touches: str = "redis"  # two that touch the same don't come together
    database: str = ""  # needs this one
    weight: int = 2


class Planned(NamedTuple):
    at: float  # seconds from the start
    seconds: float
    kind: str
    seed: int  # for what it chooses by itself


def plan(seed: int, seconds: float, *, database: str = "sqlite") -> list[Planned]:
    """All that will happen, by time. The same seed gives the same plan."""
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS.values() if kind.database in ("", database)]
    waiting: list[Kind] = []
    planned: list[Planned] = []
    edges = _edge_kinds(chance, kinds)
    at = chance.uniform(*_CALM_SECONDS)
    while at < seconds:
        if not waiting:  # each kind comes before any comes again; for all those of edges there are some turns
            waiting = [kind for kind in kinds for _ in range(kind.weight)]
            waiting += [next(edges) for _ in range(_EDGE_TURNS)]
            chance.shuffle(waiting)
        kind = waiting.pop()
        lasts = chance.uniform(*kind.seconds)
        planned.append(Planned(at, lasts, kind.name, chance.getrandbits(32)))
        others = [other for other in kinds if other.touches != kind.touches]
        if chance.random() < _BOTH:
            other = chance.choice(others)
            begin = at + chance.uniform(0, lasts)
            planned.append(Planned(begin, chance.uniform(*other.seconds), other.name, chance.getrandbits(32)))
        at = max(p.at + p.seconds for p in planned) + chance.uniform(*_CALM_SECONDS)
    return sorted(planned)


def _edge_kinds(chance: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Each toxic on each edge, without end; a few have all the toxics, and all the edges."""
    possible = {kind.name for kind in kinds}
    edges = [edge for edge in EDGES if f"{edge} cut" in possible]
    toxics = list(TOXICS)
    while True:
        chance.shuffle(edges)
        chance.shuffle(toxics)
        for turn in range(len(toxics)):
            for number, toxic in enumerate(toxics):
                # Diagonally, so that six in a row have all toxics and all edges.
                yield KINDS[f"{edges[(number + turn) % len(edges)]} {toxic}"]


def start(process: ServiceProcess) -> None:
    """As a supervisor would: again, where it ends because it lacks something. Returns when it lives."""
    process.start(wait_ready=False)
    deadline = time.monotonic() + START_SECONDS
    while not process.answers("/livez"):
        assert time.monotonic() < deadline, process.text()[-2_000:]
        if process.process.poll() is not None:
            time.sleep(0.2)  # what it lacked may be there then
            process.start(wait_ready=False)
        time.sleep(0.05)


def _one_with_clients(system: System, chance: random.Random) -> ReceiverProcess:
    """Clients that were cut off are all at the other gateways: a fault of theirs would hit no client."""
    counts = {g.port: system.proxy.connections(system.clients_edge(g)) for g in system.gateways}
    return chance.choice([g for g in system.gateways if counts[g.port]] or system.gateways)


# The faults.


@contextlib.contextmanager
def gateway_killed(
    system: System, chance: random.Random, gateway: ReceiverProcess | None = None
) -> Iterator[str]:
    gateway = gateway or _one_with_clients(system, chance)
    gateway.kill()
    yield system.name(gateway)
    start(gateway)


@contextlib.contextmanager
def gateway_drained(
    system: System, chance: random.Random, gateway: ReceiverProcess | None = None
) -> Iterator[str]:
    gateway = gateway or _one_with_clients(system, chance)
    gateway.process.terminate()
    yield system.name(gateway)
    assert gateway.process.wait(20) == 0, gateway.text()[-2_000:]
    start(gateway)


@contextlib.contextmanager
def gateway_frozen(
    system: System, chance: random.Random, gateway: ReceiverProcess | None = None
) -> Iterator[str]:
    gateway = gateway or _one_with_clients(system, chance)
    gateway.stop()
    yield system.name(gateway)
    gateway.resume()


@contextlib.contextmanager
def sender_killed(system: System, chance: random.Random) -> Iterator[str]:
    sender = chance.choice(system.senders)
    sender.kill()
    yield system.name(sender)
    start(sender)


@contextlib.contextmanager
def sender_ended(system: System, chance: random.Random) -> Iterator[str]:
    sender = chance.choice(system.senders)
    sender.process.terminate()
    yield system.name(sender)
    assert sender.process.wait(20) == 0, sender.text()[-2_000:]
    start(sender)


@contextlib.contextmanager
def sender_frozen(system: System, chance: random.Random) -> Iterator[str]:
    sender = chance.choice(system.senders)
    sender.stop()
    yield system.name(sender)
    sender.resume()


@contextlib.contextmanager
def redis_killed(system: System, chance: random.Random) -> Iterator[str]:
    """It comes back empty."""
    system.redis.kill()
    yield "back empty"
    system.redis.start()
    system.attach_replica()


@contextlib.contextmanager
def redis_emptied(system: System, chance: random.Random) -> Iterator[str]:
    system.command("FLUSHALL")
    yield "FLUSHALL"


@contextlib.contextmanager
def redis_frozen(system: System, chance: random.Random) -> Iterator[str]:
    system.redis.stop()
    yield ""
    system.redis.resume()


@contextlib.contextmanager
def redis_scripts_forgotten(system: System, chance: random.Random) -> Iterator[str]:
    system.command("SCRIPT", "FLUSH")
    yield "SCRIPT FLUSH"


@contextlib.contextmanager
def redis_failed_over(system: System, chance: random.Random) -> Iterator[str]:
    """To a replica that lacks the last writes; the old primary is gone for good."""
    lacking = lose_tail(system)
    system.fail_over()
    yield f"{lacking} writes lost"
    system.attach_replica()


def lose_tail(system: System) -> int:
    """Wait until the replica lacks enough; how many writes those are."""
    system.detach_replica()
    before = _writes(system)
    # A calm system writes little; then it lacks less.
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: _writes(system) - before >= LOST_TAIL, timeout=10)
    return _writes(system) - before


def _writes(system: System) -> int:
    """Scripts that were run; each publishes a channel's events, or moves its seen place."""
    calls = system.command("INFO", "commandstats").get("cmdstat_evalsha", {})
    return int(calls.get("calls", 0))


@contextlib.contextmanager
def redis_replies_lost(system: System, chance: random.Random) -> Iterator[str]:
    """Scripts run, but their replies are lost: connections are reset in the middle of them."""
    edges = list(map(system.redis_edge, system.senders))
    for edge in edges:
        system.proxy.change(edge, down=Toxics(reset_after_bytes=chance.randrange(40, 2_000)))
    yield "the senders'"
    for edge in edges:
        system.proxy.heal(edge)


@contextlib.contextmanager
def history_away(system: System, chance: random.Random) -> Iterator[str]:
    """A gateway can't reach the sender."""
    edge = system.sender_edge(chance.choice(system.gateways))
    system.proxy.change(edge, up=BLACK_HOLE, refuse=True)
    yield edge
    system.proxy.heal(edge)
    system.proxy.cut(edge)


@contextlib.contextmanager
def callers_cut(system: System, chance: random.Random) -> Iterator[str]:
    """Answers are lost after the commit; callers ask again with the same keys."""
    edge = system.callers_edge(chance.choice(system.senders))
    system.proxy.change(edge, down=Toxics(reset_after_bytes=chance.randrange(200, 5_000)))
    yield edge
    system.proxy.heal(edge)


@contextlib.contextmanager
def postgres_restarted(system: System, chance: random.Random) -> Iterator[str]:
    assert system.postgres is not None
    crash = chance.random() < 0.5
    if crash:
        system.postgres.crash()
    else:
        system.postgres.stop()
    yield "crashed" if crash else "stopped"
    system.postgres.start()


@contextlib.contextmanager
def postgres_frozen(system: System, chance: random.Random) -> Iterator[str]:
    assert system.postgres is not None
    system.postgres.freeze()
    try:
        yield ""
    finally:  # frozen it would not even end
        system.postgres.resume()


# What can happen to any edge.


class Edge(NamedTuple):
    of: Callable[[System], list[str]]
    touches: str
    database: str = ""  # needs this one


EDGES = {
    "sender-redis": Edge(lambda system: list(map(system.redis_edge, system.senders)), "redis"),
    "gateway-redis": Edge(lambda system: list(map(system.redis_edge, system.gateways)), "redis"),
    "gateway-sender": Edge(lambda system: list(map(system.sender_edge, system.gateways)), "history"),
    "sender-database": Edge(
        lambda system: list(map(system.database_edge, system.senders)), "database", "postgres"
    ),
    "callers-sender": Edge(lambda system: list(map(system.callers_edge, system.senders)), "callers"),
    "clients-gateway": Edge(lambda system: list(map(system.clients_edge, system.gateways)), "clients"),
}


def _latency(chance: random.Random) -> tuple[Toxics, Toxics]:
    toxics = Toxics(latency_seconds=chance.uniform(0.02, 0.2), jitter_seconds=0.2)
    return toxics, toxics


def _slicing(chance: random.Random) -> tuple[Toxics, Toxics]:
    toxics = Toxics(slice_bytes=chance.choice([1, 7, 100, 1_000]), jitter_seconds=0.1)
    return toxics, toxics


def _black_hole(chance: random.Random) -> tuple[Toxics, Toxics]:
    up, down = chance.choice([(True, True), (True, False), (False, True)])
    return Toxics(black_hole=up), Toxics(black_hole=down)


TOXICS: dict[str, tuple[float, float] | None] = {  # seconds from, to; None where it is over at once
    "latency": (3, 8),
    "slicing": (2, 6),
    "black hole": (2, 15),
    "cut": None,
    "reset": None,
    "half-close": None,
}
_CHANGES = {"latency": _latency, "slicing": _slicing, "black hole": _black_hole}
_CUTS = {"cut": [How.FIN], "reset": [How.RESET], "half-close": [How.HALF_UP, How.HALF_DOWN]}


def _on_edge(edges: Edge, toxic: str) -> Callable[..., AbstractContextManager[str]]:
    """One of these edges, with that toxic."""

    @contextlib.contextmanager
    def changed(system: System, chance: random.Random) -> Iterator[str]:
        edge = chance.choice(edges.of(system))
        up, down = _CHANGES[toxic](chance)
        system.proxy.change(edge, up=up, down=down)
        yield f"{edge} up {_words(up)}, down {_words(down)}"
        system.proxy.heal(edge)

    @contextlib.contextmanager
    def cut(system: System, chance: random.Random) -> Iterator[str]:
        edge, how = chance.choice(edges.of(system)), chance.choice(_CUTS[toxic])
        count = system.proxy.cut(edge, how)
        yield f"{edge} {how.value}, {count} connections"

    return cut if toxic in _CUTS else changed


def _words(toxics: Toxics) -> str:
    if toxics.black_hole:
        return "black hole"
    if toxics.slice_bytes:
        return f"slices of {toxics.slice_bytes}"
    return f"{toxics.latency_seconds:.2f} s" if toxics.latency_seconds else "healthy"


_BEGINNING = Mended.AT_ITS_BEGINNING
KINDS = {
    kind.name: kind
    for kind in (
        Kind("gateway killed", gateway_killed, (1, 6), _BEGINNING, touches="gateway"),
        Kind("gateway drained", gateway_drained, (4, 8), _BEGINNING, touches="gateway"),
        Kind("gateway frozen", gateway_frozen, (2, 12), touches="gateway"),
        Kind("sender killed", sender_killed, (0.1, 4), touches="sender"),
        Kind("sender ended", sender_ended, (1, 4), touches="sender", weight=1),
        Kind("sender frozen", sender_frozen, (2, 8), touches="sender"),
        Kind("redis killed", redis_killed, (0.5, 12), weight=3),
        Kind("redis emptied", redis_emptied, (0.1, 0.5)),
        Kind("redis frozen", redis_frozen, (2, 15)),
        Kind("redis scripts forgotten", redis_scripts_forgotten, (0.1, 0.5), weight=1),
        Kind("redis failed over", redis_failed_over, (0.5, 2), _BEGINNING, weight=3),
        Kind("redis replies lost", redis_replies_lost, (2, 6)),
        Kind("history away", history_away, (2, 10), touches="history"),
        Kind("callers cut", callers_cut, (2, 6), touches="callers"),
        Kind("postgres restarted", postgres_restarted, (0.1, 3), touches="database", database="postgres"),
        Kind("postgres frozen", postgres_frozen, (2, 8), touches="database", database="postgres"),
    )
} | {
    f"{edge} {toxic}": Kind(
        f"{edge} {toxic}",
        _on_edge(of, toxic),
        seconds or (0.1, 0.5),
        touches=of.touches,
        database=of.database,
        weight=0,  # `_edge_kinds` has their turns
    )
    for edge, of in EDGES.items()
    for toxic, seconds in TOXICS.items()
}
