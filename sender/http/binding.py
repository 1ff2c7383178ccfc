"""CloudEvents over HTTP: one event structured, one binary, or a batch, told apart by the request's headers.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from shared.events import InvalidEvent, parse_json

if TYPE_CHECKING:
    from starlette.datastructures import Headers

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_PREFIX = "ce-"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_JSON = re.compile(r"(?:application|text)/json|[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.-]+\+json")


def is_binary(headers: Headers) -> bool:
    return f"{_PREFIX}specversion" in headers


def binary_event(headers: Headers, media_type: str, body: bytes) -> dict[str, Any]:
    """The event's members as its JSON would have them. Raises `InvalidEvent`."""
    event: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith(_PREFIX):
            _put(event, name.removeprefix(_PREFIX), _decode(value))
    if content_type := headers.get("content-type"):
        _put(event, "datacontenttype", content_type)
    if body and _JSON.fullmatch(media_type):
        event["data"] = parse_json(body)
    elif body:
        event["data_base64"] = base64.b64encode(body).decode()
    return event


def _put(event: dict[str, Any], name: str, value: str) -> None:
    if name in ("data", "data_base64"):
        raise InvalidEvent(f"{_PREFIX}{name}: the body is the data")
    if name in event:
        raise InvalidEvent(f"attribute {name} is given twice")
    event[name] = value


def _decode(value: str) -> str:
    """HTTP binding 3.1.3.2: quotes of a header's text first, then one round of percent-decoding."""
    if match := _QUOTED.fullmatch(value.strip()):
        value = re.sub(r"\\(.)", r"\1", match[1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidEvent("a ce- header is not percent-encoded UTF-8") from None
