"""The end of a body is found however it is cut into reads."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.process.framing import (
    MAX_CHUNK_LINE,
    MAX_CHUNKS,
    MAX_TRAILER,
    SMALL_CHUNK,
    Body,
    Chunked,
    InvalidBody,
    Sized,
)

NEXT = b"GET / HTTP/1.1\r\n\r\n"


def taken(body: Body, pieces: list[bytes]) -> int:
    """How many of all bytes belong to the body; unlike the edge, this offers the rest again."""
    count = 0
    for piece in pieces:
        if body.done:
            break
        count += body.take(piece)
    return count


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(at)]


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c";d']))
    trailer = draw(st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc:\r\n"]))
    lines = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join(lines) + b"0\r\n" + trailer + b"\r\n"


@given(chunked(), st.lists(st.integers(0, 1000), max_size=12))
def test_chunked_body_ends_where_it_ends_however_it_is_cut(data: bytes, places: list[int]) -> None:
    body = Chunked()
    assert taken(body, cut(data + NEXT, places)) == len(data)
    assert body.done


@given(st.integers(1, 100), st.lists(st.integers(0, 1000), max_size=12))
def test_sized_body_ends_at_its_length(length: int, places: list[int]) -> None:
    body = Sized(length)
    assert taken(body, cut(b"x" * length + NEXT, places)) == length
    assert body.done


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\na\r\n",
        b"1\na\r\n",
        b"1 \r\na\r\n",
        b"1 ;a\r\na\r\n",
        b"1;a=\x01\r\na\r\n",
        b"1;a=\0\r\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n\r\n",
        b"1" * 16 + b"\r\n",
        b"1;" + b"x" * MAX_CHUNK_LINE,
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\na: \0\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * MAX_TRAILER,
    ],
)
def test_chunks_that_two_parsers_could_read_differently_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBody):
        Chunked().take(data)
    with pytest.raises(InvalidBody):
        taken(Chunked(), [data[place : place + 1] for place in range(len(data))])


def test_body_has_so_many_chunks_and_no_more() -> None:
    data = b"1\r\na\r\n" * (MAX_CHUNKS - 1)
    assert taken(Chunked(), [data, b"0\r\n\r\n"]) == len(data) + 5
    with pytest.raises(InvalidBody):
        taken(Chunked(), [data, b"1\r\na\r\n0\r\n\r\n"])


def test_large_body_has_as_many_chunks_as_it_needs_unless_they_are_small() -> None:
    small = b"%x\r\n%b\r\n" % (SMALL_CHUNK - 1, b"a" * (SMALL_CHUNK - 1))
    usual = b"%x\r\n%b\r\n" % (SMALL_CHUNK + 1, b"a" * (SMALL_CHUNK + 1))
    data = usual * (3 * MAX_CHUNKS) + b"0\r\n\r\n"
    assert taken(Chunked(), [data]) == len(data)
    with pytest.raises(InvalidBody):
        taken(Chunked(), [small * (3 * MAX_CHUNKS)])
