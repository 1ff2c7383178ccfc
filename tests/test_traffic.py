"""How much one client may send."""

from __future__ import annotations

import pytest

from receiver.transports.limits import Allowance
from receiver.transports.websocket.traffic import Traffic

ALLOWANCE = Allowance(frames_a_second=3, frames_a_heartbeat=5, bytes_a_second=100, bytes_a_heartbeat=150)


@pytest.mark.parametrize(
    ("frames", "exceeds"),
    [
        ([(1, 0)] * 3, False),
        ([(1, 0)] * 4, True),  # in one second
        ([(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)], False),
        ([(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)], True),  # in all
        ([(100, 0)], False),
        ([(60, 0), (41, 0)], True),
        ([(75, 0), (75, 1)], False),
        ([(75, 0), (76, 1)], True),
    ],
)
def test_frames_and_bytes_count_in_a_second_and_in_all(frames: list[tuple[int, int]], exceeds: bool) -> None:
    traffic = Traffic()
    for size, second in frames:
        assert not traffic.exceeds(ALLOWANCE)
        traffic.count_frame(size, second)
    assert traffic.exceeds(ALLOWANCE) is exceeds


def test_reads_that_begin_no_frame_count_in_all() -> None:
    traffic = Traffic()
    for _ in range(5):
        traffic.count_read()
    assert not traffic.exceeds(ALLOWANCE)
    traffic.count_read()
    assert traffic.exceeds(ALLOWANCE)
