"""The edge, as raw sockets see it: a server with small limits here, then both services as they run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shared.process.edge import Edge, NotAlone
from shared.process.limits import Limits
from shared.process.listening import listen
from shared.process.server import Server, Service
from shared.settings import ReceiverSettings, SenderSettings, load
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shared.process.caller import Caller
    from shared.process.head import Head
    from tests.processes import Processes, ServiceProcess

pytestmark = pytest.mark.anyio

LIMITS = Limits(
    head_bytes=4096,
    head_lines=20,
    head_seconds=0.3,
    body_bytes=10_000,
    body_seconds=1.5,
    body_grace_seconds=0.3,
    body_bytes_per_second=2000,
    idle_seconds=0.6,
    linger_seconds=0.3,
    stall_seconds=0.5,
    tick_seconds=0.05,
)
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENT = Limits(tick_seconds=0.05)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the request as JSON; the query decides how."""
    body = b""
    more = scope["query_string"] != b"deaf"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["query_string"].startswith(b"sleep"):
        await asyncio.sleep(float(scope["query_string"][5:]))
    asked = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]],
        "body": body.decode("latin-1"),
        "client": scope["client"],
    }
    text = b"x" * 30_000_000 if scope["query_string"] == b"huge" else json.dumps(asked).encode()
    length = (b"content-length", str(len(text)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": text})


class Running:
    """A server in this process."""

    def __init__(self, server: Server, address: Any, refused: list[str]) -> None:
        self.server = server
        self.address = address
        self.refused = refused

    @contextlib.asynccontextmanager
    async def raw(self) -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_connection(*self.address[:2])
        try:
            yield Raw(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class Raw:
    """A client that sends exactly these bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next one: status, headers, body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", "0"))), 20)
        return int(first.split()[1]), headers, body

    async def asked(self) -> dict[str, Any]:
        """The request that the app got, from its answer."""
        status, _, body = await self.answer()
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    async def ends(self) -> bool:
        """Whether the connection has ended without more bytes."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 20) == b""
        except ConnectionError:
            return True


@contextlib.asynccontextmanager
async def serving(
    limits: Limits = PATIENT,
    app: Any = echo,
    take: Callable[[Head, Edge], bool] | None = None,
    root_path: str = "",
    host: str = "127.0.0.1",
) -> AsyncIterator[Running]:
    refused: list[str] = []
    with listen(host, 0) as listening:
        address = listening.getsockname()
        service = Service(
            app,
            ("127.0.0.1",),
            refused.append,
            limits=limits,
            take=take,
            root_path=root_path,
            grace_seconds=1,
        )
        server = Server(service)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        await await_until(lambda: server.started)
        try:
            yield Running(server, address, refused)
        finally:
            server.stop()
            await task


# Heads.


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (b"nonsense\r\n\r\n", 400, "bad-request"),
        (b"\x16\x03\x01\x02\x00", 400, "bad-request"),  # TLS to a port without
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "bad-request"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            400,
            "bad-request",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "bad-request",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad-host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "bad-host"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad-host"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad-host"),
        (b"GET /#x HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
        (b"GET http://x/#x HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: x" + b"\r\nAuthorization: Bearer x" * 2 + b"\r\n\r\n", 400, "bad-request"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "transfer-coding",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
            "transfer-coding",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\x01\r\na\r\n",
            400,
            "bad-body",
        ),
        # Only uvicorn's parser knows that these are wrong.
        (b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;"\r\na\r\n', 400, "bad-body"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
            400,
            "bad-body",
        ),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "no-proxy"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "http-version"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 5000, 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 30, 431, "head-too-large"),
        (b"\r\n" * 3000, 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: " + b"," * 300 + b"\r\n\r\n", 431, "head-too-large"),
        (b"GET /?" + b"&" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "head-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x", 408, "slow-head"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n", 413, "content-too-large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n", 413, "content-too-large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", 408, "slow-body"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad-body"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1000\r\n%b\r\n" % (b"x" * 4096) * 3,
            413,
            "content-too-large",
        ),
    ],
    ids=lambda value: (
        value[:40].decode("latin-1").encode("unicode_escape").decode() if isinstance(value, bytes) else None
    ),
)
async def test_request_that_is_none_or_too_much_is_answered_and_counted(
    sent: bytes, status: int, kind: str
) -> None:
    async with serving(LIMITS) as running, running.raw() as client:
        client.send(sent)
        answered, headers, body = await client.answer()
        assert (answered, headers["connection"]) == (status, "close")
        assert json.loads(body)["type"] == f"urn:orderbell:problem:{kind}"
        assert await client.ends()
        assert running.refused == [kind]


async def test_endless_head_is_refused_while_it_is_sent() -> None:
    async with serving(LIMITS) as running, running.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        for _ in range(200):
            client.send(b"x" * 100)
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 431


async def test_body_that_drips_is_given_up_however_long_it_is() -> None:
    started = time.monotonic()
    async with serving(LIMITS) as running, running.raw() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not running.refused:
                client.send(b"x")
                await asyncio.sleep(0.02)
        assert running.refused == ["slow-body"]
        assert (await client.answer())[0] == 408
    assert time.monotonic() - started < 5


async def test_request_that_was_answered_before_its_body_came_gets_no_second_answer() -> None:
    """A proxy would take it for the answer to the next request on that connection."""
    for body in (b"", b"x\r\n"):  # that never comes, and that is none
        async with serving(LIMITS) as running, running.raw() as client:
            client.send(b"POST /?deaf HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await client.asked()
            client.send(body)
            assert await client.ends()
            assert running.refused == ["bad-body" if body else "slow-body"]


async def test_what_the_parser_refuses_is_logged_once_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(LIMITS) as running:
        for _ in range(5):
            async with running.raw() as client:
                client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                client.send(b'1;"\r\na\r\n')
                assert (await client.answer())[0] == 400
        assert running.refused == ["bad-body"] * 5
    assert "Invalid HTTP request" not in caplog.text


async def test_connection_that_says_nothing_ends_in_silence() -> None:
    async with serving(LIMITS) as running, running.raw() as client:
        assert await client.ends()
        assert running.refused == []


async def test_connection_is_kept_for_its_idle_time_and_no_longer() -> None:
    async with serving(LIMITS) as running, running.raw() as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.asked()
        answered = time.monotonic()
        assert await client.ends()
        assert LIMITS.idle_seconds - 0.1 < time.monotonic() - answered < LIMITS.idle_seconds + 10


async def test_half_head_at_the_end_of_the_idle_time_has_its_own_time() -> None:
    limits = Limits(idle_seconds=1.5, head_seconds=10, tick_seconds=0.05)
    async with serving(limits) as running, running.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.asked()
        await asyncio.sleep(0.8)
        client.send(b"GET /second HTTP/1.1\r\nHost")
        await asyncio.sleep(1.0)
        client.send(b": x\r\n\r\n")
        assert (await client.asked())["path"] == "/second"


async def test_client_that_reads_nothing_of_its_answer_is_given_up() -> None:
    limits = Limits(stall_seconds=0.5, tick_seconds=0.05)  # the others wait as long as they usually do
    async with serving(limits) as running:
        with socket.create_connection(running.address) as client:
            client.sendall(b"GET /?huge HTTP/1.1\r\nHost: x\r\n\r\n")
            await await_until(lambda: running.refused == ["stalled-answer"])
            await await_until(lambda: not running.server.server_state.connections)


async def test_connection_beyond_the_limit_is_asked_to_come_back() -> None:
    limits = Limits(connections=2, tick_seconds=0.05)
    async with serving(limits) as running, running.raw() as one, running.raw() as two:
        for client in (one, two):
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.asked()
        async with running.raw() as three:
            assert (await three.answer())[0] == 503
        one.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await one.asked()


# Upgrades that nobody takes. RFC 9110 7.8.

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("upgrade", [H2C, H2C.replace(b"h2c", b"websocket"), H2C.replace(b"h2c", b"")])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("cut", [0, 10, 1000])
@pytest.mark.parametrize("chunks", [False, True])
async def test_upgrade_that_nobody_takes_costs_neither_body_nor_connection(
    upgrade: bytes, version: bytes, cut: int, *, chunks: bool
) -> None:
    """Whole, cut within the body, cut after the head: the next request on the connection is read, too."""
    if chunks and version == b"1.0":
        return  # there are none in HTTP/1.0
    body = b"5\r\nhello\r\n0\r\n\r\n" if chunks else b"hello"
    length = b"Transfer-Encoding: chunked" if chunks else b"Content-Length: 5"
    head = b"POST /a HTTP/%b\r\nHost: x\r\n%b%b\r\n\r\n" % (version, upgrade, length)
    place = len(head) + cut - 8 if cut else len(head)
    request = head + body
    async with serving() as running, running.raw() as client:
        client.send(request[:place])
        await asyncio.sleep(0.03)
        client.send(request[place:])
        asked = await client.asked()
        assert (asked["body"], asked["path"]) == ("hello", "/a")
        names = [name for name, _ in asked["headers"]]
        assert not {"upgrade", "http2-settings", "connection"} & set(names)
        if version == b"1.1":
            client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.asked())["path"] == "/b"


async def test_expectation_is_answered_before_the_body_and_the_upgrade_is_ignored() -> None:
    async with serving() as running, running.raw() as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + H2C + b"Content-Length: 5\r\n\r\n"
        )
        assert (
            await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 20)
            == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        client.send(b"hello")
        assert (await client.asked())["body"] == "hello"


async def test_pipelined_requests_are_answered_in_order_and_their_upgrades_ignored() -> None:
    async with serving() as running, running.raw() as client:
        one = (
            b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + H2C
            + b"\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        two = b"GET /2 HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n"
        three = b"POST /3 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
        client.send((one + two + three) * 20)
        for _ in range(20):
            assert [(await client.asked())["path"] for _ in range(3)] == ["/1", "/2", "/3"]


async def test_white_space_around_a_header_is_not_part_of_it() -> None:
    """RFC 9112 5.1. httptools leaves what comes behind a value."""
    async with serving() as running, running.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: \tx \t\r\nLast-Event-ID:  a b  \r\nEmpty:   \r\n\r\n")
        asked = await client.asked()
        assert asked["headers"] == [["host", "x"], ["last-event-id", "a b"], ["empty", ""]]


# Targets.


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://other:80/a?b", "other:80", "/a"),
        (b"HTTPS://other", "other", "/"),
        (b"http://other?b", "other", "/"),
        (b"/a%20b", "x", "/a b"),
        (b"//a", "x", "//a"),
    ],
)
async def test_absolute_target_counts_more_than_host(target: bytes, host: str, path: str) -> None:
    async with serving() as running, running.raw() as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        asked = await client.asked()
        assert asked["path"] == path
        assert [value for name, value in asked["headers"] if name == "host"] == [host]


@pytest.mark.parametrize("target", [b"ftp://x/", b"http://", b"http:///a", b"x", b"http://a@b c/"])
async def test_target_of_no_form_is_refused(target: bytes) -> None:
    async with serving() as running, running.raw() as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        assert (await client.answer())[0] == 400


async def test_root_path_is_cut_off_where_a_proxy_left_it() -> None:
    async with serving(root_path="/alerts") as running, running.raw() as client:
        for target, path in [(b"/alerts/a?b", "/a"), (b"/a", "/a"), (b"/alertsa", "/alertsa")]:
            client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            assert (await client.asked())["path"] == path
        client.send(b"GET /alerts?b HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["location"]) == (308, "/alerts/?b")


async def test_ipv6_socket_takes_ipv4_and_has_the_clients_address() -> None:
    async with serving(host="::") as running:
        running.address = ("127.0.0.1", running.address[1])
        async with running.raw() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
            assert (await client.asked())["client"] == ["192.0.2.7", 0]


@pytest.mark.parametrize("upgrade", ["", "Connection: upgrade\r\nUpgrade: ours\r\n"])
async def test_client_that_resets_behind_its_request_does_not_count_as_a_proxy_on_our_machine(
    upgrade: str,
) -> None:
    """It has no address any more. Believing its headers would use up others' limits."""
    clients: list[Any] = []

    def take(head: Head, edge: Edge) -> bool:
        clients.append(head.peer.host)
        return False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"][0] if scope["client"] else None)
        await echo(scope, receive, send)

    request = f"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n{upgrade}\r\n".encode()
    async with serving(take=take, app=app) as running:
        for _ in range(3):
            with socket.create_connection(running.address) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                rude.sendall(request)
        async with running.raw() as client:
            client.send(request.replace(b"192.0.2.7", b"192.0.2.8"))
            await client.asked()
    assert "192.0.2.8" in clients  # the test asks what it seems to
    assert set(clients) == {"192.0.2.8"}


async def test_fault_of_one_connection_at_the_edge_ends_that_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All connections share the clock: the half head of another is still refused in time."""
    tick = Edge.tick

    def fail(edge: Edge, now: float) -> None:
        if edge.head is not None:
            raise RuntimeError("a defect")
        tick(edge, now)

    async with serving(LIMITS) as running, running.raw() as faulty, running.raw() as other:
        faulty.send(b"GET /?sleep20 HTTP/1.1\r\nHost: x\r\n\r\n")
        await await_until(lambda: any(edge.head is not None for edge in running.server._door.edges))
        other.send(b"GET / HTTP/1.1\r\n")
        monkeypatch.setattr(Edge, "tick", fail)
        assert (await other.answer())[0] == 408
        assert await asyncio.wait_for(faulty.reader.read(), 20) == b""


# Taking over.


class Line(asyncio.Protocol):
    """Sends one line and echoes what it receives."""

    def __init__(self, line: bytes) -> None:
        self.line = line

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.line)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def test_upgrade_of_ours_has_the_socket_also_behind_other_requests() -> None:
    def take(head: Head, edge: Edge) -> bool:
        if b"ours" in head.upgrade:
            edge.take_over(Line(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"))
            return True
        return False

    async with serving(take=take) as running, running.raw() as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n")
            await client.asked()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c, Ours\r\n\r\n")
        assert (await client.answer())[0] == 101
        client.send(b"free")
        assert await asyncio.wait_for(client.reader.readexactly(4), 20) == b"free"
        assert not running.server.server_state.connections
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(client.reader.readexactly(5), 20) == b"GET /"


async def test_app_takes_the_socket_over_for_a_200_and_uvicorn_says_nothing_more() -> None:
    lost = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/stream":
            return await echo(scope, receive, send)
        edge = scope["state"]["edge"]
        assert edge.head.path == b"/stream"
        edge.take_over(Line(b"HTTP/1.1 200 OK\r\n\r\n"))
        assert (await receive())["type"] == "http.disconnect"
        lost.set()
        return None

    async with serving(app=app) as running, running.raw() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.asked()
        client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer())[0] == 200
        await asyncio.wait_for(lost.wait(), 20)
        client.send(b"free")
        assert await asyncio.wait_for(client.reader.readexactly(4), 20) == b"free"


async def test_socket_is_not_taken_over_while_another_request_is_unanswered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05)
        with pytest.raises(NotAlone):
            scope["state"]["edge"].take_over(Line(b""))
        await echo(scope, receive, send)

    async with serving(app=app) as running, running.raw() as client:
        client.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.asked())["path"] == "/1"


# The end.


async def test_requests_during_shutdown_are_answered_with_connection_close() -> None:
    async with serving() as running, running.raw() as kept, running.raw() as busy:
        kept.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await kept.asked()
        busy.send(b"GET /?sleep0.3 HTTP/1.1\r\nHost: x\r\n\r\n")
        await await_until(lambda: len(running.server.server_state.tasks) == 1)
        running.server.stop()
        await await_until(lambda: not running.server.servers[0].is_serving())
        kept.send(b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in (kept, busy):
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await client.ends()


async def test_connections_queued_during_shutdown_are_served() -> None:
    """The loop is kept busy while they connect and the signal comes, so none is accepted before."""
    async with serving() as running:
        clients = [socket.create_connection(running.address) for _ in range(50)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        running.server.stop()
        for client in clients:
            client.setblocking(False)
            with client:
                loop = asyncio.get_running_loop()
                assert (await asyncio.wait_for(loop.sock_recv(client, 15), 20)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTT",
    ],
)
async def test_half_sent_request_does_not_hold_up_the_end(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Limits(leave_seconds=0.3)) as running, running.raw() as client:
        client.send(sent)
        await await_until(lambda: [edge for edge in running.server._door.edges if edge.half_sent])
        began = time.monotonic()
        running.server.stop()
        await await_until(lambda: not running.server.server_state.connections)
        assert time.monotonic() - began < 3
        said = await client.reader.read()
        assert b"HTTP/1.1 503 " in said
        assert b"send the request again" in said
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text


async def test_request_that_is_whole_in_time_is_answered_while_the_server_leaves() -> None:
    async with serving(Limits(leave_seconds=5)) as running, running.raw() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
        await await_until(lambda: [edge for edge in running.server._door.edges if edge.half_sent])
        running.server.stop()
        await await_until(lambda: not running.server.servers[0].is_serving())
        client.send(b"56789")
        assert (await client.asked())["body"] == "123456789"


async def test_whole_requests_that_wait_for_their_turn_are_answered_while_the_server_leaves() -> None:
    """They do not count as half sent, however long the turns before them take."""

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.02)  # noqa: ASYNC251 - a long turn, so that the next one begins a single request
        await echo(scope, receive, send)

    async with serving(Limits(leave_seconds=0.05), app=busy) as running, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(running.raw()) for _ in range(80)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await await_until(lambda: [edge for edge in running.server._door.edges if edge._queued])
        running.server.stop()
        assert [(await client.answer())[0] for client in clients] == [200] * len(clients)


async def test_caller_who_hangs_up_in_mid_body_ends_its_request() -> None:
    async with serving() as running:
        async with running.raw() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
            await await_until(lambda: len(running.server.server_state.tasks) == 1)
        await await_until(lambda: not running.server.server_state.tasks)
        assert not running.server.server_state.connections


async def test_answer_is_read_by_a_client_that_is_still_sending() -> None:
    """Closing at once would reset the connection and lose the answer."""
    limits = Limits(body_bytes=100_000, tick_seconds=0.05)
    async with serving(limits) as running, running.raw() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await asyncio.wait_for(client.writer.drain(), 20)
        assert (await client.answer())[0] == 413


# Both services, as they run.


@pytest.fixture(scope="module", params=["sender", "receiver"])
def service(request: pytest.FixtureRequest, module_processes: Processes) -> ServiceProcess:
    running = next((p for p in module_processes.all if p.service == "sender"), None)
    sender = running or module_processes.start_sender()
    if request.param == "sender":
        return sender
    return module_processes.start_receiver()


async def answer_of(service: ServiceProcess, *pieces: bytes) -> int:
    """The status; 0 where there was none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    client = Raw(reader, writer)
    try:
        for piece in pieces:
            client.send(piece)
            await asyncio.sleep(0.02)  # so that each piece is read alone
        return (await client.answer())[0]
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 8_000_000, 431),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100_000, 431),
        (b"POST /tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n", 413),
        (b"GET http://x/livez HTTP/1.1\r\nHost: y\r\n\r\n", 200),
        (b"GET /livez/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 404),
        (b"GET /static HTTP/1.1\r\nHost: evil.example\r\n\r\n", 404),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n", 200),
        (b"GET /livez HTTP/1.0\r\nHost: x\r\n" + H2C.replace(b"h2c", b"websocket") + b"\r\n", 200),
    ],
    ids=lambda value: (
        value[:60].decode().encode("unicode_escape").decode() if isinstance(value, bytes) else None
    ),
)
async def test_both_services_have_the_same_door(service: ServiceProcess, sent: bytes, status: int) -> None:
    assert await answer_of(service, sent) == status


def test_settings_of_a_request_count_at_the_edge_of_both_services(
    module_processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERBELL_API_KEYS", "k" * 32)
    monkeypatch.setenv("ORDERBELL_JWT_SECRET", "s" * 32)
    for settings in (SenderSettings, ReceiverSettings):
        usual = Limits.of(load(settings), body_bytes=Limits.body_bytes, connections=Limits.connections)
        assert usual == Limits()
    given = {
        "max_head_bytes": "8192",
        "head_seconds": "1.5",
        "body_seconds": "7",
        "body_bytes_per_second": "9",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"ORDERBELL_{name.upper()}", value)
    for settings in (SenderSettings, ReceiverSettings):
        limits = Limits.of(load(settings), body_bytes=1, connections=2)
        assert limits == Limits(
            head_bytes=8192,
            head_seconds=1.5,
            body_seconds=7,
            body_bytes_per_second=9,
            body_bytes=1,
            connections=2,
        )
    sender = module_processes.start_sender(max_head_bytes="8192")
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n"
    assert [asyncio.run(answer_of(sender, head % (b"x" * size))) for size in (8_000, 9_000)] == [200, 431]
    gateway = module_processes.start_receiver(sender=sender, max_head_bytes="8192")
    assert [asyncio.run(answer_of(gateway, head % (b"x" * size))) for size in (8_000, 9_000)] == [200, 431]


async def test_half_heads_are_not_held(service: ServiceProcess) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port))) for _ in range(300)
        ]
        for client in clients:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
            client.setblocking(False)
        loop = asyncio.get_running_loop()
        for client in clients:
            answer = await asyncio.wait_for(loop.sock_recv(client, 100), Limits.head_seconds + 20)
            assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < Limits.head_seconds + 20
    assert service.records("requests are refused")


@pytest.mark.parametrize("cut", [None, 0, 5])
@pytest.mark.parametrize("chunks", [False, True])
async def test_message_of_a_completion_beside_h2c_arrives(
    module_processes: Processes, service: ServiceProcess, cut: int | None, *, chunks: bool
) -> None:
    """As Java's HttpClient and `curl --http2` send it."""
    if service.service == "receiver":
        return  # it has no such call
    order = f"{cut}-{chunks}"
    key = f"Authorization: Bearer {module_processes.api_key}\r\nContent-Type: application/json\r\n".encode()

    def request(path: str, body: bytes) -> list[bytes]:
        length = b"Transfer-Encoding: chunked" if chunks else b"Content-Length: %d" % len(body)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + key + H2C + length + b"\r\n\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunks else body
        if cut is None:
            return [head + body]
        return [head + body[:cut], body[cut:]]

    placed = json.dumps({"order_id": order, "customer_id": "alice"}).encode()
    assert await answer_of(service, *request("/orders", placed)) == 201
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    for piece in request(f"/orders/{order}/complete", b'{"data": {"message": "hello"}}'):
        writer.write(piece)
        await asyncio.sleep(0.02)  # so that each piece is read alone
    status, _, body = await Raw(reader, writer).answer()
    writer.close()
    assert status == 200
    assert json.loads(body)["event"]["data"]["message"] == "hello"


async def test_caller_who_hangs_up_in_mid_body_is_no_error(
    module_processes: Processes, service: ServiceProcess
) -> None:
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {module_processes.api_key}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(head.encode())
            await asyncio.sleep(0.05)
    assert await answer_of(service, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") == 200
    assert not [record for record in service.records() if record["level"] == "error"]
    assert "Traceback" not in service.text()


# The server's end.


async def test_request_that_outlasts_the_servers_end_is_to_be_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()

    async def never(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with serving(app=never) as server, server.raw() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await asyncio.wait_for(begun.wait(), 20)
        server.server.stop()
        status, headers, body = await client.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["type"] == "urn:orderbell:problem:leaving"
        assert await client.ends()
    assert not [record for record in caplog.records if record.exc_info]


# Clients that leave.


class Answering:
    """An app that answers when it is released."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.paths: list[str] = []
        self.callers: list[Caller] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        self.callers.append(scope["state"]["edge"].caller)
        await self.go.wait()
        await echo(scope, receive, send)


async def test_client_that_shuts_down_its_side_gets_its_answer() -> None:
    """`nc -N` does so, and a proxy may: most clients that end their side have left, but not all."""
    async with serving(PATIENT) as running, running.raw() as client:
        client.send(GET % 1)
        client.writer.write_eof()
        assert (await client.asked())["path"] == "/1"
        assert await client.reader.read() == b""


async def test_client_that_has_shut_down_its_side_counts_as_left_after_a_moment_and_is_answered() -> None:
    app = Answering()
    async with serving(PATIENT, app=app) as running, running.raw() as client:
        client.send(GET % 1)
        await await_until(lambda: app.callers)
        client.writer.write_eof()
        await await_until(lambda: app.callers[0].left)
        app.go.set()
        assert (await client.asked())["path"] == "/1"


async def test_caller_leaves_with_its_connection() -> None:
    app = Answering()
    async with serving(PATIENT, app=app) as running:
        async with running.raw() as client:
            client.send(GET % 1)
            await await_until(lambda: app.callers)
            assert not app.callers[0].left
            client.writer.transport.abort()
        await await_until(lambda: app.callers[0].left)
        app.go.set()


async def test_request_that_waits_too_long_for_its_turn_is_refused_with_a_time_to_come_back() -> None:
    app = Answering()
    limits = replace(LIMITS, heads_a_turn=1, turn_seconds=0.05, tick_seconds=0.02)
    async with serving(limits, app=app) as running, running.raw() as client:
        running.server._door.turns._next = lambda: None  # type: ignore[method-assign] # turns that never end
        running.server._door.turns._left = 0
        client.send(GET % 1)
        status, headers, _ = await client.answer()
    assert (status, headers["retry-after"], running.refused) == (503, "2", ["overloaded"])
    assert app.paths == []


async def test_request_that_waits_too_long_behind_another_is_not_refused_in_its_place() -> None:
    """The first one is being carried out: its caller must not be asked to send it again."""
    app = Answering()
    limits = replace(LIMITS, heads_a_turn=1, turn_seconds=0.05, tick_seconds=0.02)
    async with serving(limits, app=app) as running, running.raw() as client:
        running.server._door.turns._next = lambda: None  # type: ignore[method-assign] # turns that never end
        client.send(GET % 1 + GET % 2)
        await await_until(lambda: app.paths)
        await await_until(lambda: running.refused)
        app.go.set()
        assert (await client.asked())["path"] == "/1"
        assert await client.ends()
    assert (app.paths, running.refused) == (["/1"], ["overloaded"])


@pytest.mark.parametrize(
    ("behind", "kind"),
    [
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\n\r\n", "bad-host"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n", "content-too-large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 30 + b"\r\n", "head-too-large"),
        (b"\x16\x03\x01", "bad-request"),
        (b"GET / HTTP/1.1\r\nHo", "slow-head"),
    ],
)
async def test_what_is_refused_behind_a_request_that_runs_is_not_refused_in_its_place(
    behind: bytes, kind: str
) -> None:
    """And nothing behind it is read: it might be a body."""
    app = Answering()
    async with serving(LIMITS, app=app) as running, running.raw() as client:
        client.send(GET % 1 + behind)
        await await_until(lambda: app.paths and running.refused)
        client.send(GET % 2)
        await asyncio.sleep(0.01)  # it has come by then, or the test is easier
        app.go.set()
        assert (await client.asked())["path"] == "/1"
        assert await client.ends()
    assert (app.paths, running.refused) == (["/1"], [kind])


async def test_redirection_behind_a_request_that_runs_does_not_answer_that_one() -> None:
    app = Answering()
    async with serving(app=app, root_path="/sub") as running, running.raw() as client:
        client.send(b"GET /sub/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /sub HTTP/1.1\r\nHost: x\r\n\r\n")
        await await_until(lambda: app.paths)
        app.go.set()
        assert (await client.asked())["path"].endswith("/1")
        assert await client.ends()
    assert len(app.paths) == 1


async def test_client_that_shuts_down_its_side_gets_the_answer_that_is_under_way() -> None:
    app = Answering()
    async with serving(replace(LIMITS, heads_a_turn=1), app=app) as running, running.raw() as client:
        running.server._door.turns._next = lambda: None  # type: ignore[method-assign] # turns that never end
        client.send(GET % 1 + GET % 2)
        client.writer.write_eof()
        await await_until(lambda: app.callers and app.callers[0].left)
        app.go.set()
        assert (await client.asked())["path"] == "/1"
        assert await client.ends()
    assert (app.paths, running.refused) == (["/1"], ["overloaded"])
