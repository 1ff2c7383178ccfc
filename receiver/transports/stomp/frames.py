"""STOMP frames: bytes to frames and back, without I/O. https://stomp.github.io/stomp-specification-1.2.html

The versions differ in what a header's characters mean:

* 1.2 escapes carriage return, line feed, colon and backslash; 1.1 all but carriage return; 1.0 nothing, and
  spaces around its values don't count: the specification itself writes `login: <username>`;
* CONNECT and CONNECTED are never escaped, so that every version can read them.

Lines may end in CRLF in every version, because some clients of 1.1 do that. Of a repeated header the first
one counts (1.2, "Repeated Header Entries"). A header holds no NUL, though the grammar of 1.2 would allow it:
no client could find the end of such a frame. A parser takes bytes cut anywhere, because stomp-websocket cuts
what it sends every 16 KiB. After a refusal, the parser must not be used any more: its connection ends.

No library does this: Python's STOMP packages are clients, and their parsers expect a server's frames.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_FRAME_BYTES = 64 * 1024  # as Spring's default
MAX_HEADERS = 64
MAX_LINE_BYTES = 4 * 1024 + 16  # of a header: room for a token of 4 KiB and its name

HEARTBEAT = b"\n"


class Version(enum.Enum):
    V10 = "1.0"
    V11 = "1.1"
    V12 = "1.2"


CLIENT_COMMANDS = frozenset(
    {
        "CONNECT",
        "STOMP",  # the same as CONNECT, from 1.1 on
        "SEND",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "ACK",
        "NACK",
        "BEGIN",
        "COMMIT",
        "ABORT",
        "DISCONNECT",
    }
)
_WITH_BODY = frozenset({"SEND", "MESSAGE", "ERROR"})
_UNESCAPED = frozenset({"CONNECT", "STOMP", "CONNECTED"})
_ESCAPES = {
    Version.V10: {},
    Version.V11: {"\\": "\\\\", "\n": "\\n", ":": "\\c"},
    Version.V12: {"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"},
}
_UNESCAPES = {version: {e: c for c, e in escapes.items()} for version, escapes in _ESCAPES.items()}
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,9}")


class InvalidFrame(CallerError, ValueError):
    """Bytes that are not a STOMP frame of a client; the message names the rule they break."""


@dataclass(frozen=True, slots=True)
class Frame:
    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self, version: Version = Version.V12) -> bytes:
        """The frame with its ending NUL. A body gets its `content-length`, in bytes."""
        escapes = {} if self.command in _UNESCAPED else _ESCAPES[version]
        lines = [self.command]
        lines += [
            f"{_escape(name, escapes)}:{_escape(value, escapes)}" for name, value in self.headers.items()
        ]
        if self.body and "content-length" not in self.headers:
            lines.append(f"content-length:{len(self.body)}")
        return "\n".join(lines).encode() + b"\n\n" + self.body + b"\0"


class Parser:
    """Takes a client's bytes in pieces of any size and gives whole frames.

    `version` may be set once it is negotiated. Between frames, line ends are heartbeats and give nothing.
    """

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.version = Version.V12
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._searched = 0  # this many bytes of the buffer are known to contain no end
        self._head: tuple[str, dict[str, str], int | None] | None = None  # its body is read

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. Raises `InvalidFrame` after the frames before the fault were
        returned.
        """
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        if self._head is None and not self._take_head():
            return None
        assert self._head is not None
        command, headers, length = self._head
        end = self._find_end() if length is None else length
        if end is None or len(self._buffer) <= end:
            self._check_size(len(self._buffer))
            return None
        if self._buffer[end] != 0:
            raise InvalidFrame("the body does not end in NUL after its content-length")
        body = bytes(self._buffer[:end])
        if body and command not in _WITH_BODY:
            raise InvalidFrame(f"a {command} frame must have no body")
        del self._buffer[: end + 1]
        self._head, self._searched = None, 0
        return Frame(command, headers, body)

    def _find_end(self) -> int | None:
        end = self._buffer.find(0, self._searched)
        self._searched = len(self._buffer)
        return None if end < 0 else end

    def _take_head(self) -> bool:
        """Take the head of a frame, if it is whole; the buffer then begins with the body. Returns whether it
        was.
        """
        if not self._skip_line_ends():
            return False
        start = max(0, self._searched - 2)
        ends = [
            (at, len(mark)) for mark in (b"\n\n", b"\n\r\n") if (at := self._buffer.find(mark, start)) >= 0
        ]
        nul = self._buffer.find(0, start)
        if not ends or -1 < nul < min(ends)[0]:
            if nul >= 0:
                raise InvalidFrame("the head of a frame ends in an empty line")
            self._searched = len(self._buffer)
            self._check_size(len(self._buffer))
            return False
        at, size = min(ends)
        self._check_size(at)
        self._head = self._parse_head(bytes(self._buffer[:at]))
        del self._buffer[: at + size]
        self._searched = 0
        return True

    def _skip_line_ends(self) -> bool:
        """Whether a frame has begun. A lone CR may be half a line end."""
        begin = 0
        while begin < len(self._buffer):
            if self._buffer[begin] == 0x0A:
                begin += 1
            elif self._buffer.startswith(b"\r\n", begin):
                begin += 2
            else:
                break
        del self._buffer[:begin]
        return bool(self._buffer) and self._buffer != b"\r"

    def _parse_head(self, head: bytes) -> tuple[str, dict[str, str], int | None]:
        lines = head.split(b"\n")
        if len(lines) - 1 > MAX_HEADERS:
            raise InvalidFrame(f"more than {MAX_HEADERS} headers")
        if max(map(len, lines)) > MAX_LINE_BYTES:
            raise InvalidFrame(f"a line of more than {MAX_LINE_BYTES} bytes")
        try:
            command, *fields = (line.removesuffix(b"\r").decode() for line in lines)
        except UnicodeDecodeError:
            raise InvalidFrame("a header is not UTF-8") from None
        if command not in CLIENT_COMMANDS:
            raise InvalidFrame(f"not a command: {command[:20]!r}")
        unescapes = None if command in _UNESCAPED else _UNESCAPES[self.version]
        headers: dict[str, str] = {}
        for text in fields:
            name, colon, value = text.partition(":")
            if not colon or not name:
                raise InvalidFrame(f"not a header: {text[:40]!r}")
            if self.version is Version.V10:
                value = value.strip(" ")
            headers.setdefault(_unescape(name, unescapes), _unescape(value, unescapes))
        return command, headers, self._length(headers)

    def _length(self, headers: Mapping[str, str]) -> int | None:
        text = headers.get("content-length")
        if text is None:
            return None
        number = text.strip(" ")
        if not _LENGTH.fullmatch(number):
            raise InvalidFrame(f"not a content-length: {text[:20]!r}")
        length = int(number)
        self._check_size(length)
        return length

    def _check_size(self, size: int) -> None:
        if size > self._max_frame_bytes:
            raise InvalidFrame(f"a frame has at most {self._max_frame_bytes} bytes")


def _escape(text: str, escapes: Mapping[str, str]) -> str:
    return "".join(escapes.get(character, character) for character in text) if escapes else text


def _unescape(text: str, unescapes: Mapping[str, str] | None) -> str:
    if not unescapes or "\\" not in text:
        return text

    def character(match: re.Match[str]) -> str:
        if match[0] not in unescapes:
            raise InvalidFrame(f"undefined escape {match[0]!r}")
        return unescapes[match[0]]

    return _ESCAPE.sub(character, text)
