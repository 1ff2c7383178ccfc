"""Server-Sent Events beyond what every transport does: ids, retries, headers, and clients of other people."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import uuid
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.conformance.sse import EventStreamDriver
from tests.issuers import running_issuer, sign_with
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio

DRIVER = EventStreamDriver()
SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender, allowed_origins=SHOP, heartbeat_seconds="1")


async def post(sender: SenderProcess, processes: Processes, channel: str, text: object = "news") -> None:
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/tests", "type": "news"}
    headers = processes.api_headers | {"content-type": "application/cloudevents+json"}
    async with httpx2.AsyncClient(base_url=sender.url, headers=headers, trust_env=False) as http:
        answer = await http.post("/events", json=event | {"channel": channel, "data": text})
        assert answer.status_code == 202, answer.text


async def test_id_is_the_whole_cursor_of_the_connection(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    token = module_processes.token("ida", topics=["menu"])
    async with DRIVER.connected(gateway, token) as client:
        await post(sender, module_processes, "topic:menu")
        await client.receive_events(1)
        await post(sender, module_processes, "customer:ida")
        await client.receive_events(2)
        ids = zip(client.kinds, client.ids, strict=True)
        assert [one for kind, one in ids if kind != "orderbell.unread"] == [
            "customer:ida=1.0,topic:menu=1.0",
            "customer:ida=1.0,topic:menu=1.1",
            "customer:ida=1.1,topic:menu=1.1",
        ]
        kinds = [kind for kind in client.kinds if kind != "orderbell.unread"]
        assert kinds == ["orderbell.hello", "message", "message"]
        assert client.retries_ms == [2_000]
    resumed = {"Last-Event-ID": "customer:ida=1.0,topic:menu=1.1"}
    old = "customer:ida=1.0,topic:menu=1.0"
    async with DRIVER.connected(gateway, token, after=old, headers=resumed) as client:
        await client.receive_events(1)
        assert client.events[0]["channel"] == "customer:ida"


async def test_notice_behind_events_has_the_cursor_of_the_last_of_them(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    """In a stream with one channel, events bypass the connection."""
    async with DRIVER.connected(gateway, module_processes.token("nora")) as client:
        for n in (1, 2):
            await post(sender, module_processes, "customer:nora")
            await client.receive_events(n)
        await client.report_seen("customer:nora=1.1")
        await client.receive_notice("seen")
        assert client.ids[:1] + client.ids[-1:] == ["customer:nora=1.0", "customer:nora=1.2"]
        assert [id for id, kind in zip(client.ids, client.kinds, strict=True) if kind == "message"] == [
            "customer:nora=1.1",
            "customer:nora=1.2",
        ]


async def test_answer_has_the_headers_that_proxies_and_pages_need(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    token = module_processes.token("hal")
    async with DRIVER.connected(gateway, token, headers={"Origin": SHOP}) as client:
        headers = {**client.headers}
        assert headers.pop("date", "").endswith(" GMT")
        assert headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
            "connection": "close",
            "access-control-allow-origin": SHOP,
            "access-control-allow-credentials": "true",
            "vary": "origin",
        }


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("TEXT/Event-Stream ; charset=utf-8", "text/event-stream"),
        ("application/json, text/event-stream", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream;Q=0.9", "text/event-stream"),
        ("text/event-stream;q=0.1, application/json", "application/json"),
        ("text/event-stream;q=0, application/json;q=0.001", "application/json"),
        ("text/event-stream;q=0.000", "application/problem+json"),
        ("application/json;q=0", "application/problem+json"),
        ("text/*", "application/problem+json"),
        ("*/*", "application/problem+json"),
    ],
)
async def test_client_gets_the_kind_that_it_wants_most(
    gateway: ReceiverProcess, module_processes: Processes, accept: str, kind: str
) -> None:
    headers = {"Accept": accept, "Authorization": f"Bearer {module_processes.token('mona')}"}
    async with (
        httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http,
        http.stream("GET", "/events") as answer,
    ):
        assert answer.headers["content-type"] == kind
        assert answer.status_code == (426 if kind == "application/problem+json" else 200)


async def test_head_has_the_headers_of_a_stream(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {module_processes.token('hedda')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as http:
        answer = await http.head("/events")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?after=customer:poly=1.0&lastEventId=customer%3Apoly%3D1.1", {}),  # event-source-polyfill
        ("?lastEventId=customer%3Apoly%3D1.1", {}),
        ("?after=customer:poly=1.0&lastEventID=customer%3Apoly%3D1.1", {}),  # clients of Mercure
        ("?after=customer:poly=1.0&Last-Event-ID=customer%3Apoly%3D1.1", {}),  # and older ones
        ("?evs_preamble&evs_last_event_id=customer%3Apoly%3D1.1", {}),  # AmvTek's polyfill
        ("?lastEventId=&after=customer%3Apoly%3D1.1", {"Last-Event-ID": ""}),
        ("?lastEventId=customer:poly=1.0", {"Last-Event-ID": "customer:poly=1.1"}),
    ],
)
async def test_what_a_client_had_last_counts_before_where_it_began(
    gateway: ReceiverProcess,
    sender: SenderProcess,
    module_processes: Processes,
    query: str,
    headers: dict[str, str],
) -> None:
    """A polyfill adds `lastEventId` to its first URL; ignored, it would get everything twice, or lose what
    came meanwhile in a topic.
    """
    await post(sender, module_processes, "customer:poly")
    given = {"Accept": "text/event-stream", "Authorization": f"Bearer {module_processes.token('poly')}"}
    async with (
        httpx2.AsyncClient(base_url=gateway.url, headers=given | headers, trust_env=False) as http,
        http.stream("GET", f"/events{query}") as stream,
    ):
        lines = [line async for line in _until_hello(stream)]
    assert lines[1] == "id: customer:poly=1.1"


async def _until_hello(stream: httpx2.Response) -> AsyncIterator[str]:
    async for line in stream.aiter_lines():
        yield line
        if line == "event: orderbell.hello":
            return


async def test_comment_comes_each_heartbeat_and_ends_no_event(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    """An empty line after it is an empty event to httpx-sse, which a page of its caller's cannot read."""
    async with DRIVER.connected(gateway, module_processes.token("cora")) as client:
        await client.receive_notice("unread")
        async with asyncio.timeout(20):
            assert await client._reader.readexactly(4) == b":\n:\n"


@pytest.mark.parametrize(
    ("query", "headers", "status", "kind"),
    [
        ("", {}, 401, "unauthenticated"),
        ("?ticket=never-was", {}, 401, "unauthenticated"),
        ("?token=x", {}, 400, "token-in-url"),
        ("", {"Origin": "https://evil.example"}, 403, "foreign-origin"),
        ("?after=garbage", {"Authorization": "good"}, 400, "bad-message"),
        ("?after=customer:bob=1.1", {"Authorization": "good"}, 403, "forbidden"),
    ],
)
async def test_what_is_refused_is_a_status_and_a_problem(
    gateway: ReceiverProcess,
    module_processes: Processes,
    query: str,
    headers: dict[str, str],
    status: int,
    kind: str,
) -> None:
    if headers.get("Authorization"):
        headers = {"Authorization": f"Bearer {module_processes.token('rhea')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.get(f"/events{query}", headers={"Accept": "text/event-stream", **headers})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:orderbell:problem:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_ticket_opens_one_stream(gateway: ReceiverProcess, module_processes: Processes) -> None:
    """EventSource needs this, because it can set no header."""
    authorization = {"Authorization": f"Bearer {module_processes.token('tia')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        ticket = (await http.post("/tickets", headers=authorization)).json()["ticket"]
        url, accept = f"/events?ticket={ticket}", {"Accept": "text/event-stream"}
        async with http.stream("GET", url, headers=accept) as stream:
            assert stream.status_code == 200
            assert (await anext(stream.aiter_lines())).startswith("retry: ")
        assert (await http.get(url, headers=accept)).status_code == 401


async def test_cookie_of_our_own_pages_opens_a_stream_without_an_origin(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    """Browsers send none with a same-origin GET, and SameSite=Strict vouches for the cookie."""
    cookie = {"Cookie": f"orderbell_token={module_processes.token('coco')}"}
    async with DRIVER.connected(gateway, None, headers=cookie) as client:
        assert client.noticed("hello")[0]["channels"] == ["customer:coco"]
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.post("/seen", json={"cursor": "customer:coco=1.1"}, headers=cookie)
        assert answer.status_code == 401  # a POST with a cookie must say whose page it is


async def test_page_of_an_allowed_origin_may_ask_before_and_no_other(gateway: ReceiverProcess) -> None:
    asked = {
        "Access-Control-Request-Method": "GET",
        # Those of polyfills and libraries, too.
        "Access-Control-Request-Headers": "authorization,cache-control,last-event-id,pragma,x-requested-with",
    }
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        allowed = await http.options("/events", headers=asked | {"Origin": SHOP})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, SHOP)
        other = await http.options("/events", headers=asked | {"Origin": "https://evil.example"})
        assert other.status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"cursor":"customer:sina=1.1"}', 202),
        (b'{"cursor":"customer:sina=1.900"}', 202),
        (b'{"cursor":"customer:bob=1.1"}', 403),
        (b'{"cursor":"garbage"}', 400),
        (b"{}", 400),
        (b'{"cursors":"customer:sina=1.1"}', 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b"", 400),
    ],
)
async def test_seen_over_http_is_of_the_customers_own_channel(
    gateway: ReceiverProcess, module_processes: Processes, body: bytes, status: int
) -> None:
    authorization = {"Authorization": f"Bearer {module_processes.token('sina')}"}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.post("/seen", content=body, headers=authorization)
        assert answer.status_code == status, answer.text
    async with DRIVER.connected(gateway, module_processes.token("sina")) as client:
        assert client.noticed("hello")[0]["cursor"] == "customer:sina=1.0"  # nothing is there to be seen


async def test_client_that_leaves_is_noticed(gateway: ReceiverProcess, module_processes: Processes) -> None:
    def left() -> int:
        return sum(record["code"] == "left" for record in gateway.records("connection closed"))

    before = left()
    async with DRIVER.connected(gateway, module_processes.token("leo")):
        pass
    await await_until(lambda: left() > before)


async def test_client_that_speaks_where_nobody_listens_is_cut_off(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    request = (
        f"GET /events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {module_processes.token('max')}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(request.encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(_speak, sock)


def _speak(sock: socket.socket) -> None:
    for _ in range(10_000):
        sock.sendall(b"x" * 10_000)


async def test_curl_shows_the_stream(
    gateway: ReceiverProcess, sender: SenderProcess, module_processes: Processes
) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("not run: no curl")
    command = [curl, "--no-progress-meter", "-N", "-H", "Accept: text/event-stream"]
    command += ["-H", f"Authorization: Bearer {module_processes.token('carla')}", f"{gateway.url}/events"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            await _read_until(process.stdout, b"event: orderbell.hello")
            await post(sender, module_processes, "customer:carla", "for curl")
            line = await _read_until(process.stdout, b"data: ")  # the hello's
            while b"for curl" not in line:
                line = await _read_until(process.stdout, b"data: ")
            assert json.loads(line.removeprefix(b"data: "))["seq"] == 1
    finally:
        process.kill()
        await process.wait()


async def _read_until(stream: asyncio.StreamReader, beginning: bytes) -> bytes:
    while not (line := await stream.readline()).startswith(beginning):
        assert line, "it ended"
    return line


async def test_the_cookie_of_tls_counts_first(gateway: ReceiverProcess, module_processes: Processes) -> None:
    """Another site below our domain can set the plain cookie, but not this one."""
    planted, ours = (module_processes.token(customer) for customer in ("mallory", "coco"))
    cookie = {"Cookie": f"orderbell_token={planted}; __Host-orderbell_token={ours}"}
    async with DRIVER.connected(gateway, None, headers=cookie) as client:
        assert client.noticed("hello")[0]["channels"] == ["customer:coco"]


@pytest.mark.long
async def test_streams_whose_tokens_wait_for_a_key_do_not_pass_a_limit_together(processes: Processes) -> None:
    statuses: list[int] = []
    over = asyncio.Event()
    processes.start_sender()
    with running_issuer() as issuer:
        issuer.waits_for.clear()
        gateway = processes.start_receiver(
            jwt_secret="", jwks_url=issuer.url, max_connections_per_address="2", wait_ready=False
        )
        await await_until(lambda: gateway.answers("/livez"))

        async def come(http: httpx2.AsyncClient) -> None:
            async with http.stream("GET", f"{gateway.url}/events") as answer:
                statuses.append(answer.status_code)
                await over.wait()

        headers = {
            "Accept": "text/event-stream",
            "Authorization": f"Bearer {sign_with('ES256')}",
            "X-Forwarded-For": "192.0.2.7",
        }
        async with httpx2.AsyncClient(headers=headers, trust_env=False) as http, asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(come(http))
            await asyncio.sleep(0.2)  # a stream that comes later is refused as well
            assert not statuses
            issuer.waits_for.set()
            await await_until(lambda: len(statuses) == 5)
            over.set()
    assert sorted(statuses) == [200, 200, 429, 429, 429]
