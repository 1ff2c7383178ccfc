"""`X-Request-ID`: taken, cleaned, returned, and in the lines of its request."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from shared.process.request_ids import MAX_LENGTH, request_id_in
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender, jwt_cookie="token")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (b"0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c"),
        (b"Root=1-67891233-abcdef012345678912345678", "Root=1-67891233-abcdef012345678912345678"),  # AWS
        (b'a"}\x1b[31m{"event":"forged', "a31mevent:forged"),
        (b"a\r\nb", "ab"),
        ("café".encode(), "caf"),
        (b"x" * 100_000, "x" * MAX_LENGTH),
        (b" \t", ""),
    ],
)
def test_id_is_bounded_and_cleaned(given: bytes, used: str) -> None:
    assert request_id_in([(b"host", b"x"), (b"x-request-id", given)]) == used


async def test_answers_of_both_services_have_the_id_that_came_or_a_new_one(
    sender: SenderProcess, gateway: ReceiverProcess
) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        for url in (f"{sender.url}/livez", f"{sender.url}/orders", f"{gateway.url}/events?wait=0"):
            answer = await client.get(url, headers={"X-Request-ID": "order-1042/7"})
            assert answer.headers.get_list("x-request-id") == ["order-1042/7"]
            made = [(await client.get(url)).headers["x-request-id"] for _ in range(2)]
            assert len({*made, "order-1042/7"}) == 3
            assert all(len(one) == 24 for one in made)


async def test_each_of_several_pipelined_requests_has_its_own(
    sender: SenderProcess, gateway: ReceiverProcess
) -> None:
    def get(*fields: bytes) -> bytes:
        return b"\r\n".join([b"GET /orders HTTP/1.1", b"Host: x", *fields, b"", b""])

    given = [get(b"X-Request-ID: %d" % n) for n in range(20)]
    for service in (sender, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"".join([*given, get(), get(b"X-Request-ID: one", b"X-Request-ID: two")]))
        found = []
        for _ in range(22):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            [length] = re.findall(rb"(?i)^content-length: (\d+)", head, re.MULTILINE)
            await reader.readexactly(int(length))
            found += re.findall(rb"(?i)^x-request-id: (.*)\r", head, re.MULTILINE)
        assert found[:20] == [b"%d" % n for n in range(20)]
        assert len(found[20]) == 24
        assert found[21:] == [b"one"]
        writer.close()


@pytest.mark.parametrize("given", [b"a\rSet-Cookie: x=1", b"a\nSet-Cookie: x=1", b"a\0b", b"a\x1b[31m"])
async def test_nothing_of_an_id_that_is_no_headers_value_comes_back(
    sender: SenderProcess, gateway: ReceiverProcess, given: bytes
) -> None:
    """Whether the edge refuses it or its characters are left out."""
    for service in (sender, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: %b\r\n\r\n"
        writer.write(request % given)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 ")
        assert b"Set-Cookie" not in answer
        assert given not in answer
        writer.close()


async def test_lines_of_a_request_have_its_id_and_no_others(
    sender: SenderProcess, module_processes: Processes
) -> None:
    headers = module_processes.api_headers
    async with httpx2.AsyncClient(base_url=sender.url, headers=headers, trust_env=False) as client:
        for name in ("first", "second"):
            await client.get("/connections", headers={"X-Request-ID": name})

    async def logged() -> bool:
        return len(sender.records("admin call")) >= 2

    await await_until(logged)
    assert [line["request_id"] for line in sender.records("admin call")] == ["first", "second"]
    assert all("request_id" not in line for line in sender.records("listening"))


async def test_websocket_has_the_id_of_its_handshake_in_answer_and_lines(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    given = {"X-Request-ID": "from-the-proxy"}
    async with connected(gateway, module_processes.token("dora"), headers=given) as browser:
        response = browser.websocket.response
        assert response is not None
        assert response.headers["x-request-id"] == "from-the-proxy"
    with pytest.raises(InvalidStatus) as refused:
        async with connected(gateway, module_processes.token("dora"), headers=given, subprotocols=["none"]):
            pass
    assert refused.value.response.headers["x-request-id"] == "from-the-proxy"

    async def closed() -> bool:
        return bool(gateway.records("connection closed"))

    await await_until(closed)
    [opened] = gateway.records("connection opened")
    [ended] = gateway.records("connection closed")
    assert opened["request_id"] == "from-the-proxy"
    assert opened["connection"] == ended["connection"]
    assert opened["gateway"] == ended["gateway"] == gateway.records("connection closed")[0]["gateway"]
