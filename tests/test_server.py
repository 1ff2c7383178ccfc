"""The server of a gateway, as raw sockets see it: handshakes, its end. See shared/process/server.py."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import sys
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.process.limits import Limits
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

KEY = base64.b64encode(os.urandom(16))


@pytest.fixture(scope="module", autouse=True)
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(sender: SenderProcess, module_processes: Processes) -> ReceiverProcess:
    return module_processes.start_receiver()


@contextlib.asynccontextmanager
async def raw(gateway: ReceiverProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def upgrade(target: str = "/events", **changes: bytes | None) -> bytes:
    """A handshake request; headers set to None are left out."""
    headers: dict[str, bytes | None] = {
        "host": b"localhost",
        "upgrade": b"websocket",
        "connection": b"Upgrade",
        "sec_websocket_key": KEY,
        "sec_websocket_version": b"13",
        "sec_websocket_protocol": b"cloudevents.json",
        **changes,
    }
    lines = [f"GET {target} HTTP/1.1".encode()]
    lines += [n.replace("_", "-").encode() + b": " + v for n, v in headers.items() if v is not None]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def status(gateway: ReceiverProcess, request: bytes) -> int:
    """The answer's status; 0 if the connection ended without one."""
    async with raw(gateway) as (reader, writer):
        writer.write(request)
        try:
            line = await asyncio.wait_for(reader.readline(), 20)
        except ConnectionError:
            return 0
        return int(line.split()[1]) if line else 0


async def test_handshake_is_answered_as_the_rfc_says(gateway: ReceiverProcess) -> None:
    async with raw(gateway) as (reader, writer):
        writer.write(upgrade())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    accept = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-accept: " + accept + b"\r\n" in head
    assert b"sec-websocket-protocol: cloudevents.json\r\n" in head
    assert b"sec-websocket-extensions" not in head.lower()


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (upgrade(sec_websocket_version=b"8"), 426),
        (upgrade(sec_websocket_version=None), 426),
        (upgrade(sec_websocket_key=None), 400),
        (upgrade(sec_websocket_key=b"short"), 400),
        (upgrade(sec_websocket_key=base64.b64encode(b"x" * 15)), 400),
        (upgrade("/nowhere"), 404),
        (upgrade("http://other.example/events"), 101),  # RFC 9112 3.2.2
        (upgrade("http://other.example/events", origin=b"http://other.example"), 101),
        (upgrade("http://other.example/events", origin=b"http://localhost"), 403),
        (upgrade(host=b"shop.example:443", origin=b"https://shop.example"), 101),
        (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"), 426),  # RFC 9110 7.8: ignored
        (upgrade(upgrade=b"h2c, WebSocket"), 101),
        (upgrade().replace(b"GET", b"POST"), 405),
        (upgrade(upgrade=b"h2c"), 426),  # a plain GET: told to upgrade to WebSocket
        (upgrade("/events%00"), 404),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_handshake_that_is_none_is_refused(
    gateway: ReceiverProcess, request_bytes: bytes, expected: int
) -> None:
    assert await status(gateway, request_bytes) == expected


@pytest.mark.parametrize("request_bytes", [upgrade(sec_websocket_version=b"8"), upgrade(upgrade=b"h2c")])
async def test_upgrade_that_an_answer_asks_for_is_among_its_options(
    gateway: ReceiverProcess, request_bytes: bytes
) -> None:
    """RFC 9110 7.8: a sender of Upgrade sends the connection option, too."""
    async with raw(gateway) as (reader, writer):
        writer.write(request_bytes)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).lower().split(b"\r\n")
    assert b"upgrade: websocket" in head
    options = [line.partition(b": ")[2] for line in head if line.startswith(b"connection: ")]
    assert b"upgrade" in options


async def test_compression_is_not_negotiated(gateway: ReceiverProcess) -> None:
    async with raw(gateway) as (reader, writer):
        writer.write(upgrade(sec_websocket_extensions=b"permessage-deflate"))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert b"extensions" not in head.lower()


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_head_that_never_ends_is_given_up_in_time(gateway: ReceiverProcess, sent: bytes) -> None:
    async with raw(gateway) as (reader, writer):
        writer.write(sent)
        started = time.monotonic()
        answer = await asyncio.wait_for(reader.read(), Limits.head_seconds + 20)
        assert answer.startswith(b"HTTP/1.1 408 " if sent else b"")
        assert time.monotonic() - started > Limits.head_seconds - 1


async def test_45_head_of_more_than_32_kib_is_given_up_at_once(gateway: ReceiverProcess) -> None:
    started = time.monotonic()
    assert await status(gateway, b"GET /livez HTTP/1.1\r\nX-Long: " + b"x" * (Limits.head_bytes + 1)) == 431
    assert time.monotonic() - started < Limits.head_seconds - 1


async def test_45_handshake_with_200_headers_is_answered_at_once(gateway: ReceiverProcess) -> None:
    """The libraries' own WebSocket classes do not answer requests with more than 128."""
    many = b"".join(b"X-%d: y\r\n" % number for number in range(200))
    started = time.monotonic()
    assert await status(gateway, upgrade()[:-2] + many + b"\r\n") == 101
    assert time.monotonic() - started < Limits.head_seconds - 1


async def test_large_cookie_does_not_hang_the_handshake(gateway: ReceiverProcess) -> None:
    """uvicorn's own WebSocket class leaves a header of more than 8 KiB without any answer."""
    assert await status(gateway, upgrade(cookie=b"a=" + b"x" * 16_000)) == 101


async def test_second_request_of_a_connection_has_its_own_deadline_and_limit(
    gateway: ReceiverProcess,
) -> None:
    async with raw(gateway) as (reader, writer):
        for _ in range(3):
            writer.write(
                b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"x" * (Limits.head_bytes // 2) + b"\r\n\r\n"
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            assert head.startswith(b"HTTP/1.1 200 ")
            await asyncio.wait_for(reader.readexactly(len(b'{"status":"ok"}')), 20)


async def test_frames_before_the_answer_are_refused(gateway: ReceiverProcess) -> None:
    assert await status(gateway, upgrade() + b"\x81\x85mask....") == 400


async def test_frames_without_a_mask_end_the_connection(gateway: ReceiverProcess) -> None:
    async with raw(gateway) as (reader, writer):
        writer.write(upgrade())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.write(b"\x81\x05hello")  # not masked: the connection's own parser answers, 1002
        close = await asyncio.wait_for(reader.read(4), 20)
        assert close[:1] == b"\x88"
        assert int.from_bytes(close[2:4], "big") == 1002


async def test_drain_says_bye_spreads_the_closes_and_exits_with_0(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(drain_seconds="1.5")
    token = module_processes.token("alice")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(gateway, token)) for _ in range(30)]
        hostile = await asyncio.open_connection("127.0.0.1", gateway.port)
        hostile[1].write(upgrade(authorization=f"Bearer {token}".encode()))  # never reads, never closes
        await hostile[0].readuntil(b"\r\n\r\n")
        started = time.monotonic()
        gateway.process.terminate()
        ends: list[float] = []

        async def wait_close(client_index: int) -> None:
            code, _ = await clients[client_index].receive_close()
            assert code == 1012
            ends.append(time.monotonic() - started)

        await asyncio.gather(*(wait_close(n) for n in range(30)))
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0
        took = time.monotonic() - started
        hostile[1].close()
    assert all(client.notices[-1]["type"] == "orderbell.bye" for client in clients)
    assert ends[-1] - ends[0] > 0.8
    assert took < 8


async def test_answers_carry_the_time(gateway: ReceiverProcess) -> None:
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as client:

        async def age() -> float:
            sent = parsedate_to_datetime((await client.get("/livez")).headers["Date"])
            return time.time() - sent.timestamp()

        for _ in range(8):
            assert -0.1 < await age() < 2.5
            await asyncio.sleep(0.5)  # four seconds in all, in which it must move


@pytest.mark.usefixtures("gateway")  # which has a sender
async def test_signal_is_followed_at_once(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(drain_seconds="0")
    started = time.monotonic()
    gateway.process.terminate()
    await await_until(lambda: gateway.records("draining"), 3)
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("gateway")  # it has a sender
async def test_hangup_drains(module_processes: Processes) -> None:
    """SIGHUP comes from a terminal that is closed, or from an init script that means "reload"."""
    gateway = module_processes.start_receiver()
    async with connected(gateway, module_processes.token("alice")) as client:
        gateway.process.send_signal(signal.SIGHUP)
        assert (await client.receive_close())[0] == 1012
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0


@pytest.mark.usefixtures("gateway")  # it has a sender
async def test_second_interrupt_skips_the_rest_of_the_drain(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(drain_seconds="30")
    token = module_processes.token("alice")
    async with connected(gateway, token), connected(gateway, token), connected(gateway, token):
        gateway.process.send_signal(signal.SIGINT)
        await await_until(lambda: gateway.records("draining"))
        gateway.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0


async def test_draining_gateway_is_not_ready_and_takes_nobody(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(drain_seconds="3")
    token = module_processes.token("alice")
    async with connected(gateway, token) as one, connected(gateway, token) as other:
        async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as kept_alive:
            assert (await kept_alive.get("/readyz")).status_code == 200
            gateway.process.terminate()
            await await_until(lambda: not gateway.answers("/livez"))  # nothing listens any more
            answer = await kept_alive.get("/readyz")  # a balancer's open connection
            assert (answer.status_code, answer.json()["draining"]) == (503, True)
        assert {(await one.receive_close())[0], (await other.receive_close())[0]} == {1012}


@pytest.mark.long
async def test_port_in_use_is_one_line_and_exit_code_2(gateway: ReceiverProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "receiver", "--port", str(gateway.port)),
        env=gateway.environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert (
        error.decode() == f"orderbell: cannot listen on 127.0.0.1 port {gateway.port}: the port is in use\n"
    )
