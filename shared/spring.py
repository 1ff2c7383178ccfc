"""Answers as two Spring applications give them, for pages and callers that were written for those.

With ORDERBELL_SPRING_COMPAT=1 Orderbell replaces the application of Spring's guide "Using WebSocket to build
an interactive web application" and the pair of the article on two applications:

| a caller or a page sends                          | everybody at the topic gets                    |
|---------------------------------------------------|------------------------------------------------|
| `POST /submit` with a text                        | `/topic/messages`: `Received message: …`       |
| SEND `/app/hello` with a text (the article's)     | `/topic/messages`: `Submitted message: …`      |
| SEND `/app/hello` with `{"name": …}` (the guide's) | `/topic/greetings`: `{"content": "Hello, …!"}` |

Each is an event of the topic like any other: it has a place, reaches every gateway, and is kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import uuid_utils

from shared.channels import topic_channel
from shared.problems import Problem

if TYPE_CHECKING:
    from shared.channels import Channel

TYPE = "spring.message"
MESSAGES = topic_channel("messages")
GREETINGS = topic_channel("greetings")

# The content types of callers of `POST /submit`. curl -d calls its text a form, and the article's own sender
# calls it JSON; neither is parsed.
_TEXTS = re.compile(r"text/[a-z0-9.+-]+|application/x-www-form-urlencoded|application/json|")
# Python has further codecs that are not character sets (idna, unicode_escape).
_CHARSETS = re.compile(
    r"utf-?8|utf-16(?:be|le)?|us-ascii|iso-8859-\d+|windows-125\d|shift_jis|euc-jp|euc-kr|gbk|gb18030|big5"
    r"|koi8-[ru]"
)


def event_of(source: str, channel: Channel, data: object) -> dict[str, Any]:
    """A CloudEvent for `POST /events`."""
    text = isinstance(data, str)
    return {
        "specversion": "1.0",
        "id": str(uuid_utils.uuid7()),
        "source": source,
        "type": TYPE,
        "datacontenttype": "text/plain" if text else "application/json",
        "channel": channel,
        "data": data,
    }


def received_text(text: str) -> str:
    """The text that everybody gets after one was posted."""
    return f"Received message: {text}"


def submitted_text(text: str) -> str:
    """The text that everybody gets after a page has sent one."""
    return f"Submitted message: {text}"


def posted_text(content_type: str, body: bytes) -> str:
    """The text in a body of `POST /submit`. Raises `Problem`."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    if not _TEXTS.fullmatch(kind.lower()):
        raise Problem(415, "unsupported-media-type", f"Send text/plain, not {kind[:80]}.")
    given = dict(parameter.lower().partition("=")[::2] for parameter in parameters)
    return decoded(body, given.get("charset", "").strip('"') or "utf-8")


def decoded(body: bytes, charset: str) -> str:
    """Raises `Problem`."""
    if not _CHARSETS.fullmatch(charset):
        raise Problem(415, "unsupported-media-type", f"The charset {charset[:40]!r} is not supported.")
    try:
        text = body.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise Problem(400, "invalid-body", f"The body is not {charset}.") from None
    if not text:
        raise Problem(400, "invalid-body", "The body is empty; send a text.")
    if "\0" in text:  # the page's STOMP client would take it for the end of its frame
        raise Problem(400, "invalid-body", "A text has no NUL.")
    return text
