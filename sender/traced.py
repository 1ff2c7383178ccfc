"""The sender's parts with a span around them, used only where `ORDERBELL_TRACES` asks for traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from starlette.datastructures import Headers

from shared.events import is_traceparent
from shared.redis.channel_log import LogWriter
from shared.redis.signatures import NO_SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sender.database.protocol import Database, Pool
    from shared.channels import Channel
    from shared.events import Entry
    from shared.process.tracing import Tracing
    from shared.redis.channel_log import Published
    from shared.redis.connect import AnyPipelines
    from shared.redis.keys import Names
    from shared.redis.signatures import Signatures

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

_QUIET = ("/livez", "/readyz", "/metrics")


class TracedRequests:
    """A span for each request; events recorded in it carry it as their `traceparent`."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("traceparent", "")
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._tracing.request(scope["method"], given if is_traceparent(given) else "") as span:
            scope.setdefault("state", {})["traceparent"] = self._tracing.traceparent(span)
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                route = getattr(scope.get("route"), "path", "none")
                span.update_name(f"{scope['method']} {route}")
                span.set_attributes(
                    {
                        "http.request.method": scope["method"],
                        "http.route": route,
                        "http.response.status_code": status,
                    }
                )


class TracedDatabase:
    """A `Database` with a span around what requests write."""

    def __init__(self, database: Database, tracing: Tracing) -> None:
        self._database = database
        self._tracing = tracing
        self.read, self.check = database.read, database.check
        self.return_space = database.return_space
        self.hurry, self.abandon = database.hurry, database.abandon
        self.write_when_idle = database.write_when_idle

    @property
    def pool(self) -> Pool:
        return self._database.pool

    async def write(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        with self._tracing.step("database"):
            return await self._database.write(work, patient=patient)

    async def write_together(
        self, work: Callable[[Connection, Sequence[I]], Sequence[R | Exception]], item: I, *, size: int = 1
    ) -> R:
        with self._tracing.step("database"):
            return await self._database.write_together(work, item, size=size)


class TracedLogWriter(LogWriter):
    """A span for each batch, linked to its events."""

    def __init__(
        self,
        pipelines: AnyPipelines,
        names: Names,
        tracing: Tracing,
        signatures: Signatures = NO_SIGNATURES,
    ) -> None:
        super().__init__(pipelines, names, signatures)
        self._tracing = tracing

    async def publish(
        self, batches: Sequence[tuple[Channel, Sequence[Entry]]], *, restart: bool = False
    ) -> list[Published]:
        with self._tracing.step("publish", (entry.text for _, entries in batches for entry in entries)):
            return await super().publish(batches, restart=restart)
