"""An event stream's lines."""

from __future__ import annotations

import pytest

from receiver.transports.sse.fields import event, placed


def test_event_has_its_id_and_its_text_and_ends_with_an_empty_line() -> None:
    assert event(b"{}", id=b"customer:alice=1.42") == b"id: customer:alice=1.42\ndata: {}\n\n"


def test_event_may_have_a_kind_and_say_when_to_come_back() -> None:
    assert event(b"{}", kind=b"orderbell.bye", retry_ms=700) == (
        b"retry: 700\nevent: orderbell.bye\ndata: {}\n\n"
    )


@pytest.mark.parametrize("text", [b'{"a":\n1}', b'{"a":\r\n1}', b'{"a":\r1}'])
def test_text_of_several_lines_is_several_fields(text: bytes) -> None:
    assert event(text) == b'data: {"a":\ndata: 1}\n\n'


@pytest.mark.parametrize("text", [b"{}", b'{"a":\n1}', b'{"a":\r\n1}', b'{"a":\r1}'])
def test_event_with_its_place_is_the_event_with_that_cursor_as_its_id(text: bytes) -> None:
    assert placed(b"customer:alice", 1, 42, text) == event(text, id=b"customer:alice=1.42")
