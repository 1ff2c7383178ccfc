from __future__ import annotations

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from receiver.transports.websocket.frames import PING, close_frame, text_frame


def parse(data: bytes) -> Frame:
    """As a browser would: by the websockets library, from the client's side."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN, max_size=None)
    client.receive_data(data)
    [frame] = client.events_received()
    assert isinstance(frame, Frame)
    return frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_text_of_any_size_is_one_whole_frame(size: int) -> None:
    frame = parse(text_frame(b"x" * size))
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, b"x" * size)


def test_ping_is_a_ping() -> None:
    assert parse(PING).opcode is Opcode.PING


@pytest.mark.parametrize("reason", ["", "too slow", "ü" * 200, "€" * 200])
def test_close_reason_is_cut_at_a_whole_character(reason: str) -> None:
    frame = parse(close_frame(4408, reason))
    assert int.from_bytes(frame.data[:2], "big") == 4408
    told = bytes(frame.data[2:]).decode()
    assert reason.startswith(told)
    assert len(frame.data) <= 125
