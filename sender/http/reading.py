"""Reading a request: its body and its query, bounded and checked against a type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from sender.http.binding import media_type
from sender.http.bodies import IN_WORDS
from shared.json import parse_json
from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")

MAX_BODY_BYTES = 96 * 1024  # room for an event of 64 KiB with any spacing
MAX_BATCH_BYTES = 4 * 2**20  # 1,000 events of 4 KiB
MAX_CURSORS_BYTES = 2**20  # room for bodies.MAX_CHANNELS cursors, however long their names
_OF_PATTERN = re.compile(r"Expected `.*?` matching regex (.+) - at `(.*)`", re.DOTALL)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Reads no further than the limit, whatever Content-Length says."""
    too_large = Problem(413, "content-too-large", f"this request may have at most {max_bytes} bytes")
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


class JsonBody(NamedTuple):
    """A body: its bytes, and its parsed value."""

    sent: bytes
    value: Any

    def to(self, body_type: type[T]) -> T:
        """Raises `Problem`."""
        try:
            return msgspec.convert(self.value, body_type)
        except msgspec.ValidationError as error:
            raise Problem(400, "invalid-body", _in_words(error)) from None


async def read_json(request: Request, max_bytes: int, *, absent: object = msgspec.UNSET) -> JsonBody:
    """`absent`: the value of a request without a body, if allowed. Raises `Problem` and `InvalidJson`."""
    body = await read_body(request, max_bytes)
    if not body and absent is not msgspec.UNSET:
        return JsonBody(body, absent)
    kind = media_type(request.headers)
    if kind.name != "application/json":
        raise Problem(415, "unsupported-media-type", "Content-Type must be application/json")
    kind.require_utf_8()
    return JsonBody(body, parse_json(body))


def parse_query(request: Request, query_type: type[T]) -> T:
    """Raises `Problem`, also for unknown parameters: ignoring one would answer a different question."""
    given = request.query_params.multi_items()
    if len(dict(given)) < len(given):
        raise Problem(400, "invalid-query", "a parameter is given twice")
    try:
        return msgspec.convert(dict(given), query_type, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, "invalid-query", _in_words(error)) from None


def _in_words(error: msgspec.ValidationError) -> str:
    """Its message; instead of a pattern, what the pattern means."""
    found = _OF_PATTERN.fullmatch(str(error))
    words = IN_WORDS.get(found[1]) if found is not None else None
    return f"`{found[2]}` is not {words}" if found is not None and words is not None else str(error)
