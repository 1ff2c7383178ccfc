"""Waiting for a condition, so that no test sleeps for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

TIMEOUT_SECONDS = 30.0  # of a machine that runs several tests side by side
_SOON, _LATER = 0.01, 0.05  # between two looks; each may cost a request, or some milliseconds of a browser


def wait_until(condition: Callable[[], T], timeout: float = TIMEOUT_SECONDS) -> T:
    """The condition's first true value. Raises `TimeoutError` with the condition's name."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {_name(condition)}; last value: {value!r}")
        time.sleep(_pause(deadline - timeout))
    return value


@overload
async def await_until(condition: Callable[[], Awaitable[T]], timeout: float = ...) -> T: ...  # noqa: ASYNC109
@overload
async def await_until(condition: Callable[[], T], timeout: float = ...) -> T: ...  # noqa: ASYNC109
async def await_until(
    condition: Callable[[], Any],
    timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109 - it names the condition when it fails
) -> Any:
    """`wait_until` for tests with a loop; the condition may be async."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {_name(condition)}; last value: {value!r}")
        await asyncio.sleep(_pause(deadline - timeout))


def _pause(began: float) -> float:
    """A tenth of the time that was waited already."""
    return min(max(_SOON, (time.monotonic() - began) / 10), _LATER)


def _name(condition: Callable[..., object]) -> str:
    name = getattr(condition, "__qualname__", repr(condition))
    if name.endswith("<lambda>"):
        return inspect.getsource(condition).strip()
    return str(name)
