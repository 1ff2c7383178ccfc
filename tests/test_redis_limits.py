"""Managed Redis: such services take commands away (CONFIG, INFO, SELECT and more), and none is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.commands.embedded import EmbeddedServer
from shared.redis.cluster import Cluster
from shared.redis.connect import connect, pipelines_to
from tests.gateways import run_gateway
from tests.redis_servers import ClusterServers, binaries
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

GONE = ("CONFIG", "INFO", "SELECT", "TIME", "CLIENT", "DEBUG", "MONITOR", "SAVE", "BGSAVE", "ROLE")


class ManagedServer(EmbeddedServer):
    def command(self) -> list[str]:
        binary, *options = super().command()
        file = self._directory / "commands.conf"
        file.write_text("".join(f'rename-command {name} ""\n' for name in GONE), encoding="utf-8")
        return [binary, str(file), *options]


@pytest.fixture(scope="module", params=binaries(), ids=lambda path: path.name)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, process_group: int
) -> Iterator[ManagedServer]:
    directory = tmp_path_factory.mktemp("managed")
    server = ManagedServer(request.param, directory, process_group=process_group)
    server.start()
    yield server
    server.kill()


async def test_events_come_through_without_what_managed_services_lack(
    server: EmbeddedServer, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    async with (
        run_sender(f"sqlite:///{tmp_path / 'o'}.db", server.url, key_prefix) as sender,
        run_gateway(sender.client, server.url, key_prefix) as gateway,
        gateway.connected() as browser,
    ):
        await sender.place("1")
        await sender.complete("1")
        await browser.wait_seqs([1])
        assert sender.relay.publishes


async def test_database_number_that_cannot_be_selected_is_one_clear_line(
    server: EmbeddedServer,
    key_prefix: str,
    tmp_path: Path,
    anyio_backend: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.url.removesuffix("/0") + "/1"
    async with run_sender(f"sqlite:///{tmp_path / 'o'}.db", url, key_prefix) as sender:
        await await_until(lambda: sender.relay.redis_up is False)
        await await_until(lambda: sender.relay._failures >= 3)
    lines = [line for line in capsys.readouterr().out.splitlines() if "redis takes no events" in line]
    assert len(lines) == 1
    assert "SELECT" in lines[0].upper()


async def test_cluster_whose_info_is_not_permitted_serves(
    tmp_path: Path, process_group: int, key_prefix: str, anyio_backend: object
) -> None:
    with ClusterServers.run(binaries()[-1], tmp_path, process_group, 0) as servers:
        for node in servers.nodes:
            servers.ask(node, "ACL", "SETUSER", "managed", "on", ">managed", "~*", "&*", "+@all", "-info")
            servers.ask(node, "ACL", "SETUSER", "managed", "-cluster|info")
        url = servers.url.replace("redis+cluster://", "redis+cluster://managed:managed@")
        redis = connect(url)
        assert isinstance(redis, Cluster)
        async with redis, pipelines_to(redis) as pipelines:
            keys = [f"{key_prefix}:{n}" for n in range(30)]
            await pipelines.execute([("SET", key, key) for key in keys])
            assert await pipelines.execute([("GET", key) for key in keys]) == [key.encode() for key in keys]
