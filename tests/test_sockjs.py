"""SockJS's HTTP transports, as https://github.com/sockjs/sockjs-protocol has them."""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from receiver.access.identity import Identity
from receiver.transports.sockjs.endpoint import XhrTransport
from tests.sockjs_client import xhr_socket
from tests.stomp_client import StompClient
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender, allowed_origins=SHOP, heartbeat_seconds="1")


@pytest.fixture
async def http(gateway: ReceiverProcess) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def session() -> str:
    return f"/websocket/000/{uuid.uuid4().hex}"


async def test_sessions_of_one_address_are_limited_like_all_its_connections(
    module_processes: Processes, sender: SenderProcess
) -> None:
    """Each takes a place, without a token and without a socket; other addresses are not affected."""
    gateway = module_processes.start_receiver(sender=sender, handshakes_per_second_per_address="1")
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as http:

        async def begin(address: str) -> httpx2.Response:
            path = f"/websocket/000/{uuid.uuid4().hex}/xhr"
            return await http.post(path, headers={"X-Forwarded-For": address})

        answers = [await begin("192.0.2.7") for _ in range(40)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert answers[-1].json()["type"].endswith("too-many-handshakes")
        assert "retry-after" in answers[-1].headers
        assert (await begin("192.0.2.8")).status_code == 200


async def test_session_opens_with_o_and_then_waits(http: httpx2.AsyncClient, session: str) -> None:
    first = await http.post(f"{session}/xhr")
    assert (first.status_code, first.text) == (200, "o\n")
    assert first.headers["content-type"] == "application/javascript; charset=UTF-8"
    assert first.headers["cache-control"] == ("no-store, no-cache, no-transform, must-revalidate, max-age=0")
    assert (await http.post(f"{session}/xhr")).text == "h\n"


async def test_message_is_answered_with_204_and_its_effect_comes_to_the_receiver(
    http: httpx2.AsyncClient, session: str, module_processes: Processes
) -> None:
    await http.post(f"{session}/xhr")
    token = module_processes.token("xenia")
    connect = f'["CONNECT\\naccept-version:1.1\\nheart-beat:0,0\\npasscode:{token}\\n\\n\\u0000"]'
    sent = await http.post(f"{session}/xhr_send", content=connect)
    assert (sent.status_code, sent.content) == (204, b"")
    assert sent.headers["content-type"] == "text/plain; charset=UTF-8"
    answer = await http.post(f"{session}/xhr")
    assert answer.text.startswith('a["CONNECTED\\n')


@pytest.mark.parametrize(
    ("payload", "status", "text"),
    [
        ("", 500, "Payload expected."),
        ('["x', 500, "Broken JSON encoding."),
        ("[]", 204, ""),
    ],
)
async def test_payload_that_is_none_is_named(
    http: httpx2.AsyncClient, session: str, payload: str, status: int, text: str
) -> None:
    await http.post(f"{session}/xhr")
    answer = await http.post(f"{session}/xhr_send", content=payload)
    assert (answer.status_code, answer.text) == (status, text)
    assert (await http.post(f"{session}/xhr")).text == "h\n"  # the session lives on


@pytest.mark.parametrize("prefix", ["/websocket", "/gs-guide-websocket"])
async def test_what_sockjs_has_beyond_our_transports_is_refused_by_its_name(
    http: httpx2.AsyncClient, prefix: str
) -> None:
    for path in ("", "/"):
        assert (await http.get(f"{prefix}{path}")).text == "Welcome to SockJS!\n"
    for path in ("iframe.html", "iframe-1.6.1.min.html", "0/a/eventsource", "0/a/htmlfile", "0/a/jsonp?c=f"):
        answer = await http.get(f"{prefix}/{path}")
        assert (answer.status_code, "xhr_streaming" in answer.json()["detail"]) == (404, True)
    answer = await http.get(f"{prefix}/0/a/websocket")
    assert (answer.status_code, answer.text) == (400, 'Can "Upgrade" only to "WebSocket".')
    assert (await http.get(f"{prefix}/0/a/xhr")).status_code == 405


async def test_message_to_a_session_that_is_not_there_is_404(http: httpx2.AsyncClient, session: str) -> None:
    assert (await http.post(f"{session}/xhr_send", content='["x"]')).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/websocket/0.0/abc/xhr",
        "/websocket/000/a.c/xhr",
        "/websocket/000/%2E/xhr",
        "/websocket/000/xhr",
        "/websocket//abc/xhr",
        "/websocket/000//xhr",
        "/websocket/000/abc/xhr/",
    ],
)
async def test_path_with_a_dot_or_an_empty_part_or_without_a_session_is_404(
    http: httpx2.AsyncClient, path: str
) -> None:
    assert (await http.post(path)).status_code == 404


async def test_second_receiver_is_refused_and_the_first_goes_on(
    http: httpx2.AsyncClient, session: str
) -> None:
    async with http.stream("POST", f"{session}/xhr_streaming") as stream:
        lines = stream.aiter_lines()
        assert [await anext(lines), await anext(lines)] == ["h" * 2048, "o"]
        for name, prelude in (("xhr", ""), ("xhr_streaming", "h" * 2048 + "\n")):
            second = await http.post(f"{session}/{name}")
            assert second.text == f'{prelude}c[2010,"Another connection still open"]\n'
            assert second.headers["content-type"] == "application/javascript; charset=UTF-8"
        assert await anext(lines) == "h"


async def test_closed_session_says_so_to_each_receiver(http: httpx2.AsyncClient, session: str) -> None:
    await http.post(f"{session}/xhr")
    assert (
        await http.post(f"{session}/xhr_send", content='["SEND\\n\\nnot connected\\u0000"]')
    ).status_code == 204
    texts = [(await http.post(f"{session}/xhr")).text for _ in range(2)]
    assert texts[0].startswith('a["ERROR')
    assert texts[0].splitlines()[-1].startswith("c[1002,")
    assert texts[1].startswith("c[1002,")


async def test_receiver_that_is_aborted_ends_its_session(
    http: httpx2.AsyncClient, gateway: ReceiverProcess, session: str
) -> None:
    async with http.stream("POST", f"{session}/xhr_streaming") as stream:
        await anext(stream.aiter_lines())

    async def is_gone() -> bool:
        return (await http.post(f"{session}/xhr_send", content='["\\n"]')).status_code == 404

    await await_until(is_gone, 4)


async def test_request_that_comes_as_its_session_ends_begins_another_and_is_answered(
    gateway: ReceiverProcess,
) -> None:
    """Its receiver is reset in the moment when the next one comes: none may wait for a session that has
    ended.
    """
    for n in range(60):
        path = f"/websocket/000/{uuid.uuid4().hex}"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        with socket.create_connection(("127.0.0.1", gateway.port)) as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.settimeout(20)
            first.sendall(post_of(f"{path}/xhr_streaming"))
            while b"o\n" not in await asyncio.to_thread(first.recv, 65536):
                pass
            if n % 2:
                first.close()
            writer.write(post_of(f"{path}/xhr"))
        async with asyncio.timeout(20):
            answer = await reader.readuntil(b"\n")
            assert answer.startswith(b"HTTP/1.1 200")
            while not (line := await reader.readline()).startswith((b"o", b"c[2010")):
                assert line, "no answer"
        writer.close()


class Ended:
    """A session in the turn of the loop between its end and its being forgotten; `living` may end it."""

    def __init__(self, *, living: bool = False) -> None:
        self.proof = b"of another token" if living else b""
        self.identity = Identity("alice", (), 4e9)
        self.closed = False
        self.carriage = SimpleNamespace(is_closing=lambda: not living, has_receiver=False)

    async def identify_and_end(self, request: Request) -> Identity:
        self.carriage.is_closing = lambda: True
        return self.identity


def transport_with(session: Ended, admitted: list[str]) -> tuple[XhrTransport, Request]:
    async def check(request: Request, transport: str) -> None:
        admitted.append(transport)
        raise HTTPException(403)

    of: Any = SimpleNamespace(
        life=None, accept=lambda request: True, check=check, identify=session.identify_and_end,
        carried=lambda request: "newer",
    )  # fmt: skip
    xhr = XhrTransport(of, of, of, admission=of)
    xhr._sessions["name"] = session  # type: ignore[assignment]
    parameters = {"server": "000", "session": "name"}
    return xhr, Request({"type": "http", "method": "POST", "headers": [], "path_params": parameters})


async def test_request_that_comes_in_the_turn_of_its_sessions_end_is_admitted_first() -> None:
    admitted: list[str] = []
    xhr, request = transport_with(Ended(), admitted)
    with pytest.raises(HTTPException) as refused:
        await xhr.xhr(request)
    assert (refused.value.status_code, admitted) == (403, ["sockjs-xhr"])


async def test_request_whose_session_ends_while_its_token_is_verified_begins_none() -> None:
    admitted: list[str] = []
    xhr, request = transport_with(Ended(living=True), admitted)
    with pytest.raises(HTTPException) as refused:
        await xhr.xhr(request)
    assert (refused.value.status_code, admitted) == (404, [])


def post_of(path: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.long
async def test_session_without_a_receiver_ends_after_fifteen_seconds(
    http: httpx2.AsyncClient, session: str, module_processes: Processes
) -> None:
    await http.post(f"{session}/xhr")
    began = asyncio.get_running_loop().time()
    connect = f'["CONNECT\\naccept-version:1.1\\npasscode:{module_processes.token("xenia")}\\n\\n\\u0000"]'
    assert (await http.post(f"{session}/xhr_send", content=connect)).status_code == 204

    async def is_gone() -> bool:
        return (await http.post(f"{session}/xhr_send", content="[]")).status_code == 404

    await await_until(is_gone, 40)
    assert asyncio.get_running_loop().time() - began > 14


async def test_stream_ends_when_a_browser_has_enough_of_it_and_the_next_one_goes_on(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    async with xhr_socket(gateway) as socket:
        client = StompClient(socket, sockjs=True)
        await client.connect(module_processes.token("strea"))
        await client.subscribe()
        event = {"specversion": "1.0", "source": "/tests", "type": "n", "channel": "customer:strea"}
        events = [event | {"id": uuid.uuid4().hex, "data": "x" * 50_000} for _ in range(8)]
        kind = {"content-type": "application/cloudevents-batch+json"}
        async with httpx2.AsyncClient(
            base_url=sender.url, headers=module_processes.api_headers | kind, trust_env=False
        ) as api:
            for one in events:
                assert (await api.post("/events", json=[one])).status_code == 202
        await client.receive_events(8)
        assert client.seqs == list(range(1, 9))
        assert socket.answers >= 3


async def test_polling_loses_nothing_and_repeats_nothing(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    async with xhr_socket(gateway, streams=False) as socket:
        client = StompClient(socket, sockjs=True)
        await client.connect(module_processes.token("polly"))
        await client.subscribe()
        async with httpx2.AsyncClient(
            base_url=sender.url, headers=module_processes.api_headers, trust_env=False
        ) as api:
            for n in range(20):
                order = {"order_id": f"polly-{n}", "customer_id": "polly"}
                assert (await api.post("/orders", json=order)).status_code == 201
                assert (await api.post(f"/orders/polly-{n}/complete")).status_code == 200
        await client.receive_events(20)
        assert client.seqs == list(range(1, 21))


async def test_stomp_heartbeats_reach_the_client_above_sockjs(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    """SockJS clients do not pass `h` on."""
    async with xhr_socket(gateway) as socket:
        client = StompClient(socket, sockjs=True)
        await client.connect(module_processes.token("hea"), **{"heart-beat": "0,1000"})
        message = ""
        async with asyncio.timeout(10):
            while message != 'a["\\n"]':
                message = await socket.recv()


async def test_page_of_a_foreign_origin_is_refused_and_one_of_ours_may_read(
    http: httpx2.AsyncClient, session: str
) -> None:
    for origin in ("https://evil.example", "null"):
        foreign = await http.post(f"{session}/xhr", headers={"Origin": origin})
        assert (foreign.status_code, foreign.headers.get("access-control-allow-origin")) == (403, None)
    ours = await http.post(f"{session}/xhr", headers={"Origin": SHOP})
    assert ours.headers["access-control-allow-origin"] == SHOP
    assert ours.headers["access-control-allow-credentials"] == "true"


async def test_session_that_began_with_a_token_is_served_to_its_customer_alone(
    http: httpx2.AsyncClient, session: str, module_processes: Processes
) -> None:
    def of(customer: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {module_processes.token(customer)}"}

    mine = of("xenia")
    assert (await http.post(f"{session}/xhr", headers=mine)).text == "o\n"
    connect = '["CONNECT\\naccept-version:1.1\\nheart-beat:0,0\\n\\n\\u0000"]'
    assert (await http.post(f"{session}/xhr_send", content=connect, headers=mine)).status_code == 204
    for headers in ({}, of("yvonne"), {"Authorization": "Bearer none"}):
        assert (await http.post(f"{session}/xhr", headers=headers)).status_code == 404
        assert (await http.post(f"{session}/xhr_send", content="[]", headers=headers)).status_code == 404
    newer = {"Authorization": f"Bearer {module_processes.token('xenia', lifetime_seconds=900)}"}
    assert (await http.post(f"{session}/xhr", headers=newer)).text.startswith('a["CONNECTED\\n')
