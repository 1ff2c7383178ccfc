"""A subscription's MESSAGEs as bytes for the client's socket, made with little work for each event.

Two MESSAGEs of a subscription differ only in place and text. Everything else is made once for all equal
subscriptions; nearly all are equal, because a library always gives its first subscription the same name. For
a topic, the bytes for all equal subscriptions are also made once for each event.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from receiver.transports.stomp.envelope import PLAIN
from receiver.transports.stomp.frames import Frame
from receiver.transports.stomp.session import Acknowledge
from receiver.transports.websocket.frames import text_frame, text_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.transports.stomp.envelope import Envelope
    from receiver.transports.stomp.frames import Version
    from receiver.transports.stomp.session import Subscription
    from shared.cursors import Place

_KINDS = 1024  # of forms that are kept


class Form:
    """The form of MESSAGEs with an event: `session.message`, in an envelope, framed."""

    __slots__ = ("_envelope", "_framed", "_has_ack", "_is_plain", "_template")

    def __init__(
        self, template: bytes, envelope: Envelope, framed: Callable[[bytes], bytes], *, has_ack: bool
    ) -> None:
        self._template = template
        self._has_ack = has_ack
        self._envelope = envelope
        self._framed = framed
        self._is_plain = envelope is PLAIN and framed is text_frame

    def bytes_of(self, place: Place, text: bytes) -> bytes:
        at = b"%d.%d" % place
        own = (at, at, at, len(text), text) if self._has_ack else (at, at, len(text), text)
        message = self._template % own
        if self._is_plain:
            return text_header(len(message)) + message
        return self._framed(self._envelope.wrap(message))


def form_of(
    subscription: Subscription, version: Version, envelope: Envelope, framed: Callable[[bytes], bytes]
) -> Form:
    named = subscription.number, subscription.id, subscription.destination, subscription.acknowledge
    return _form(*named, version, envelope, framed)


@lru_cache(maxsize=_KINDS)
def _form(
    number: int,
    name: str,
    destination: str,
    acknowledge: Acknowledge,
    version: Version,
    envelope: Envelope,
    framed: Callable[[bytes], bytes],
) -> Form:
    headers = {"subscription": name, "destination": destination, "content-type": "application/json"}
    head = Frame("MESSAGE", headers).encode(version).removesuffix(b"\n\0").replace(b"%", b"%%")
    has_ack = acknowledge is not Acknowledge.AUTO
    own = b"message-id:%d-%%b\nplace:%%b\n" % number  # no character that needs an escape
    if has_ack:
        own += b"ack:%d-%%b\n" % number
    return Form(head + own + b"content-length:%d\n\n%b\0", envelope, framed, has_ack=has_ack)


@lru_cache(maxsize=4)  # a topic's subscriptions get each event one after the other
def shared_bytes(form: Form, place: Place, text: bytes) -> bytes:
    """As `Form.bytes_of`, for an event that many subscriptions get."""
    return form.bytes_of(place, text)
