"""What a test must show when a safeguard is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.claims import missing
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable

FAILS = (AssertionError, TimeoutError)
SECONDS = 3.0  # for each condition that a test waits for; one that comes true takes a tenth


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come within some seconds counts as missing; tests with the safeguard are more patient."""
    monkeypatch.setattr(await_until, "__defaults__", (SECONDS,))


async def fails(test: Awaitable[None], behaviour: str) -> None:
    """It must fail because this behaviour is missing: any other failure proves something else."""
    with pytest.raises((*FAILS, ExceptionGroup)) as failure:
        await test
    error: BaseException = failure.value
    while isinstance(error, ExceptionGroup):  # a task group in between
        (error,) = error.exceptions
    assert isinstance(error, FAILS)
    if not missing(behaviour, error):
        raise error  # a failure that has nothing to do with this safeguard
