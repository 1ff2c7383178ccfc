"""A sender behind https: which one a gateway and the tools believe."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import httpx2
import pytest
from click.testing import CliRunner

from receiver.sender_line import SenderLine, SenderSilent
from shared.commands.cli import main
from shared.tls import tls_to_sender
from tests.certificates import Certificates
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, SenderProcess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority with the same name."""
    return Certificates.make(tmp_path_factory.mktemp("strangers"))


@contextlib.asynccontextmanager
async def behind_tls(port: int, certificates: Certificates) -> AsyncIterator[int]:
    """The port of a proxy that ends TLS in front of that port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    running = set[asyncio.Task[None]]()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # a client that does not believe us ends so
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def answered(url: str, authority: Certificates | None) -> bool:
    tls = tls_to_sender(authority.ca.read_text() if authority else None)
    async with SenderLine(url, "key", tls=tls) as line:
        try:
            return (await line.request("GET", "/livez")).status_code == 200
        except SenderSilent:
            return False


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


async def test_sender_is_believed_by_its_certificate_and_its_name(
    sender: SenderProcess, ours: Certificates, strangers: Certificates
) -> None:
    async with behind_tls(sender.port, ours) as port:
        assert await answered(f"https://localhost:{port}", ours)
        assert await answered(f"https://127.0.0.1:{port}", ours)
        assert not await answered(f"https://localhost:{port}", strangers)
        assert not await answered(f"https://localhost:{port}", None)
        assert not await answered(f"https://127.0.0.2:{port}", ours)  # the certificate names neither
        assert not await answered(f"https://ip6-localhost:{port}", ours)


def test_no_earlier_tls_than_1_2_is_spoken(ours: Certificates) -> None:
    for context in (tls_to_sender(None), tls_to_sender(ours.ca.read_text())):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


async def test_tool_that_trusts_the_public_authorities_too_trusts_no_stranger(
    sender: SenderProcess, ours: Certificates, strangers: Certificates
) -> None:
    async with behind_tls(sender.port, ours) as port:
        for authority, believes in ((ours, True), (strangers, False)):
            tls = tls_to_sender(authority.ca.read_text(), beside_public=True)
            async with SenderLine(f"https://localhost:{port}", "key", tls=tls) as line:
                if believes:
                    assert (await line.request("GET", "/livez")).status_code == 200
                else:
                    with pytest.raises(SenderSilent):
                        await line.request("GET", "/livez")


@pytest.mark.parametrize("known", [True, False])
async def test_gateway_is_ready_with_a_sender_whose_authority_it_knows_and_with_no_other(
    sender: SenderProcess,
    module_processes: Processes,
    ours: Certificates,
    strangers: Certificates,
    *,
    known: bool,
) -> None:
    async with behind_tls(sender.port, ours) as port:
        gateway = await asyncio.to_thread(
            module_processes.start_receiver,
            sender_url=f"https://localhost:{port}",
            sender_ca_file=str((ours if known else strangers).ca),
            wait_ready=False,
        )
        if known:
            await await_until(lambda: gateway.answers("/readyz"))
        else:
            await await_until(lambda: "CERTIFICATE_VERIFY_FAILED" in gateway.text())
            assert b"sender-unreachable" in httpx2.get(f"{gateway.url}/readyz", trust_env=False).content
        await asyncio.to_thread(gateway.terminate)


async def test_tools_ask_a_sender_whose_authority_they_know_and_no_other(
    sender: SenderProcess,
    module_processes: Processes,
    ours: Certificates,
    strangers: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with behind_tls(sender.port, ours) as port:
        monkeypatch.setenv("ORDERBELL_SENDER_URL", f"https://localhost:{port}")
        monkeypatch.setenv("ORDERBELL_API_KEYS", module_processes.api_key)
        for command in (["kick", "tessa"], ["erase", "tessa", "--yes"], ["trace", "none"]):
            said = []
            for authority in (ours, strangers):
                monkeypatch.setenv("ORDERBELL_SENDER_CA_FILE", str(authority.ca))
                done = await asyncio.to_thread(CliRunner().invoke, main, command)
                said.append(done.output)
            assert "does not answer" not in said[0]
            assert "does not answer" in said[1]
            assert "certificate" in said[1].lower()
