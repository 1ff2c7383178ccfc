"""What a test must show where a safeguard is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.claims import missing
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable

FAILS = (AssertionError, TimeoutError)
SECONDS = 3.0  # for each condition that a test waits for; one that is held takes a tenth


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing for some seconds is taken for missing; where it must hold, tests are more patient."""
    monkeypatch.setattr(await_until, "__defaults__", (SECONDS,))


async def fails(test: Awaitable[None], behaviour: str) -> None:
    """It must fail for want of this behaviour: what fails elsewhere proves something else."""
    with pytest.raises((*FAILS, ExceptionGroup)) as failure:
        await test
    error: BaseException = failure.value
    while isinstance(error, ExceptionGroup):  # a task group in between
        (error,) = error.exceptions
    assert isinstance(error, FAILS)
    if not missing(behaviour, error):
        raise error  # another failure than this safeguard's
