"""Bodies that may be posted as a text."""

from __future__ import annotations

import pytest

from shared.problems import Problem
from shared.spring import event_of, posted_text


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", b"Hello, World", "Hello, World"),
        ("", b"no type", "no type"),
        ("application/x-www-form-urlencoded", b"a b=c&d%20e", "a b=c&d%20e"),  # curl -d: as it is
        (
            "application/json",
            b"raw, as the article's sender labels it",
            "raw, as the article's sender labels it",
        ),
        ('text/plain; charset="ISO-8859-1"', b"caf\xe9", "café"),
        ("Text/Plain;Charset=UTF-16LE", "ü".encode("utf-16-le"), "ü"),
        ("text/plain", "\n two\nlines ☕ ".encode(), "\n two\nlines ☕ "),
    ],
)
def test_text_is_taken_as_it_is(content_type: str, body: bytes, text: str) -> None:
    assert posted_text(content_type, body) == text


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"", 400),
        ("text/plain", b"a\0b", 400),
        ("text/plain", b"\xff\xfe", 400),
        ("text/plain;charset=utf-16", b"\xd8", 400),
        ("text/plain;charset=unicode_escape", b"x", 415),
        ("text/plain;charset=iso-8859-99", b"x", 400),
        ("multipart/form-data; boundary=x", b"--x", 415),
        ("application/octet-stream", b"x", 415),
    ],
)
def test_what_is_no_text_is_refused(content_type: str, body: bytes, status: int) -> None:
    with pytest.raises(Problem) as refusal:
        posted_text(content_type, body)
    assert refusal.value.status == status


def test_each_text_is_an_event_of_its_own() -> None:
    one, two = (event_of("/s", "topic:messages", "same") for _ in range(2))  # type: ignore[arg-type]
    assert one["id"] != two["id"]
    assert one["datacontenttype"] == "text/plain"
