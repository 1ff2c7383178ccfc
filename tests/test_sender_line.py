"""A gateway's questions to its sender over kept connections, and the answers that may come."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from receiver.sender_line import SenderLine, SenderSilent
from shared.commands.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers each request with the next of its answers; an empty one ends the connection instead."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        self.answers = list(answers)
        self.closes = closes  # each connection after one answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(int(size[0].split(b":")[1])) if size else b""
                self.requests.append(head + body)
                answer = self.answers.pop(0) if self.answers else answer_of(b"{}")
                writer.write(answer)
                if not answer or self.closes or b"connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has left


def answer_of(content: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content)


@asynccontextmanager
async def served(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    tasks = set[asyncio.Task[None]]()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(serve_one, "127.0.0.1") as listening:
        yield listening.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def asking(
    server: Server, *, path: str = "", silence_seconds: float = 20, max_answer_bytes: int = 2**20
) -> AsyncIterator[SenderLine]:
    async with served(server.serve) as port:
        url = f"http://127.0.0.1:{port}{path}"
        async with SenderLine(
            url, "a-key", silence_seconds=silence_seconds, max_answer_bytes=max_answer_bytes
        ) as line:
            yield line


async def test_question_has_its_path_key_and_content() -> None:
    server = Server()
    async with asking(server, path="/shop/") as line:
        await line.request(
            "POST", "/seen?x=%25", content=b"{1}", headers={"content-type": "application/json"}
        )
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /shop/seen?x=%25 HTTP/1.1"
    assert {b"authorization: Bearer a-key", b"content-type: application/json", b"content-length: 3"} <= set(
        lines
    )
    assert body == b"{1}"


async def test_questions_one_after_the_other_share_a_connection_and_those_at_once_do_not() -> None:
    server = Server()
    async with asking(server) as line:
        for _ in range(5):
            await line.request("GET", "/")
        assert server.connections == 1
        await asyncio.gather(*(line.request("GET", "/") for _ in range(3)))
        assert server.connections == 3


@pytest.mark.parametrize(
    ("answer", "status", "content"),
    [
        (answer_of(b"abc"), 200, b"abc"),
        (answer_of(b"no", b"503 Service Unavailable"), 503, b"no"),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer_of(b"abc"), 200, b"abc"),
        (OK + b"connection: close\r\n\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n", 200, b""),
    ],
    ids=["length", "error", "chunks", "nothing", "interim", "to the end", "1.0"],
)
async def test_answer_is_whole_however_its_end_is_marked(answer: bytes, status: int, content: bytes) -> None:
    server = Server(answer)
    async with asking(server) as line:
        assert await line.request("GET", "/") == (status, content)
        assert await line.request("GET", "/") == (200, b"{}")  # the next question has its own


async def test_kept_connection_that_has_ended_costs_no_question_its_answer() -> None:
    server = Server(closes=True)
    async with asking(server) as line:
        for _ in range(20):  # sometimes its end is noticed before the next question, sometimes not
            assert (await line.request("GET", "/")).status_code == 200
    assert server.connections == 20


async def test_new_connection_that_ends_without_an_answer_is_no_answer() -> None:
    server = Server(b"")
    async with asking(server) as line:
        with pytest.raises(SenderSilent, match="ended"):
            await line.request("GET", "/")
        assert len(server.requests) == 1
        assert (await line.request("GET", "/")).status_code == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        answer_of(b"x" * 101),
        OK + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 101,
        OK + b"content-length: 9\r\nconnection: close\r\n\r\nshort",
        OK + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n",
    ],
    ids=["no HTTP", "no length", "two lengths", "large", "many chunks", "short", "chunks without an end"],
)
async def test_what_is_no_whole_answer_is_none(answer: bytes) -> None:
    server = Server(answer)
    async with asking(server, max_answer_bytes=100) as line:
        with pytest.raises(SenderSilent):
            await line.request("GET", "/")
        assert await line.request("GET", "/") == (200, b"{}")


async def test_second_answer_to_one_question_is_not_taken_for_the_next_ones() -> None:
    server = Server(answer_of(b"first") + answer_of(b"forged"), answer_of(b"second") + b"HTTP/1.1 200 OK\r\n")
    async with asking(server) as line:
        contents = [(await line.request("GET", "/")).content for _ in range(3)]
    assert contents == [b"first", b"second", b"{}"]
    assert server.connections == 3


async def test_cancelled_question_leaves_no_answer_to_the_next() -> None:
    server = Server(answer_of(b"first"), answer_of(b"second"))
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        await server.serve(reader, writer)

    async with served(serve) as port, SenderLine(f"http://127.0.0.1:{port}", "key") as line:
        question = asyncio.create_task(line.request("GET", "/"))
        await asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        go_on.set()
        assert (await line.request("GET", "/")).content in (b"first", b"second")
        assert [await line.request("GET", "/") for _ in range(2)] == [(200, b"{}")] * 2


async def test_silence_is_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        served(serve) as port,
        SenderLine(f"http://127.0.0.1:{port}", "key", silence_seconds=0.2) as line,
    ):
        with pytest.raises(SenderSilent, match=r"no answer within 0\.2 s"):
            await line.request("GET", "/")


async def test_slow_answer_is_one_as_long_as_something_comes() -> None:
    """1.6 s in all, and no silence of 1.4 s: a busy machine may add a second to one of them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (b"HTTP/1.1 200 OK\r\n", b"content-length: 6\r\n", b"\r\n", b"abc", b"def"):
            writer.write(piece)
            await asyncio.sleep(0.4)

    async with (
        served(serve) as port,
        SenderLine(f"http://127.0.0.1:{port}", "key", silence_seconds=1.4) as line,
    ):
        assert (await line.request("GET", "/")).content == b"abcdef"


async def test_connection_that_is_reset_at_once_is_no_answer() -> None:
    """A balancer whose sender is gone accepts, and resets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with served(serve) as port, SenderLine(f"http://127.0.0.1:{port}", "key") as line:
        for _ in range(20):
            with pytest.raises(SenderSilent):
                await line.request("GET", "/")


async def test_sender_that_nobody_finds_is_silent() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid:8090"):
        async with SenderLine(url, "key") as line:
            with pytest.raises(SenderSilent):
                await line.request("GET", "/")


async def test_second_address_is_tried_where_the_first_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As IPv6 does in some networks."""
    server = Server()
    async with served(server.serve) as port:
        loop = asyncio.get_running_loop()

        async def getaddrinfo(*_: object, **__: object) -> object:
            return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        async with SenderLine(f"http://sender:{port}", "key") as line:
            assert (await line.request("GET", "/")).status_code == 200


async def test_certificate_that_nobody_vouches_for_is_refused() -> None:
    server = Server()
    async with served(server.serve) as port, SenderLine(f"https://127.0.0.1:{port}", "key") as line:
        with pytest.raises(SenderSilent):
            await line.request("GET", "/")
    assert not server.requests
