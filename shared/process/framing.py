"""Where a request's body ends. RFC 9112 6 and 7.1; no I/O.

uvicorn parses a body's content. The edge (shared/process/edge.py) only counts its bytes, so that it finds the
head of the next request on the same connection. A body that this module finds malformed is refused, even if a
more lenient parser would accept it, because requests are smuggled where two parsers read one body
differently.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from shared.errors import CallerError
from shared.process.head import RequestRefused

if TYPE_CHECKING:
    from shared.process.head import Head

# Of one body, unless they have that many bytes on average: 256 kB in chunks of one byte took 90 ms.
MAX_CHUNKS = 4096
SMALL_CHUNK = 64
MAX_CHUNK_LINE = 256  # bytes of a chunk's size with its extensions
MAX_TRAILER = 8 * 1024  # bytes of all trailer lines

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n")


class InvalidBody(CallerError, ValueError):
    """A chunked body that breaks RFC 9112 7.1."""


class Body(Protocol):
    """What is left of one body."""

    done: bool

    def take(self, data: bytes) -> int:
        """How many of these bytes belong to it. Raises `InvalidBody`."""
        ...


class Sized:
    """A body with a Content-Length of at least one byte."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def take(self, data: bytes) -> int:
        taken = min(len(data), self._left)
        self._left -= taken
        self.done = not self._left
        return taken


class Chunked:
    """A body with Transfer-Encoding: chunked."""

    def __init__(self) -> None:
        self.done = False
        self._chunks = self._bytes = 0
        self._data_left = 0  # bytes of the chunk, with the CRLF that ends it
        self._line = b""  # the beginning of a line that is not whole yet
        self._trailer_bytes = -1  # below 0 until the last chunk

    def take(self, data: bytes) -> int:
        at = 0
        while at < len(data) and not self.done:
            at = self._skip(data, at) if self._data_left else self._take_line(data, at)
        return at

    def _skip(self, data: bytes, at: int) -> int:
        end = min(len(data), at + self._data_left)
        # The last two bytes of what is left must be CR and LF, whichever read brings them.
        for place in range(max(at, at + self._data_left - 2), end):
            if data[place] != (0x0D if at + self._data_left - place == 2 else 0x0A):
                raise InvalidBody("a chunk does not end after its size")
        self._data_left -= end - at
        return end

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if len(self._line) > (MAX_CHUNK_LINE if self._trailer_bytes < 0 else MAX_TRAILER):
            raise InvalidBody("a line between chunks is too long")
        if not end:
            return len(data)
        line, self._line = self._line, b""
        if self._trailer_bytes < 0:
            self._begin_chunk(line)
        else:
            self._take_trailer(line)
        return end

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise InvalidBody("a chunk has no size")
        size = int(match[1], 16)
        self._chunks += 1
        self._bytes += size
        if self._chunks > MAX_CHUNKS and self._bytes < self._chunks * SMALL_CHUNK:
            raise InvalidBody("the body has too many small chunks")
        if size:
            self._data_left = size + 2
        else:
            self._trailer_bytes = 0

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if line == b"\r\n":
            self.done = True
        elif self._trailer_bytes > MAX_TRAILER or not _TRAILER_LINE.fullmatch(line):
            raise InvalidBody("what follows the last chunk is not a trailer")


def body_of(head: Head, max_bytes: int) -> Body | None:
    """The body that follows. httptools has already refused repeated lengths, and a length beside chunks."""
    if codings := head.tokens(b"transfer-encoding"):
        if [coding.lower() for coding in codings] != [
            b"chunked"
        ]:  # RFC 9112 6.1: nobody here would decode it
            raise RequestRefused(501, "transfer-coding", "The only transfer coding here is chunked.")
        return Chunked()
    lengths = head.values(b"content-length")
    length = int(lengths[0]) if lengths else 0
    if length > max_bytes:
        raise too_large(max_bytes)
    return Sized(length) if length else None


def too_large(max_bytes: int) -> RequestRefused:
    return RequestRefused(413, "content-too-large", f"A request has at most {max_bytes} bytes.")
