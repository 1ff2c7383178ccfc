"""Reading metrics as Prometheus does: over restarts, and by the worst moment."""

from __future__ import annotations

import pytest

from tests.chaos.figures import Figures, parse


def text(opened: int, refused: int, up_to_half: int, up_to_one: int, in_all: int) -> str:
    return f"""# TYPE orderbell_connections_opened_total counter
orderbell_connections_opened_total{{transport="websocket"}} {opened}.0
orderbell_connections_opened_total{{transport="sse"}} 1.0
orderbell_handshakes_refused_total{{reason="overloaded"}} {refused}.0
orderbell_order_to_frame_seconds_bucket{{le="0.5",transport="websocket"}} {up_to_half}.0
orderbell_order_to_frame_seconds_bucket{{le="1.0",transport="websocket"}} {up_to_one}.0
orderbell_order_to_frame_seconds_bucket{{le="+Inf",transport="websocket"}} {in_all}.0
orderbell_order_to_frame_seconds_bucket{{le="0.5",transport="sse"}} 0.0
orderbell_order_to_frame_seconds_bucket{{le="1.0",transport="sse"}} 0.0
orderbell_order_to_frame_seconds_bucket{{le="+Inf",transport="sse"}} 0.0
"""


@pytest.fixture
def figures() -> Figures:
    return Figures([])


def test_connects_are_the_most_that_one_gateway_took_in_a_second(figures: Figures) -> None:
    for at, opened in ((0, 100), (2, 140), (3, 150)):
        figures.add("a", parse(text(opened, 0, 0, 0, 0), at))
        figures.add("b", parse(text(opened // 10, 0, 0, 0, 0), at))
    assert figures.connects == 20


def test_gateway_that_was_restarted_counts_from_the_beginning(figures: Figures) -> None:
    for at, opened, in_all in ((0, 100, 50), (1, 110, 60), (5, 14, 4), (6, 24, 5)):
        figures.add("a", parse(text(opened, 2, in_all, in_all, in_all), at))
    assert figures.connects == 15  # not spread over the time in which it was away
    assert figures.frames == 10 + 4 + 1
    assert figures.refused == 2


def test_one_bad_moment_shows_though_the_whole_run_was_good(figures: Figures) -> None:
    figures.add("a", parse(text(0, 0, 0, 0, 0), 0))
    figures.add("a", parse(text(0, 0, 1000, 1000, 1000), 5))
    figures.add("a", parse(text(0, 0, 1000, 1000, 1003), 15))
    assert figures.quantile(0.99) == 0.5
    assert figures.worst_quantile(0.99) == float("inf")
