"""The answer to a poll: one shape, whether something came or not.

    {"events": [the events, in their order], "notices": [the gateway's own messages], "cursor": "…"}

Notices come before the events of the same answer. An end is an HTTP status with a problem; only if something
came before it, it is the notice `orderbell.end`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from receiver.connections.connection import End
from receiver.connections.notices import Hello
from receiver.transports.http import refusal
from receiver.transports.polling.poll import Page
from shared.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from receiver.transports.polling.poll import Poll
    from shared.problems import Problem
    from shared.process.head import Header


class Answer(NamedTuple):
    status: int
    headers: list[Header]
    body: bytes


def answer_to(poll: Poll, known: str | None = None) -> Answer:
    """The answer with what waits, which then counts as delivered. `known`: a plain poll's If-None-Match."""
    page = poll.take()
    end, poll.final = (poll.final, None) if poll.is_empty else (None, poll.final)
    poll.answered()
    if end is not None and not (page.events or page.notices):
        # More came at once than may wait: the client's next request finds everything by the cursor.
        slow = end is End.SLOW and poll.cursor
        return nothing(poll.cursor) if slow else _of(refusal(end, poll.ending.reason))
    return _of_page(page, poll.cursor) if known is None else _unless_known(page, poll.cursor, known)


def nothing(cursor: str) -> Answer:
    return _of_page(Page(), cursor)


def _of(problem: Problem) -> Answer:
    own = [(name.encode(), value.encode()) for name, value in (problem.headers or {}).items()]
    body = msgspec.json.encode(problem.members())
    return Answer(problem.status, [(b"content-type", MEDIA_TYPE.encode()), *own], body)


def _of_page(page: Page, cursor: str) -> Answer:
    return Answer(200, [*_TYPE, (b"cache-control", b"no-store")], _body(page, cursor))


_TAG = re.compile(r'"[^"]*"')


def _unless_known(page: Page, cursor: str, known: str) -> Answer:
    """304 if the client already has the same answer. RFC 9110 13.1.2: tags are compared weakly, so that a
    proxy may have made it a strong one; `*` is any answer.
    """
    etag = _etag(page, cursor)
    # Caches must ask again each time, and shared ones must not store it.
    headers: list[Header] = [(b"etag", etag), (b"cache-control", b"private, no-cache")]
    if known.strip() == "*" or etag.decode().removeprefix("W/") in _TAG.findall(known):
        return Answer(304, headers, b"")
    return Answer(200, [*_TYPE, *headers], _body(page, cursor))


_TYPE: list[Header] = [(b"content-type", b"application/json")]


def _body(page: Page, cursor: str) -> bytes:
    events = b",".join(page.events)
    notices = b",".join([notice.cloud_event for notice in page.notices])
    # A cursor has no character that JSON escapes (shared/channels.py).
    return b'{"events":[%b],"notices":[%b],"cursor":"%b"}' % (events, notices, cursor.encode())


def _etag(page: Page, cursor: str) -> bytes:
    """Weak, because notices get a new id and time with each answer but mean the same, as does a hello of
    another gateway.
    """
    digest = hashlib.blake2b(cursor.encode(), digest_size=12)
    for notice in page.notices:
        same = replace(notice, gateway="") if isinstance(notice, Hello) else notice
        digest.update(same.type.encode() + same.data)
    for event in page.events:
        digest.update(event)
    return b'W/"%b"' % digest.hexdigest().encode()
