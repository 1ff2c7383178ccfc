"""What every test of catching up runs in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from receiver.feeds import catch_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(autouse=True)
def time_of_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a clock, so that a seed is the same run each time."""
    monkeypatch.setattr(catch_up, "_GATHER_SECONDS", 0)
    monkeypatch.setattr(catch_up, "_GATHER_HISTORY_SECONDS", 0)


@pytest.fixture
async def running() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
