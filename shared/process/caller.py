"""The caller of a request: whether it still waits for its answer.

Work that has not begun when its caller leaves is not done: under overload callers give up and come again, and
a service that works for those that have left has no time for the others. So whatever queues work for a
request (`sender.database`, `sender.lane`) takes it out of its queue when the caller leaves. Work that has
begun goes on: a transaction that is committed has effects beyond its answer.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from shared.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


class CallerLeft(CallerError):
    """The caller has left, and what it asked for was not begun."""

    def __init__(self) -> None:
        super().__init__("the caller ended its connection before this was begun; send the request again")


class Caller:
    """One for each connection; a caller that has left does not come back."""

    __slots__ = ("_acts", "left")

    def __init__(self) -> None:
        self.left = False
        self._acts: set[Callable[[], None]] = set()

    def leave(self) -> None:
        """It has left: call everything that waits for this."""
        if not self.left:
            self.left = True
            for act in tuple(self._acts):
                act()

    def call_when_left(self, act: Callable[[], None]) -> None:
        """Calls it at once if the caller has left already."""
        self._acts.add(act)
        if self.left:
            act()

    def forget(self, act: Callable[[], None]) -> None:
        self._acts.discard(act)


# Of the request that the current task answers. Tasks inherit it, so work for many requests must not ask it.
caller_now: ContextVar[Caller | None] = ContextVar("caller_now", default=None)


def require_caller(caller: Caller | None) -> None:
    """Raises `CallerLeft`. Called when a wait is over, before the work begins."""
    if caller is not None and caller.left:
        raise CallerLeft


def go_on_without_caller() -> None:
    """Finish what the request has begun, even if its caller leaves."""
    caller_now.set(None)


class KnowCaller:
    """Sets `caller_now` for each request that came through an edge."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    # Not a coroutine: that would cost as much as the work itself.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        edge = scope.get("state", {}).get("edge")
        if edge is not None:
            caller_now.set(edge.caller)
        return self._app(scope, receive, send)
