"""What ORDERBELL_SPRING_COMPAT adds to STOMP: `/app/hello`, and bodies as Spring's pages read them.

The article's page and the guide's send to the same destination and expect different answers
(shared/spring.py). The topic that a page listens to shows which page it is; if it listens to neither topic,
or to both, a JSON body is taken for the guide's.

As by Spring's applications, a message that they could not read is dropped, with a line in the log and none to
the client. Escapes are those of Spring's `HtmlUtils.htmlEscape`: every character that HTML 4 has a name for,
and the apostrophe.
"""

from __future__ import annotations

import asyncio
import html.entities
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import msgspec
import structlog
from starlette.responses import Response

from shared.errors import CallerError, NeighbourError
from shared.events import TOMBSTONE
from shared.problems import Problem
from shared.process.sampled import Sampled
from shared.spring import (
    GREETINGS,
    MESSAGES,
    decoded,
    event_of,
    posted_text,
    received_text,
    submitted_text,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request

    from receiver.access.origins import Origins
    from receiver.transports.stomp.session import Sent
    from shared.channels import Channel

HELLO = "/app/hello"
SOURCE = "/orderbell/receiver"
STRUCTURED = "application/cloudevents+json"
RETRY_SECONDS = 5.0

_CHARSET = re.compile(r'charset="?([^\s;"]+)')
_ENTITIES = {code: f"&{name};" for code, name in html.entities.codepoint2name.items()} | {39: "&#39;"}

logger = structlog.get_logger(__name__)


class Unreadable(CallerError, ValueError):
    """A message that Spring's applications could not read either."""


class SenderAway(NeighbourError):
    """The sender did not take a message; it may do so later."""


class Body(NamedTuple):
    content_type: str
    text: bytes


class Spring:
    def __init__(self, sender: httpx2.AsyncClient, origins: Origins) -> None:
        self._sender = sender
        self._origins = origins
        self._sampled = Sampled(logger)

    async def run(self) -> None:
        """Compare our setting with the sender's, once it answers."""
        while True:
            try:
                answer = await self._sender.get("/submit")
            except httpx2.HTTPError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if answer.status_code == 404:
                logger.warning("ORDERBELL_SPRING_COMPAT is set here, but not at the sender: no POST /submit")
            return

    async def take(self, sent: Sent, listening: Collection[Channel]) -> None:
        """A page's message to `/app/hello`; `listening`: what it is subscribed to. Raises `SenderAway`."""
        try:
            channel, data = answer_to(sent, listening)
            await self._post(channel, data)
        except Unreadable as error:
            self._sampled.warning("a message could not be read and was dropped", reason=str(error))

    async def submit(self, request: Request) -> Response:
        """`POST /submit`, as the article's sender calls it, so that it works unchanged."""
        if not self._origins.accept(request):
            raise Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
        text = received_text(posted_text(request.headers.get("content-type", ""), await request.body()))
        try:
            await self._post(MESSAGES, text)
        except Unreadable as error:
            raise Problem(413, "content-too-large", str(error)) from None
        except SenderAway as error:
            raise Problem(503, "unavailable", str(error), {"retry-after": "2"}) from None
        return Response(text, media_type="text/plain")

    async def _post(self, channel: Channel, data: object) -> None:
        """Raises `SenderAway`, and `Unreadable` for what is too large for an event."""
        content = msgspec.json.encode(event_of(SOURCE, channel, data))
        try:
            answer = await self._sender.post("/events", content=content, headers={"content-type": STRUCTURED})
        except httpx2.HTTPError:
            raise SenderAway("the sender does not answer") from None
        if answer.status_code == 413:
            raise Unreadable("too large")
        if answer.status_code != 202:
            raise SenderAway(f"the sender answers {answer.status_code}")


def answer_to(sent: Sent, listening: Collection[Channel]) -> tuple[Channel, object]:
    """The answer that everybody at a topic gets. Raises `Unreadable`."""
    charset = _CHARSET.search(sent.content_type.lower())
    try:
        text = decoded(sent.body, charset[1] if charset else "utf-8")
    except Problem as problem:
        raise Unreadable(problem.detail) from None
    topics = {MESSAGES, GREETINGS} & set(listening)
    if topics == {MESSAGES}:
        return MESSAGES, submitted_text(text)
    if topics == {GREETINGS} or _is_object(text):
        return GREETINGS, {"content": f"Hello, {html_escape(_name_in(text))}!"}
    return MESSAGES, submitted_text(text)


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


class _Hello(msgspec.Struct):
    """The guide's `HelloMessage`."""

    name: msgspec.Raw = msgspec.Raw(b"null")


def _name_in(text: str) -> str:
    """As Jackson reads it: a plain text is the name, and numbers and truth values count as their text."""
    try:
        hello = msgspec.json.decode(text, type=_Hello | str)
    except (msgspec.DecodeError, RecursionError):
        raise Unreadable('not a JSON object with a "name"') from None
    if isinstance(hello, str):
        return hello
    name = bytes(hello.name)
    if name.startswith(b'"'):
        return msgspec.json.decode(name, type=str)
    if name.startswith((b"{", b"[")) or name == b"null":
        raise Unreadable("the name is missing, or is not a text")
    return name.decode()


def html_escape(text: str) -> str:
    return text.translate(_ENTITIES)


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Event).decode


def is_spring(channel: Channel) -> bool:
    """Whether the channel's events are sent as their data alone, as Spring's pages expect it."""
    return channel in (MESSAGES, GREETINGS)


@lru_cache(maxsize=64)  # all subscribers get the same
def body_of(text: bytes) -> Body | None:
    """An event's data as Spring would send it; None for a tombstone."""
    event = _decode(text)
    if event.type == TOMBSTONE:
        return None
    data = bytes(event.data)
    if data.startswith(b'"'):
        return Body("text/plain;charset=UTF-8", msgspec.json.decode(data, type=str).encode())
    return Body("application/json", data)
