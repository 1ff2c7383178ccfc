"""WebSocket frames as a server writes them: unmasked, whole, uncompressed. RFC 6455 5.2.

The websockets library parses what browsers send (receiver/transports/websocket/connection.py). What we send
is made here, once, and then written to every connection that shares it.
"""

from __future__ import annotations

from functools import lru_cache

_FIN_CLOSE, _FIN_PING = 0x88, 0x89
_MAX_CONTROL_BYTES = 125
_MAX_REASON_BYTES = _MAX_CONTROL_BYTES - 2  # the code takes two
_MASKED = 0x80
# How frames begin after which reading goes on: fragments, texts, binaries, and whole pings and pongs.
_READ_ON = frozenset(b"\x00\x01\x02\x80\x81\x82\x89\x8a")

PING = bytes((_FIN_PING, 0))


def text_frame(payload: bytes) -> bytes:
    return text_header(len(payload)) + payload


@lru_cache(maxsize=4096)  # a look-up takes a third of the time of making one
def text_header(size: int) -> bytes:
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big")
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


def close_frame(code: int, reason: str) -> bytes:
    """The reason is shortened to what a close frame can hold."""
    text = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
    return bytes((_FIN_CLOSE, 2 + len(text))) + code.to_bytes(2, "big") + text


def frame_size(data: bytes, start: int) -> int | None:
    """The size of a client's frame that begins at `start`; only its header must be there.

    None if the header is not whole yet.
    """
    available = len(data) - start
    if available < 2:
        return None
    size = data[start + 1] & 0x7F
    extended = {126: 2, 127: 8}.get(size, 0)
    if available < 2 + extended:
        return None
    if extended:
        size = int.from_bytes(data[start + 2 : start + 2 + extended], "big")
    return 2 + extended + 4 + size  # with its mask


def more_frames(data: bytes, start: int, most: int) -> bool:
    """Whether more than `most` frames of a client begin in `data`, counted from the one at `start`.

    After a close frame, or one whose header no client may send, nothing is read, so nothing counts.
    """
    for _ in range(most):
        size = frame_size(data, start) if start < len(data) else None
        if size is None or _is_last(data[start], data[start + 1]):
            return False
        start += size
    return start < len(data) and frame_size(data, start) is not None


def _is_last(first: int, second: int) -> bool:
    if first not in _READ_ON or second < _MASKED:
        return True
    return first >= _FIN_PING and second > _MASKED + _MAX_CONTROL_BYTES
