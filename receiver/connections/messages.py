"""What a client sends, whatever its transport: CloudEvents of three types."""

from __future__ import annotations

import msgspec


class BadMessage(ValueError):
    """A client sent what no client of ours sends."""


class SeenReport(msgspec.Struct):
    """`orderbell.seen`: everything up to this cursor was shown."""

    cursor: str = ""


class Credentials(msgspec.Struct):
    """`orderbell.auth`: the client's token, first or renewed."""

    token: str = ""
    ticket: str = ""


class Ping(msgspec.Struct):
    """`orderbell.ping`: is anybody there? And the page's own word, because a pong doesn't prove a page."""

    visible: bool = True
    shows: bool = True  # whether an alert would be shown there now


class _CloudEvent(msgspec.Struct):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


_decode = msgspec.json.Decoder(_CloudEvent).decode
_DECODERS: dict[
    str, msgspec.json.Decoder[SeenReport] | msgspec.json.Decoder[Credentials] | msgspec.json.Decoder[Ping]
] = {
    "orderbell.seen": msgspec.json.Decoder(SeenReport),
    "orderbell.auth": msgspec.json.Decoder(Credentials),
    "orderbell.ping": msgspec.json.Decoder(Ping),
}


def parse_message(text: bytes) -> SeenReport | Credentials | Ping:
    """Raises `BadMessage`."""
    try:
        message = _decode(text)
        if decoder := _DECODERS.get(message.type):
            return decoder.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage("not a CloudEvent that a gateway knows") from None
    raise BadMessage(f"unknown type {message.type[:40]!r}")
