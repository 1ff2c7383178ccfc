"""An event stream's lines. HTML 9.2.6.

A field ends with its line, so a text of several lines becomes several `data` fields, which clients join.
"""

from __future__ import annotations

import re

# Ignored by clients, but it keeps proxies awake and reveals dead sockets. No empty line follows: httpx-sse
# takes one for the end of an event without data.
COMMENT = b":\n"

# As numbers, because searching for them takes a tenth of the time that bytes objects of length one take.
_CR, _LF = b"\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def event(text: bytes, *, id: bytes = b"", kind: bytes = b"", retry_ms: int | None = None) -> bytes:
    """Without `kind` it is a "message", which a page's `onmessage` gets."""
    if _CR in text or _LF in text:
        text = b"\ndata: ".join(_LINE_END.split(text))
    if id and not kind and retry_ms is None:  # as nearly all are
        return b"id: %b\ndata: %b\n\n" % (id, text)
    fields = b"data: " + text + b"\n\n"
    if kind:
        fields = b"event: %b\n%b" % (kind, fields)
    if id:
        fields = b"id: %b\n%b" % (id, fields)
    if retry_ms is not None:
        fields = b"retry: %d\n%b" % (retry_ms, fields)
    return fields


def placed(channel: bytes, epoch: int, seq: int, text: bytes) -> bytes:
    """As `event`, for an event whose `id` is the cursor of a single channel. Made once for each event."""
    if _CR in text or _LF in text:
        text = b"\ndata: ".join(_LINE_END.split(text))
    return b"id: %b=%d.%d\ndata: %b\n\n" % (channel, epoch, seq, text)
