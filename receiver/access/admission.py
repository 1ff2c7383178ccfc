"""ORDERBELL_ADMIT=module:function: your own check of a handshake, on every transport.

The function gets a `Handshake` before the client is authenticated, and returns

* `True`: go on, authentication is next;
* `False`, a text, or `(False, text)`: refused with 403; the client sees the text as the reason.

It must return within ORDERBELL_ADMIT_SECONDS. An async function runs in the event loop; any other runs in a
thread: it may block, and must be thread-safe. Any other answer, an exception or a time-out is a fault; then
the handshake is refused with 503, because a broken gate must not stand open. The log gets the kind of the
fault and its line, never its text, which might quote a token.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog

from shared.errors import OperatorError
from shared.problems import Problem
from shared.process.sampled import Sampled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import HTTPConnection

THREADS = 8  # for functions that are not async
MAX_ASKED = 10_000  # calls that have not returned, late ones too: a hook that hangs must not fill the memory
MAX_REASON = 200  # characters

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client asks for, read-only. It may contain a token or a ticket: don't log it."""

    transport: str  # websocket, sse, polling, stomp, sockjs, sockjs-xhr
    method: str  # GET, or POST for some of SockJS's ways
    path: str  # as it was sent, without ORDERBELL_ROOT_PATH
    query: str  # after the question mark, as it was sent
    headers: Mapping[str, str]  # names in lower case; a repeated header's values are joined by ", "
    client: str  # its address, as the proxies of ORDERBELL_FORWARDED_ALLOW_IPS report it
    scheme: str  # http or https, as a trusted proxy reports it

    @classmethod
    def of(cls, request: HTTPConnection, transport: str) -> Handshake:
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        scope = request.scope
        path = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        return cls(
            transport,
            scope["method"],
            path.decode("latin-1"),
            query.decode("latin-1"),
            MappingProxyType(headers),
            request.client.host if request.client else "",
            scope["scheme"],
        )


class InvalidHook(OperatorError):
    """ORDERBELL_ADMIT does not name a function that takes a handshake."""


class _Failed(Exception):
    """A fault of the hook. The message is for the log."""


def load_hook(name: str) -> Callable[[Handshake], Any]:
    """Raises `InvalidHook`."""
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise InvalidHook(f"cannot import {module_name}: {_one_line(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InvalidHook(f"{module_name} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise InvalidHook(f"{name} is not a function")
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise InvalidHook(f"{name} must return its answer, not yield it")
    try:
        inspect.signature(found).bind(object())
    except (TypeError, ValueError):
        raise InvalidHook(f"{name} must take one argument, the handshake") from None
    hook: Callable[[Handshake], Any] = found
    return hook


class Admission:
    def __init__(
        self, hook: Callable[[Handshake], Any], seconds: float, *, max_asked: int = MAX_ASKED
    ) -> None:
        self._hook = hook
        self._seconds = seconds
        self._max_asked = max_asked
        self._waits = _is_async(hook)
        self._threads = _Threads()
        self._running: set[asyncio.Task[Any]] = set()
        self._sampled = Sampled(logger)

    @property
    def unended(self) -> int:
        """Calls that have not returned, in a thread or in the loop, even if their client has left."""
        return max(len(self._running), self._threads.busy)

    async def check(self, request: HTTPConnection, transport: str) -> None:
        """Returns if the client is admitted. Raises `Problem`."""
        try:
            refusal = _refusal_in(await self._ask(Handshake.of(request, transport)))
        except _Failed as fault:
            self._sampled.warning("ORDERBELL_ADMIT failed and the handshake was refused", fault=str(fault))
            later = {"retry-after": "2"}
            raise Problem(503, "admission-failed", "Try again in a moment.", later) from None
        if refusal is not None:
            raise Problem(403, "not-admitted", refusal)

    async def _ask(self, handshake: Handshake) -> object:
        """Raises `_Failed`."""
        if self.unended >= self._max_asked:
            raise _Failed(f"{self._max_asked} earlier calls have not ended")
        task = asyncio.get_running_loop().create_task(self._call(handshake))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait({task}, timeout=self._seconds)
        finally:
            task.cancel()  # no effect if it is done
        if not task.done():
            raise _Failed(f"no answer within {self._seconds:g} s")
        if task.cancelled():
            raise _Failed("it was cancelled")
        return task.result()

    async def _call(self, handshake: Handshake) -> object:
        """Raises `_Failed` for whatever the hook raises."""
        try:
            answer = self._hook(handshake) if self._waits else await self._threads.run(self._hook, handshake)
            return await answer if inspect.isawaitable(answer) else answer
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            raise _Failed(f"{type(error).__name__}{_place_of(error)}") from None


class _Threads:
    """A few threads, started when needed. They never keep the process from ending."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._count = 0
        self.busy = 0  # calls that have not ended or not begun

    def run(self, function: Callable[[Handshake], Any], argument: Handshake) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            self.busy -= 1
            if future.done():
                return  # its client has left
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, fault = None, None
            if not future.cancelled():  # it may have waited behind others for too long
                try:
                    result = function(argument)
                except StopIteration:  # a future can't carry it
                    fault = RuntimeError("StopIteration")
                except (Exception, SystemExit, KeyboardInterrupt) as error:
                    fault = error  # type: ignore[assignment] # whatever it is, it is raised for the caller
                except BaseException as error:  # a cancellation, which would look like the caller's own
                    fault = RuntimeError(type(error).__name__)
            try:
                loop.call_soon_threadsafe(settle, result, fault)
            except RuntimeError:
                pass  # the loop has ended

        self.busy += 1
        if self.busy > self._count and self._count < THREADS:
            self._count += 1
            threading.Thread(target=self._serve, name=f"admit-{self._count}", daemon=True).start()
        self._work.put(work)
        return future

    def _serve(self) -> None:
        while True:
            self._work.get()()


def _is_async(hook: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
        getattr(hook, "__call__", None)  # noqa: B004 - an object whose call is async
    )


def _refusal_in(answer: object) -> str | None:
    """The reason; None if the client is admitted. Raises `_Failed`."""
    match answer:
        case True | (True, _):
            return None
        case False | (False, None):
            reason = ""
        case str(text) | (False, str(text)):
            reason = text
        case _:
            raise _Failed(f"it answered {type(answer).__name__}, not True, False or a text")
    shown = "".join(character if character.isprintable() else " " for character in reason[:MAX_REASON])
    return shown.strip() or "This client is not admitted."


def _place_of(error: BaseException) -> str:
    """Where it was raised; its text may quote what the client sent."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return f" at {Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""


def _one_line(error: BaseException) -> str:
    lines = str(error).split("\n")
    return f"{type(error).__name__}: {lines[0]}"[:MAX_REASON]
