"""CloudEvents over HTTP: one event structured, one binary, or a batch; the request's headers decide.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md

In binary mode the body is the data, and enters the event's JSON in the form that suits a browser: JSON
becomes `data` unchanged, text a string, everything else `data_base64`. Without a Content-Type, as some SDKs
send it, a body that parses as JSON is JSON.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from shared.events import InvalidEvent
from shared.json import NotJson, parse_json
from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.datastructures import Headers

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_PREFIX = "ce-"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_JSON = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:json|[a-z0-9!#$&^_.+-]+\+json)")
_TEXT = re.compile(r"text/.+|[^/]+/(?:xml|.+\+xml)")
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class MediaType(NamedTuple):
    """A Content-Type: lower-case, without its parameters, and its charset; "" if it names none."""

    name: str
    charset: str

    def require_utf_8(self) -> None:
        """Raises `Problem`: JSON is UTF-8, RFC 8259 8.1."""
        if self.charset and self.charset not in _UTF_8:
            raise Problem(415, "unsupported-media-type", f"JSON is UTF-8, not {self.charset[:40]}")


def media_type(headers: Headers) -> MediaType:
    name, *parameters = headers.get("content-type", "").lower().split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    given = {name.strip(): value.strip().strip('"') for name, _, value in pairs}
    return MediaType(name.strip(), given.get("charset", ""))


def is_binary(headers: Headers) -> bool:
    return f"{_PREFIX}specversion" in headers


def binary_event(headers: Headers, kind: MediaType, body: bytes) -> dict[str, Any]:
    """The event's members, as in its JSON. Raises `InvalidEvent`, `InvalidJson` and `Problem`."""
    event: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith(_PREFIX):
            _put(event, name.removeprefix(_PREFIX), _decode(value))
    if content_type := headers.get("content-type"):
        _put(event, "datacontenttype", content_type)
    return event | _content(kind, body)


def _content(kind: MediaType, body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    if _JSON.fullmatch(kind.name):
        kind.require_utf_8()
        return {"data": parse_json(body)}
    if not kind.name:
        try:
            return {"data": parse_json(body)}
        except NotJson:
            pass
    elif kind.charset in _UTF_8 or (not kind.charset and _TEXT.fullmatch(kind.name)):
        try:
            return {"data": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"data_base64": base64.b64encode(body).decode()}


def _put(event: dict[str, Any], name: str, value: str) -> None:
    if name in ("data", "data_base64"):
        raise InvalidEvent(f"{_PREFIX}{name}: the body is the data")
    if event.setdefault(name, value) != value:
        raise InvalidEvent(f"attribute {name} is given twice")


def _decode(value: str) -> str:
    """HTTP binding 3.1.3.2: quotes of a header's text first, then one round of percent-decoding.

    Some SDKs encode nothing. Then the bytes, which we get as Latin-1, are UTF-8, or really Latin-1.
    """
    try:
        value = value.encode("latin-1").decode()
    except UnicodeDecodeError:
        pass
    if match := _QUOTED.fullmatch(value.strip()):
        value = re.sub(r"\\(.)", r"\1", match[1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidEvent("a ce- header is not percent-encoded UTF-8") from None
