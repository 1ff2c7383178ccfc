"""How STOMP frames are wrapped: not at all in WebSocket messages, or in SockJS's frames.

SockJS 0.3.3, https://github.com/sockjs/sockjs-protocol: the server's messages are `o` (open), `h`
(heartbeat), `a["…"]` (messages) and `c[code,"reason"]` (close); a client's are a JSON array of strings, or
one string.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from receiver.transports.stomp.frames import InvalidFrame

if TYPE_CHECKING:
    from collections.abc import Sequence

_decode = msgspec.json.Decoder(list[str] | str).decode
_encode = msgspec.json.Encoder().encode


class Envelope(Protocol):
    opening: bytes  # sent when the connection is accepted; may be empty
    beat: bytes  # sent if the client asked for no STOMP heartbeats; may be empty

    def __hash__(self) -> int: ...
    def wrap(self, frame: bytes) -> bytes: ...
    def unwrap(self, text: bytes) -> Sequence[bytes]:
        """Raises `InvalidFrame`."""
        ...

    def farewell(self, code: int, reason: str) -> bytes:
        """Sent before a close; may be empty."""
        ...


class Plain:
    opening = b""
    beat = b""

    def wrap(self, frame: bytes) -> bytes:
        return frame

    def unwrap(self, text: bytes) -> Sequence[bytes]:
        return (text,)

    def farewell(self, code: int, reason: str) -> bytes:
        return b""


class SockJs:
    opening = b"o"
    beat = b"h"

    def wrap(self, frame: bytes) -> bytes:
        """Raises `UnicodeDecodeError` for what is not text; everything we send is text."""
        return b"a" + _encode([frame.decode()])

    def unwrap(self, text: bytes) -> Sequence[bytes]:
        if not text:
            return ()
        try:
            messages = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidFrame("not a SockJS message: a JSON array of strings") from None
        return [message.encode() for message in ([messages] if isinstance(messages, str) else messages)]

    def farewell(self, code: int, reason: str) -> bytes:
        return b"c" + _encode([code, reason])


# They keep no state of a connection, so all connections share them.
PLAIN = Plain()
SOCKJS = SockJs()
