"""The names of one installation in Redis: its keys and its Pub/Sub channels.

Two installations on one server differ by the prefix and the database number. Keys of
different database numbers never meet, but Pub/Sub ignores the number, so Pub/Sub names carry it. Number 0 is
not written: names there stay as they always were, and old and new versions hear each other.

    key                      `ob:<kind>:…`, in the database that was selected
    Pub/Sub, database 0      `ob:<kind>:…`
    Pub/Sub, database 3      `ob:db3:<kind>:…`

The braces around a channel keep its names in one slot of a cluster. deploy/users.acl grants exactly these
names, and docs/redis.md lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.redis.url import parse_redis_url

if TYPE_CHECKING:
    from shared.channels import Channel


class Names:
    """`database` is the number of the Redis database."""

    def __init__(self, prefix: str = "ob", database: int = 0) -> None:
        self.prefix = prefix
        self._heard = f"{prefix}:db{database}" if database else prefix

    @classmethod
    def of(cls, redis_url: str, prefix: str) -> Names:
        """Raises `InvalidRedisUrl`."""
        return cls(prefix, parse_redis_url(redis_url).db)

    # Keys.

    def log(self, channel: Channel) -> str:
        return f"{self.prefix}:log:{{{channel}}}"

    def head(self, channel: Channel) -> str:
        return f"{self.prefix}:head:{{{channel}}}"

    def seen(self, channel: Channel) -> str:
        return f"{self.prefix}:seen:{{{channel}}}"

    def newest(self) -> str:
        return f"{self.prefix}:generation"

    def owner(self) -> str:
        """In the slot of `newest`."""
        return f"{self.prefix}:owner:{{{self.newest()}}}"

    def ticket(self, digest: str) -> str:
        return f"{self.prefix}:ticket:{digest}"

    def answers(self, question: str) -> str:
        return f"{self.prefix}:answers:{question}"

    # Pub/Sub.

    def live(self, channel: Channel) -> str:
        return f"{self._heard}:live:{{{channel}}}"

    def probe(self, gateway: str) -> str:
        return f"{self._heard}:probe:{gateway}"
