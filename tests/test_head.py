"""A head's amounts: what would cost its readers more than a small request does is refused unread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.process.head import (
    MAX_ESCAPES,
    MAX_MEMBERS,
    MAX_PATH,
    RequestRefused,
    normalise,
    parse_head,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def head(*lines: bytes, target: bytes = b"/") -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: x", *lines, b"", b""])


def refusal(raw: bytes) -> int | None:
    try:
        normalise(parse_head(raw), b"")
    except RequestRefused as refused:
        return refused.status
    return None


@pytest.mark.parametrize(
    ("head_of", "most", "status"),
    [
        (lambda n: head(b"Accept: a/b" + b",a/b" * n), MAX_MEMBERS - 1, 431),
        (lambda n: head(b"Accept: a/b" + b";q=0" * n), MAX_MEMBERS - 1, 431),
        (lambda n: head(*[b"Accept: ,,,"] * 80, b"ACCEPT: " + b"," * n), MAX_MEMBERS - 241, 431),
        (lambda n: head(b"Cookie: a=b" + b";a=b" * n), MAX_MEMBERS - 1, 431),
        (lambda n: head(target=b"/?a" + b"&a" * n), MAX_MEMBERS - 1, 414),
        (lambda n: head(target=b"/?" + b"%41" * n), MAX_ESCAPES, 414),
        (lambda n: head(target=b"/" + b"x" * n), MAX_PATH - 1, 414),
    ],
    ids=["list", "parameters of a member", "many lists", "cookies", "query", "escapes", "path"],
)
def test_one_more_of_what_is_costly_to_read_is_refused(
    head_of: Callable[[int], bytes], most: int, status: int
) -> None:
    assert refusal(head_of(most)) is None
    assert refusal(head_of(most + 1)) == status


def test_cookie_of_another_program_may_hold_any_number_of_commas() -> None:
    assert refusal(head(b"Cookie: basket=" + b"1," * 4 * MAX_MEMBERS, b"X-A: b")) is None


def test_as_many_cursors_as_a_client_may_send_are_accepted_with_their_names_encoded_twice() -> None:
    cursors = b",".join(b"topic:" + b"%25D0%25B0" * 20 + b"=1.%d" % n for n in range(100))
    assert refusal(head(b"Last-Event-ID: " + cursors, target=b"/events?after=" + cursors)) is None
