"""What a client sends, on any transport: CloudEvents of four types."""

from __future__ import annotations

from typing import Annotated

import msgspec

from shared.errors import CallerError
from shared.extents import Seen, parse_all_seen

MAX_IDS = 100  # in one message


class BadMessage(CallerError, ValueError):
    """A message that breaks the protocol."""


class SeenReport(msgspec.Struct):
    """`orderbell.seen`: everything up to `cursor` was shown, and what `seen` has beyond it.

    The text of `seen` may also stand in `cursor`.
    """

    cursor: str = ""
    seen: str = ""

    def parse(self) -> list[Seen]:
        """Raises `InvalidCursor`."""
        return [*parse_all_seen(self.cursor), *parse_all_seen(self.seen)]


class ReadReport(msgspec.Struct):
    """`orderbell.read`: everything up to this cursor was read, or the alerts with these ids, or all."""

    cursor: str = ""
    ids: Annotated[list[str], msgspec.Meta(max_length=MAX_IDS)] = []
    all: bool = False


class Credentials(msgspec.Struct):
    """`orderbell.auth`: the client's token, first or renewed."""

    token: str = ""
    ticket: str = ""


class Ping(msgspec.Struct):
    """`orderbell.ping`: asks for a pong, and reports on the page, unlike a browser's own pong."""

    visible: bool = True
    shows: bool = True  # whether an alert would be shown there now


Message = SeenReport | Credentials | Ping | ReadReport


class _CloudEvent(msgspec.Struct):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


_decode = msgspec.json.Decoder(_CloudEvent).decode
MESSAGES: dict[str, type[Message]] = {
    "orderbell.seen": SeenReport,
    "orderbell.auth": Credentials,
    "orderbell.ping": Ping,
    "orderbell.read": ReadReport,
}
_DECODERS = {name: msgspec.json.Decoder(body) for name, body in MESSAGES.items()}


def parse_message(text: bytes) -> Message:
    """Raises `BadMessage`."""
    try:
        message = _decode(text)
        if decoder := _DECODERS.get(message.type):
            return decoder.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage("not a CloudEvent that a gateway knows") from None
    raise BadMessage(f"unknown type {message.type[:40]!r}")
