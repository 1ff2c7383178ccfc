"""Events: CloudEvents 1.0 in JSON, checked at the sender's door and made into their final text there.

An event's text is written in two steps, because its `seq` is only known under the channel's row lock:
`Draft` holds everything else, already as JSON; `Draft.text` puts epoch and seq in and is cheap enough
to run inside the transaction. Nothing between the sender and the browser parses the text.

CloudEvents: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its JSON format.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import uuid_utils

from shared.channels import Channel, InvalidChannel, parse_channel
from shared.cursors import MAX_NUMBER, Place
from shared.errors import CallerError
from shared.times import format_time, is_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_EVENT_BYTES = 64 * 1024  # CloudEvents: intermediaries must forward events of 64 KiB
SOURCE = "/orderbell/sender"
ORDER_COMPLETED = "order.completed"
TOMBSTONE = "orderbell.tombstone"
RETRACTED = "orderbell.retracted"
TRIAL = "orderbell.trial"  # changes nothing; see sender/trials.py
READ = "orderbell.read"
EXPIRED = "orderbell.expired"
SYSTEM = "orderbell."  # prefix of the types that gateways and clients interpret

_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+")  # at most 20 are only recommended
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LONGEST_PLACE = len(f',"epoch":{MAX_NUMBER},"seq":{MAX_NUMBER}')
_RESERVED = frozenset({"epoch", "seq"})  # ours: the place in the channel
_ORDER = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
_CONTENT = ("data", "data_base64")
_encode = msgspec.json.Encoder().encode
# Attributes that may be any text without control characters.
_PLAIN = frozenset({*_ORDER, "channel", "traceparent"} - {"time"})
_REQUIRED = dict.fromkeys(("id", "source", "type", "channel")).keys()  # a set that keeps its order
_TIMES = frozenset({"time", "expirytime", "popuntil"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class InvalidEvent(CallerError, ValueError):
    """An invalid event; the message names the rule it breaks."""


class EventTooLarge(InvalidEvent):
    """An event of more than `MAX_EVENT_BYTES`."""


class Draft(msgspec.Struct, frozen=True):
    """An event that lacks only its place. `id` and `source` are its identity."""

    id: str
    source: str
    type: str
    channel: Channel
    attributes: bytes  # JSON, from the opening brace to before the place
    data: bytes  # JSON, from after the place to the closing brace
    subject: str = ""
    replaces: str | bool = False  # an id, of the same source; True: what came before of the same subject
    expires: str = ""  # as `format_time` has it; empty: never

    def text(self, place: Place) -> bytes:
        """The event's final JSON."""
        return b'%b,"epoch":%d,"seq":%d%b' % (self.attributes, place.epoch, place.seq, self.data)


class Entry(NamedTuple):
    """A recorded event: its place and its final text."""

    place: Place
    text: bytes


def parse_event(attributes: object, *, now: datetime) -> Draft:
    """A caller's CloudEvent as a draft. `attributes` is the JSON object, already decoded.

    `channel` is required as an extension attribute; a missing `time` is set to now. Raises `InvalidEvent`.
    """
    if not isinstance(attributes, dict):
        raise InvalidEvent("a CloudEvent is a JSON object")
    event = {**attributes}
    content = {name: event.pop(name) for name in _CONTENT if name in event}
    # JSON format 2.2: null is the same as absent. `data` alone may be null.
    if None in event.values():
        event = {name: value for name, value in event.items() if value is not None}
    if event.get("specversion") != "1.0":
        raise InvalidEvent(f'specversion must be "1.0", not {_quote(event.get("specversion"))}')
    if not _is_plain(event):
        _check_closely(event)
    if event["type"].startswith(SYSTEM):
        raise InvalidEvent(f"types that begin with {SYSTEM} are Orderbell's own, not {_quote(event['type'])}")
    if content.get("data_base64") is None:
        content.pop("data_base64", None)
    else:
        _check_base64(content)
    try:
        channel = parse_channel(event["channel"])
    except InvalidChannel as error:
        raise InvalidEvent(str(error)) from None
    if "time" not in event:
        event["time"] = format_time(now)
    return _draft(event, content, channel)


def order_completed(
    order_id: str,
    channel: Channel,
    data: dict[str, Any],
    *,
    now: datetime,
    traceparent: str | None,
    attributes: Mapping[str, str] | None = None,
) -> Draft:
    """The event of an order's completion. `attributes`: extensions. Raises `EventTooLarge`."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(uuid_utils.uuid7()),
        "source": SOURCE,
        "type": ORDER_COMPLETED,
        "subject": order_id,
        "time": format_time(now),
        "datacontenttype": "application/json",
    }
    if traceparent:
        event["traceparent"] = traceparent
    if attributes:
        event |= attributes
    return _draft(event, {"data": data}, channel)


def system_event(
    event_type: str,
    channel: Channel,
    data: dict[str, Any],
    *,
    now: datetime,
    subject: str = "",
    traceparent: str | None = None,
) -> Draft:
    """A change in the life of other events of the channel."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(uuid_utils.uuid7()),
        "source": SOURCE,
        "type": event_type,
        "time": format_time(now),
        "datacontenttype": "application/json",
    }
    if subject:
        event["subject"] = subject
    if traceparent:
        event["traceparent"] = traceparent
    return _draft(event, {"data": data}, channel)


def tombstone(event_id: str, source: str, time: str, channel: Channel, reason: str) -> Draft:
    """The event that takes the place of one that can't be published."""
    return _draft(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": source,
            "type": TOMBSTONE,
            "time": time,
            "datacontenttype": "application/json",
        },
        {"data": {"reason": reason}},
        channel,
    )


def is_traceparent(text: str) -> bool:
    """Whether the text is a W3C Trace Context header of version 00."""
    return _TRACEPARENT.fullmatch(text) is not None


def _is_plain(attributes: dict[str, Any]) -> bool:
    """Whether nothing is missing and nothing needs a closer check, as with nearly all events."""
    if not (_REQUIRED <= attributes.keys() <= _PLAIN and all(attributes.values())):
        return False
    try:
        return "".join(attributes.values()).isprintable()
    except TypeError:  # one of them is not text
        return False


def _check_closely(attributes: dict[str, Any]) -> None:
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise InvalidEvent(f"attribute {name} must be a text that is not empty")
    for name, value in attributes.items():
        _check_attribute(name, value)


def _check_attribute(name: str, value: object) -> None:
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise InvalidEvent(f"attribute names are made of a-z and 0-9, not {_quote(name)}")
    if name in _RESERVED:
        raise InvalidEvent(f"attribute {name} is set by the sender")
    if not isinstance(value, str | bool | int) or (isinstance(value, int) and not -(2**31) <= value < 2**31):
        raise InvalidEvent(f"attribute {name} must be a text, a boolean or a 32-bit integer")
    if isinstance(value, str) and _CONTROL.search(value):
        raise InvalidEvent(f"attribute {name} has control characters")
    if name in _ORDER and not (isinstance(value, str) and value):
        raise InvalidEvent(f"attribute {name} must be a text that is not empty")
    if name in _TIMES and not (isinstance(value, str) and is_time(value)):
        raise InvalidEvent(f"{name} must be an RFC 3339 timestamp with its offset, not {_quote(value)}")
    if name == "replaces" and not (isinstance(value, str | bool) and value):
        raise InvalidEvent(f"replaces must be the id of an event, or true, not {_quote(value)}")


def _check_base64(content: dict[str, Any]) -> None:
    if "data" in content:
        raise InvalidEvent("data and data_base64 exclude each other")
    text = content["data_base64"]
    try:
        base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except ValueError:
        raise InvalidEvent("data_base64 must be a text in base64") from None


def _draft(attributes: dict[str, Any], content: dict[str, Any], channel: Channel) -> Draft:
    """`content`: data or data_base64."""
    first = {name: attributes[name] for name in _ORDER if name in attributes}
    others = {**first, **attributes}  # extensions as they were given
    others.pop("channel", None)
    others["channel"] = channel
    encoded = _encode(others)[:-1]
    data = b"," + _encode(content)[1:] if content else b"}"
    size = len(encoded) + _LONGEST_PLACE + len(data)
    if size > MAX_EVENT_BYTES:
        raise EventTooLarge(f"an event has at most {MAX_EVENT_BYTES} bytes; this would have up to {size}")
    replaces, expiry = attributes.get("replaces", False), attributes.get("expirytime")
    return Draft(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        channel,
        encoded,
        data,
        attributes.get("subject", ""),
        replaces in (True, "true") or replaces,
        format_time(parse_time(expiry)) if expiry else "",
    )


def _quote(value: object) -> str:
    return repr(value)[:80]
