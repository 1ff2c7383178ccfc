"""Lines that clients can cause: the first few, then a count."""

from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs

from shared.process.sampled import Sampled
from tests.waiting import await_until


@pytest.mark.anyio
async def test_the_first_lines_of_a_kind_are_logged_and_the_others_counted() -> None:
    with capture_logs() as lines:
        sampled = Sampled(structlog.get_logger("x"), seconds=0.05, lines=3)
        for n in range(10):
            sampled.info("closed", kind="1006", n=n)
        sampled.info("closed", kind="1000", n=10)
        assert [line["n"] for line in lines] == [0, 1, 2, 10]

        def logged_again() -> bool:
            sampled.info("closed", kind="1006")
            return "more" in lines[-1]

        await await_until(logged_again)
    assert lines[-1]["more"] >= 7
