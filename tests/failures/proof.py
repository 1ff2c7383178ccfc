"""What a test must show where a safeguard is switched off."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable

FAILS = (AssertionError, TimeoutError)
SECONDS = 6.0  # for each condition that a test waits for; one that is held takes a tenth


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limit with a safeguard and without it: else a slow machine would prove that it is needed."""
    monkeypatch.setattr(await_until, "__defaults__", (SECONDS,))


async def fails(test: Awaitable[None], at: str) -> None:
    """It must fail, and in this statement: what fails elsewhere proves something else."""
    with pytest.raises((*FAILS, ExceptionGroup)) as failure:
        await test
    error: BaseException = failure.value
    while isinstance(error, ExceptionGroup):  # a task group in between
        (error,) = error.exceptions
    assert isinstance(error, FAILS)
    ran = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
    assert any(line.startswith(at) for line in ran), ran
