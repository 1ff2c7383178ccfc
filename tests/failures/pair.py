"""Two Redis servers, one a replica of the other, and a fail-over between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from shared.channels import customer_channel
from shared.cursors import Place
from tests.chaos.system import BLACK_HOLE
from tests.waiting import await_until, wait_until

if TYPE_CHECKING:
    from shared.commands.embedded import EmbeddedServer
    from tests.failures.conftest import World

ALICE = customer_channel("alice")


def command(server: EmbeddedServer, *words: str | int | bytes, password: str | None = None) -> Any:
    with redis.Redis(port=server.port, password=password, socket_timeout=5) as client:
        return client.execute_command(*words)


async def head(world: World, server: EmbeddedServer | None = None) -> Place | None:
    """The head of Alice's channel at that server, wherever the edges lead."""
    reply = command(server or world.redis_server, "HMGET", world.sender.names.head(ALICE), "epoch", "seq")
    return Place(int(reply[0]), int(reply[1])) if reply[0] else None


class Pair:
    """A primary and its replica, and a fail-over between them that loses the tail."""

    def __init__(self, world: World, replica: EmbeddedServer) -> None:
        self.world = world
        self.primary = world.redis_server
        self.replica = replica
        self._edge = world.edge("replica")
        command(self.primary, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
        command(replica, "REPLICAOF", "127.0.0.1", world.proxy.open(self._edge, self.primary.port))
        wait_until(lambda: command(replica, "INFO", "replication")["master_link_status"] == "up")

    async def wait_follows(self, place: Place) -> None:
        async def follows() -> bool:
            return await head(self.world, self.replica) == place

        await await_until(follows)

    def detach(self) -> None:
        """From now on the replica gets nothing."""
        self.world.proxy.change(self._edge, up=BLACK_HOLE, down=BLACK_HOLE)

    def promote(self, *edges: str) -> None:
        """The replica becomes the primary. New connections through these edges lead there; old ones stay."""
        command(self.replica, "REPLICAOF", "NO", "ONE")
        for edge in edges:
            self.world.proxy.retarget(edge, self.replica.port)

    def fail_over(self) -> None:
        """Fail over, for all edges."""
        self.promote(*self.world.edges)
        self.world.redis_server = self.replica
