"""An event stream's lines. HTML 9.2.6.

A field ends with its line, so a text of several lines becomes several `data` fields, which clients join.
"""

from __future__ import annotations

import re

COMMENT = b":\n\n"  # clients pass it over; proxies and dead sockets don't

_LINE_END = re.compile(rb"\r\n|\r|\n")


def event(text: bytes, *, id: bytes = b"", kind: bytes = b"", retry_ms: int | None = None) -> bytes:
    """Without `kind` it is a "message", what a page's `onmessage` gets."""
    if b"\n" in text or b"\r" in text:
        text = b"\ndata: ".join(_LINE_END.split(text))
    if id and not kind and retry_ms is None:  # as nearly all are
        return b"".join((b"id: ", id, b"\ndata: ", text, b"\n\n"))
    fields = b"data: " + text + b"\n\n"
    if kind:
        fields = b"event: %b\n%b" % (kind, fields)
    if id:
        fields = b"id: %b\n%b" % (id, fields)
    if retry_ms is not None:
        fields = b"retry: %d\n%b" % (retry_ms, fields)
    return fields
