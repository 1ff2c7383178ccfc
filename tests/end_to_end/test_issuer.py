"""A real gateway, and an issuer that is a process of its own: rotated, away, and back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from shared.commands.embedded import free_port, port_in_use
from tests.issuers import published, sign_with
from tests.waiting import await_until, wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio


class IssuerProcess:
    """Publishes one file, with the standard library's own server."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/keys.json"
        self._directory = directory

    def publish(self, *names: str) -> None:
        keys = [published(name) for name in names]
        (self._directory / "keys.json").write_text(json.dumps({"keys": keys}), encoding="utf-8")

    def start(self) -> None:
        command = [sys.executable, "-m", "http.server", str(self.port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            command, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: port_in_use("127.0.0.1", self.port))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[IssuerProcess]:
    directory = tmp_path / "issuer"
    directory.mkdir()
    issuer = IssuerProcess(directory)
    issuer.publish("RS256", "ES256")
    issuer.start()
    yield issuer
    issuer.end()


async def close_of(gateway: ReceiverProcess, token: str) -> int | None:
    """The code with which it is closed; None if it gets hello."""
    async with connected(gateway, token, hello=False) as client:
        try:
            await client.receive()
        except ConnectionClosed:
            return client.websocket.close_code
        return None


@pytest.mark.long
async def test_issuers_keys_are_rotated_and_outlive_it(processes: Processes, issuer: IssuerProcess) -> None:
    sender = processes.start_sender()
    settings: dict[str, Any] = {
        "jwt_secret": "",
        "jwks_url": issuer.url,
        "jwt_audience": "shop-web",
        "jwt_audience_claim": "azp",
        "jwt_topics_claim": "realm_access.roles",
    }
    # Variables that name a proxy are for issuers elsewhere, and must break nothing here.
    environment = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    gateway = processes.start_receiver(sender=sender, wait_ready=False, **settings)
    gateway.kill()
    gateway.environment.update(environment)
    gateway.start()
    mine: dict[str, Any] = {"aud": None, "azp": "shop-web", "realm_access": {"roles": ["menu"]}}
    async with connected(gateway, sign_with("RS256", **mine)) as client:
        assert client.notices[0]["data"]["channels"] == ["customer:alice", "topic:menu"]

    assert await close_of(gateway, sign_with("RS256", **{**mine, "azp": "another"})) == 4403
    assert await close_of(gateway, sign_with("RS256", **{**mine, "azp": None, "aud": "shop-web"})) == 4403
    assert await close_of(gateway, sign_with("RS256", **mine, exp=1)) == 4401

    issuer.publish("ES256-new")
    assert await close_of(gateway, sign_with("ES256-new", algorithm="ES256", **mine)) is None
    assert await close_of(gateway, sign_with("RS256", **mine)) == 4401  # withdrawn

    issuer.end()
    assert await close_of(gateway, sign_with("ES256-new", algorithm="ES256", **mine)) is None
    assert await close_of(gateway, sign_with("ES256", **mine)) == 1013  # it may be good

    issuer.publish("ES256")
    issuer.start()

    async def comes_in() -> bool:
        return await close_of(gateway, sign_with("ES256", **mine)) is None

    await await_until(comes_in)


async def test_gateway_that_began_without_its_issuer_has_its_keys_once_it_is_there(
    processes: Processes, issuer: IssuerProcess
) -> None:
    issuer.end()
    processes.start_sender()
    gateway = processes.start_receiver(jwt_secret="", jwks_url=issuer.url, wait_ready=False)
    await await_until(lambda: gateway.answers("/livez"))
    await await_until(lambda: gateway.records("the issuer's keys cannot be fetched"))
    assert await close_of(gateway, sign_with("ES256")) == 1013
    issuer.start()
    await await_until(lambda: gateway.records("the issuer's keys were fetched"))
    gateway.wait_ready()
    assert await close_of(gateway, sign_with("ES256")) is None
