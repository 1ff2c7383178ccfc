"""A whole HTTP answer as bytes, where no app answers: the edge's refusals, and what transports write."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from shared.process.date import date_now
from shared.process.security_headers import NO_STORE, NOSNIFF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.process.head import Header


def format_answer(status: int, headers: Sequence[Header], body: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
    given = dict(headers)
    ours = (NOSNIFF,) if status == 304 else (NOSNIFF, NO_STORE)
    all_headers = [date_now(), *headers, *(one for one in ours if one[0] not in given)]
    lines += [name + b": " + value for name, value in all_headers]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def format_refusal(status: int, kind: str, detail: str) -> bytes:
    """A problem in place of an answer, after which the connection ends."""
    members = {
        "type": f"urn:orderbell:problem:{kind}",
        "title": kind.replace("-", " ").capitalize(),  # as in shared/problems.py
        "status": status,
        "detail": detail,
    }
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    return format_answer(status, headers, msgspec.json.encode(members))
