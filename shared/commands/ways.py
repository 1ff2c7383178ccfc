"""The transports of `orderbell watch`: each yields CloudEvents as texts until it ends.

`trace`, if given, gets the conversation line by line: `>` is what we send, `<` what comes. It never gets the
token; `…` stands in its place.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import httpx2
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from shared.cursors import format_cursors
from shared.errors import NeighbourError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from websockets.asyncio.client import ClientConnection

    from shared.channels import Channel
    from shared.cursors import Place

WAIT_SECONDS = 25  # of a long poll
SILENCE_SECONDS = 460.0  # above 1.5 times the longest heartbeat
# The codes that mean "stop" in docs/protocol.md; all others mean "come back".
_FINAL_CODES = frozenset({1002, 1003, 1008, 1009, 4400, 4403})
_FINAL_STATUSES = frozenset({400, 401, 403, 404, 406, 426})
_FINAL_ENDS = frozenset({"bad-message", "forbidden"})
_FRAMES = ("TEXT", "BINARY", "CONT")


class Ended(NeighbourError):
    """How a transport has ended."""

    def __init__(self, how: str, *, final: bool = False, unauthenticated: bool = False) -> None:
        super().__init__(how)
        self.final = final  # the gateway wants us to stop
        self.unauthenticated = unauthenticated  # a new token may help


class CannotConnect(NeighbourError):
    """The gateway can't be reached, or it asks us to come back later."""


@dataclass(frozen=True)
class Asked:
    gateway: str
    token: str
    places: dict[Channel, Place]
    topics: Sequence[str] = ()
    trace: Callable[[str], None] | None = None

    def show(self, direction: str, text: str) -> None:
        if self.trace is not None:
            for line in text.replace(self.token, "…").rstrip("\n").split("\n"):
                self.trace(f"{direction} {line}")

    def url(self, path: str, **query: str) -> str:
        parts = urlsplit(self.gateway)
        return parts._replace(path=parts.path.rstrip("/") + path, query=urlencode(query)).geturl()

    def websocket_url(self, path: str, **query: str) -> str:
        return self.url(path, **query).replace("http", "ws", 1)

    @property
    def after(self) -> dict[str, str]:
        return {"after": format_cursors(self.places)} if self.places else {}


# WebSocket.


async def over_websocket(asked: Asked) -> AsyncGenerator[str, None]:
    """Raises `Ended` and `CannotConnect`."""
    url = asked.websocket_url("/events", **asked.after)
    headers = {"Authorization": f"Bearer {asked.token}"}
    async with _connected(asked, url, "cloudevents.json", headers) as connection:
        try:
            async for text in connection:
                asked.show("< TEXT", str(text))
                yield str(text)
        except ConnectionClosed:
            pass  # how it ended is reported below
        raise _end_of(connection)


def _end_of(connection: ClientConnection) -> Ended:
    code, reason = connection.close_code, connection.close_reason
    return Ended(f"closed with {code} {reason}", final=code in _FINAL_CODES, unauthenticated=code == 4401)


@asynccontextmanager
async def _connected(
    asked: Asked, url: str, subprotocol: str, headers: dict[str, str] | None
) -> AsyncIterator[ClientConnection]:
    connecting = connect(
        url,
        subprotocols=[Subprotocol(subprotocol)],
        additional_headers=headers,
        proxy=None,  # direct, like all connections within Orderbell (shared/outbound.py)
        max_size=2**20,
        logger=_traced(asked),
    )
    try:
        connection = await connecting
    except InvalidStatus as error:
        status = error.response.status_code
        asked.show("<", (error.response.body or b"").decode(errors="replace"))
        if status in _FINAL_STATUSES:
            raise Ended(f"refuses: {error}", final=True) from None
        raise CannotConnect(str(error)) from None
    except (OSError, InvalidHandshake) as error:
        raise CannotConnect(str(error)) from None
    try:
        yield connection
    finally:
        # `async with connection` would report Ctrl-C as a fault, 1011.
        await connection.close()


def _traced(asked: Asked) -> logging.Logger:
    """Shows what the websockets library logs of each handshake and frame."""
    logger = logging.Logger("orderbell.watch", logging.DEBUG)
    if asked.trace is None:
        logger.disabled = True
    else:
        logger.addHandler(_Tracing(asked))
    return logger


class _Tracing(logging.Handler):
    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked

    def emit(self, record: logging.LogRecord) -> None:
        direction, _, text = record.getMessage().partition(" ")
        # Texts of frames are shown elsewhere, whole: websockets shortens them, perhaps in the middle of a
        # token.
        if direction in ("<", ">") and not text.startswith(_FRAMES):
            self._asked.show(direction, text)


# STOMP.


async def over_stomp(asked: Asked) -> AsyncGenerator[str, None]:
    """Raises `Ended` and `CannotConnect`."""
    destinations = ["/user/queue/notices", "/user/queue/orders"]
    destinations += [f"/topic/{quote(topic, safe='')}" for topic in asked.topics]
    async with _connected(asked, asked.websocket_url("/stomp"), "v12.stomp", None) as connection:

        async def send(command: str, **headers: str) -> None:
            lines = [command, *(f"{name.replace('_', '-')}:{value}" for name, value in headers.items())]
            asked.show("> STOMP", "\n".join(lines))
            await connection.send("\n".join(lines) + "\n\n\0")

        try:
            await send(
                "CONNECT", accept_version="1.2", heart_beat="0,0", Authorization=f"Bearer {asked.token}"
            )
            async for message in connection:
                head, _, body = str(message).partition("\n\n")
                asked.show("< STOMP", f"{head}\n\n{body}".rstrip("\0") if head.strip() else "heartbeat")
                command = head.partition("\n")[0]
                if command == "CONNECTED":
                    for n, destination in enumerate(destinations):
                        after = asked.after if destination != destinations[0] else {}
                        await send("SUBSCRIBE", id=str(n), destination=destination, ack="client", **after)
                elif command == "MESSAGE":
                    yield _whole(head, body.rstrip("\0"))
        except ConnectionClosed:
            pass  # how it ended is reported below
        raise _end_of(connection)


class _CloudEvent(msgspec.Struct):
    specversion: str


def _whole(head: str, body: str) -> str:
    """The event. ORDERBELL_SPRING_COMPAT sends the data alone in some topics, and its place in a header."""
    try:
        msgspec.json.decode(body, type=_CloudEvent)
    except msgspec.DecodeError:
        headers = dict(line.split(":", 1) for line in head.split("\n")[1:])
        epoch, seq = headers["place"].split(".")
        data = msgspec.Raw(body.encode()) if headers["content-type"] == "application/json" else body
        channel = headers["destination"].replace("/topic/", "topic:", 1)
        event = {"channel": channel, "epoch": int(epoch), "seq": int(seq), "data": data}
        return msgspec.json.encode(event).decode()
    return body


# HTTP.


async def over_sse(asked: Asked) -> AsyncGenerator[str, None]:
    """Raises `Ended` and `CannotConnect`."""
    try:
        async with _client() as client, _asking(client, asked, "text/event-stream", **asked.after) as answer:
            kind, data = "", []
            async for line in _lines(answer):
                asked.show("<", line)
                if line:
                    name, _, value = line.partition(": ")
                    kind = value if name == "event" else kind
                    if name == "data":
                        data.append(value)
                    continue
                if kind == "orderbell.end":
                    raise _ended_by("\n".join(data))
                if data:
                    yield "\n".join(data)
                kind, data = "", []
    except httpx2.HTTPError as error:
        raise CannotConnect(str(error) or type(error).__name__) from None
    raise Ended("the stream has ended")


async def over_polls(asked: Asked) -> AsyncGenerator[str, None]:
    """Long polls, one after the other. Raises `Ended` and `CannotConnect`."""
    after, session = asked.after, secrets.token_urlsafe(12)
    try:
        async with _client() as client:
            while True:
                query = {"wait": str(WAIT_SECONDS), "session": session, **after}
                async with _asking(client, asked, "application/json", **query) as answer:
                    body = await answer.aread()
                asked.show("<", body.decode())
                page = msgspec.json.decode(body, type=_Page)
                after = {"after": page.cursor}
                for notice in page.notices:
                    yield bytes(notice).decode()
                for event in page.events:
                    yield bytes(event).decode()
    except httpx2.HTTPError as error:
        raise CannotConnect(str(error) or type(error).__name__) from None


class _Page(msgspec.Struct):
    cursor: str
    events: list[msgspec.Raw] = []
    notices: list[msgspec.Raw] = []


class _Notice(msgspec.Struct):
    data: dict[str, Any] = {}


def _ended_by(notice: str) -> Ended:
    data = msgspec.json.decode(notice, type=_Notice).data
    end = str(data.get("end", ""))
    how = f"ended with {end}: {data.get('reason', '')}"
    return Ended(how, final=end in _FINAL_ENDS, unauthenticated=end == "unauthenticated")


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(10, read=SILENCE_SECONDS))


@asynccontextmanager
async def _asking(
    client: httpx2.AsyncClient, asked: Asked, accept: str, **query: str
) -> AsyncIterator[httpx2.Response]:
    """An answer of 200. Raises `Ended` and `CannotConnect` for every other."""
    headers = {"accept": accept, "authorization": f"Bearer {asked.token}"}
    async with client.stream("GET", asked.url("/events", **query), headers=headers) as answer:
        request = answer.request
        asked.show(">", f"GET {request.url.raw_path.decode()} HTTP/1.1")
        for name, value in request.headers.items():
            asked.show(">", f"{name}: {value}")
        asked.show("<", f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}")
        for name, value in answer.headers.items():
            asked.show("<", f"{name}: {value}")
        if answer.status_code == 200:
            yield answer
            return
        body = (await answer.aread()).decode(errors="replace")
        asked.show("<", body)
        if answer.status_code in _FINAL_STATUSES:
            unauthenticated = answer.status_code == 401
            raise Ended(
                f"refuses with {answer.status_code}: {body[:300]}",
                final=not unauthenticated,
                unauthenticated=unauthenticated,
            )
        raise CannotConnect(f"it answers {answer.status_code}")


async def _lines(answer: httpx2.Response) -> AsyncIterator[str]:
    """The lines of an event stream. httpx2's own also end at characters that may occur within JSON."""
    rest = b""
    async for chunk in answer.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


WAYS: dict[str, Callable[[Asked], AsyncGenerator[str, None]]] = {
    "websocket": over_websocket,
    "sse": over_sse,
    "stomp": over_stomp,
    "poll": over_polls,
}
