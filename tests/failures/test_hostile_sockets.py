"""Hostile sockets against a real gateway: what each costs it, and what its customers notice.

The tests measure the gateway's processor time, which a busy machine does not change.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from receiver.connections.messages import MAX_IDS
from receiver.transports.stomp.connection import MAX_WAITING
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.asyncio.client import ClientConnection

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

FLOOD_BYTES = 2 * 1024 * 1024  # the old gateway took 1.6 s of its processor for a megabyte
FLOOD_SECONDS = 4.0  # it lingers for two
CPU_SECONDS = 0.8  # a shared core takes twice the time for the same work
_MASK = b"\0\0\0\0"
EMPTY_PING = b"\x89\x80" + _MASK
EMPTY_PONG = b"\x8a\x80" + _MASK
EMPTY_FRAGMENT = b"\x00\x80" + _MASK
FIRST_FRAGMENT = b"\x01\x80" + _MASK
LARGE_BINARY = b"\x82\xfe\x3f\x00" + _MASK + b"x" * 0x3F00
LARGE_TEXT = b"\x81\xfe\x3f\x00" + _MASK + b" " * 0x3F00
FULL_PING = b"\x89\xfd" + _MASK + b"x" * 125

FLOODS = {
    "empty pings": (b"", EMPTY_PING * 5_000),
    "full pings": (b"", FULL_PING * 250),
    "empty pongs": (b"", EMPTY_PONG * 5_000),
    "empty fragments": (FIRST_FRAGMENT, EMPTY_FRAGMENT * 5_000),
    "large binaries": (b"", LARGE_BINARY),
    "large texts": (b"", LARGE_TEXT),
    "half a frame, then as much as fits": (b"\x81\xff" + b"\0\0\0\0\0\x10\0\0" + _MASK, b"x" * 32_768),
}


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def closed(gateway: ReceiverProcess) -> dict[str, int]:
    """Ended connections by their code."""
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    found = re.findall(r'orderbell_connections_closed_total\{code="(\w+)"\} (\d+)', text)
    return {code: int(count) for code, count in found}


@contextlib.contextmanager
def raw_websocket(gateway: ReceiverProcess, token: str | None) -> Iterator[socket.socket]:
    """A WebSocket after its handshake; nothing reads what comes."""
    lines = [
        "GET /events HTTP/1.1",
        f"Host: 127.0.0.1:{gateway.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: cloudevents.json",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        assert sock.recv(12) == b"HTTP/1.1 101"
        yield sock


@pytest.fixture(scope="module")
def strict(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(
        sender=sender,
        max_message_bytes="8192",
        frames_per_second="6",
        bytes_per_second="12000",
        authenticate_seconds="0.2",
        max_topics="1",
    )


async def closes_with(gateway: ReceiverProcess, token: str | None, messages: list[str]) -> int:
    async with connected(gateway, token, hello=False) as client:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await client.websocket.send(message)
        return (await client.receive_close())[0]


async def test_settings_of_a_connection_count_on_its_socket(
    strict: ReceiverProcess, module_processes: Processes
) -> None:
    token = module_processes.token
    ping = '{"specversion":"1.0","id":"1","source":"/x","type":"orderbell.ping"}'
    padded = ping.ljust(7_000)
    assert await closes_with(strict, None, []) == 4401  # after a moment
    assert await closes_with(strict, token("a", topics=["x", "y"]), []) == 4403
    assert await closes_with(strict, token("a"), [" " * 8_193]) == 1009
    assert await closes_with(strict, token("a"), [ping] * 13) == 4429  # more than between two heartbeats
    assert await closes_with(strict, token("a"), [padded] * 7) == 4429
    async with connected(strict, token("a", topics=["x"])) as client:
        for _ in range(4):
            await client.websocket.send(ping)
        await until_message(client.websocket, "orderbell.pong", times=4)


async def test_report_names_so_many_alerts_and_no_more(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    def report(count: int) -> str:
        data = {"ids": [f"a{n}" for n in range(count)]}
        content = {"specversion": "1.0", "id": "1", "source": "/x", "type": "orderbell.read", "data": data}
        return json.dumps(content)

    token = module_processes.token("reporter")
    assert await closes_with(gateway, token, [report(MAX_IDS + 1)]) == 4400
    async with connected(gateway, token) as client:
        await client.websocket.send(report(MAX_IDS))
        await client.websocket.send('{"specversion":"1.0","id":"1","source":"/x","type":"orderbell.ping"}')
        await until_message(client.websocket, "orderbell.pong")


async def test_log_quotes_nothing_of_what_a_client_sends(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    token = module_processes.token("quoted")
    messages = [
        '{"specversion":"1.0","id":"1","source":"/x","type":"CANARY"}',
        '{"specversion":"1.0","id":"1","source":"/x","type":"orderbell.seen","data":{"cursor":"CANARY"}}',
        '{"specversion":"1.0","id":"1","source":"/x","type":"orderbell.read","data":{"CANARY":1,"ids":"CANARY"}}',
        "CANARY",
    ]
    for message in messages:
        assert await closes_with(gateway, token, [message]) == 4400
    async with connected(gateway, token, query="after=customer:CANARY=1.1", hello=False) as client:
        assert (await client.receive_close())[0] == 4403
    url = gateway.websocket_url.replace("/events", "/stomp")
    headers = {"Authorization": f"Bearer {token}"}
    for frame in (
        "SUBSCRIBE\nid:1\ndestination:/CANARY\n\n\0",
        "SUBSCRIBE\nid:1\ndestination:/topic/CANARY\n\n\0",
        "SUBSCRIBE\nid:1\ndestination:/user/queue/orders\nafter:CANARY\n\n\0",
        "SUBSCRIBE\nid:1\ndestination:/user/queue/orders\nack:CANARY\n\n\0",
        "UNSUBSCRIBE\nid:CANARY\n\n\0SEND\nCANARY\n\n\0",  # the first alone is no fault
        "ACK\nid:CANARY\n\n\0",
        "SEND\ndestination:/CANARY\n\nCANARY\0",
        "BEGIN\ntransaction:CANARY\n\n\0",
        "CANARY\n\n\0",
        "SEND\nCANARY\n\n\0",
        "SEND\ncontent-length:CANARY\n\n\0",
        "SEND\na:\\CANARY\n\n\0",
    ):
        async with connect(
            url, additional_headers=headers, subprotocols=[Subprotocol("v12.stomp")], proxy=None
        ) as websocket:
            await websocket.send(connect_frame() + frame)
            await websocket.wait_closed()
    async with connected(gateway, token) as client:  # what it logs comes after all of that
        await client.websocket.close(1001)
    await await_until(lambda: gateway.records("connection closed")[-1]["code"] == 1001)
    assert "CANARY" not in gateway.text()


async def until_message(websocket: ClientConnection, kind: str, times: int = 1) -> None:
    while times:
        if json.loads(await asyncio.wait_for(websocket.recv(), 10))["type"] == kind:
            times -= 1


async def test_what_is_posted_to_a_sockjs_session_counts_as_on_a_socket(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    """A session's messages come as requests of their own; line ends alone cost a gateway as much."""
    headers = {"Authorization": f"Bearer {module_processes.token('poster')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        for first, messages in (("", ["\n" * 10_000]), (connect_frame(), ["\n" * 30_000])):
            session = f"/websocket/000/{os.urandom(8).hex()}"
            assert (await http.post(f"{session}/xhr")).text == "o\n"
            if first:
                assert (await http.post(f"{session}/xhr_send", json=[first])).status_code == 204
                assert "CONNECTED" in (await http.post(f"{session}/xhr")).text
            status = 204
            for _ in range(60):  # as many as exceed what may come between two heartbeats
                status = (await http.post(f"{session}/xhr_send", json=messages)).status_code
                if status != 204:
                    break
            assert status == 404
            assert "c[4429," in (await http.post(f"{session}/xhr")).text


def connect_frame() -> str:
    return "CONNECT\naccept-version:1.2\nhost:x\n\n\0"


async def test_frames_of_one_message_beyond_what_may_wait_are_4429(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    url = gateway.websocket_url.replace("/events", "/stomp")
    headers = {"Authorization": f"Bearer {module_processes.token('many')}"}
    async with connect(
        url, additional_headers=headers, subprotocols=[Subprotocol("v12.stomp")], proxy=None
    ) as websocket:
        await websocket.send(connect_frame())
        await websocket.recv()
        await websocket.send("NACK\nid:1-1.1\n\n\0" * (MAX_WAITING + 1))
        await websocket.wait_closed()
        assert websocket.close_code == 4429


def flood(sock: socket.socket, first: bytes, pieces: Iterator[bytes]) -> int:
    """Send as fast as possible without reading, until reset or enough; returns how many bytes left."""
    sent, until = 0, time.monotonic() + FLOOD_SECONDS
    sock.settimeout(0.2)
    with contextlib.suppress(ConnectionError):
        sock.sendall(first)
        for piece in pieces:
            if sent >= FLOOD_BYTES or time.monotonic() > until:
                break
            with contextlib.suppress(TimeoutError):
                sent += sock.send(piece)
    return sent


@pytest.mark.parametrize(
    "known",
    [pytest.param(False, id="stranger"), pytest.param(True, id="customer", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("kind", FLOODS)
async def test_flood_costs_a_gateway_little_and_its_customers_nothing(
    gateway: ReceiverProcess, module_processes: Processes, kind: str, *, known: bool
) -> None:
    first, piece = FLOODS[kind]
    token = module_processes.token("mallory") if known else None
    before, cpu = sum(closed(gateway).values()), cpu_seconds(gateway.pid)
    async with connected(gateway, module_processes.token("alice")) as good:
        with raw_websocket(gateway, token) as sock:
            await asyncio.to_thread(flood, sock, first, itertools.repeat(piece))
            assert await (await good.websocket.ping()) < 5.0  # of a machine with other tests
            await await_until(lambda: sum(closed(gateway).values()) > before)
    assert cpu_seconds(gateway.pid) - cpu < CPU_SECONDS


async def test_frame_that_comes_byte_by_byte_costs_no_more(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    before, cpu = closed(gateway).get("4429", 0), cpu_seconds(gateway.pid)
    with raw_websocket(gateway, module_processes.token("mallory")) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.to_thread(_send_slowly, sock, LARGE_TEXT)
        await await_until(lambda: closed(gateway).get("4429", 0) > before)
    assert cpu_seconds(gateway.pid) - cpu < CPU_SECONDS


def _send_slowly(sock: socket.socket, data: bytes) -> None:
    """Send byte by byte, so slowly that the gateway reads each one separately."""
    with contextlib.suppress(ConnectionError):
        for byte in data[:1_000]:
            sock.send(bytes([byte]))
            time.sleep(0.001)


async def test_flood_is_answered_with_4429_where_it_is_read(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    with raw_websocket(gateway, module_processes.token("mallory")) as sock:
        sock.sendall(EMPTY_PONG * 500)
        received = b""
        while not received.endswith(b"too many frames"):
            data = sock.recv(65536)
            assert data, received
            received += data
        assert received.endswith(b"\x88\x11\x11\x4dtoo many frames")


@pytest.mark.parametrize(
    "frames",
    [
        b"\x81\x82" + _MASK + b"\xc3\x28",
        b"\x01\x81" + _MASK + b"\xc3" + b"\x80\x81" + _MASK + b"\x28",
        b"\x81\x83" + _MASK + b"\xed\xa0\x80",  # a surrogate
    ],
)
async def test_text_that_is_not_utf_8_is_1007(
    gateway: ReceiverProcess, module_processes: Processes, frames: bytes
) -> None:
    before = closed(gateway).get("1007", 0)
    with raw_websocket(gateway, module_processes.token("mallory")) as sock:
        sock.sendall(frames)
        received = b""
        while b"\x88" not in received or not received.endswith(b"not UTF-8"):
            data = sock.recv(65536)
            assert data, received
            received += data
        assert received.endswith(b"\x88\x0b\x03\xefnot UTF-8")
    await await_until(lambda: closed(gateway).get("1007", 0) > before)


async def test_message_in_more_fragments_than_any_client_makes_is_refused(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    before = closed(gateway).get("4429", 0)
    with raw_websocket(gateway, module_processes.token("mallory")) as sock:
        sock.sendall(FIRST_FRAGMENT + EMPTY_FRAGMENT * 128)
        await await_until(lambda: closed(gateway).get("4429", 0) > before)
