"""OpenTelemetry traces, if `ORDERBELL_TRACES` asks for them; otherwise OpenTelemetry is not imported.

Every event carries a `traceparent` (W3C Trace Context), with or without tracing. With tracing, it names the
span of the request that recorded the event, and later steps belong to the same trace:

    POST /orders/{order_id}/complete   sender, below the caller's span
      database                         sender
    deliver                            gateway, below the request's span: the event has left for browsers
    publish                            sender, a trace of its own: a batch of events, linked to each

There is no span for a socket. OpenTelemetry's own `OTEL_…` variables set exporters, endpoints and samplers;
`OTEL_TRACES_EXPORTER=console` prints spans. No span has a customer, an order or a payload.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from shared import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanContext

_BEGINNING = 4096  # bytes of an event in which its attributes are
_TRACEPARENT = re.compile(rb'"traceparent":"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"')
_SAMPLED = re.compile(rb'"traceparent":"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf])"')
_ID = re.compile(rb'"id":"((?:[^"\\]|\\.)*)"')
_MAX_LINKS = 128
_MAX_PER_SECOND = 100  # deliveries that a gateway records


class Tracing:
    """(If OpenTelemetry is not installed, shared/settings reports it.)

    Tests pass an `exporter`; usually the environment names one.
    """

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        self._api = trace
        name = os.environ.get("OTEL_SERVICE_NAME") or f"orderbell-{service}"
        resource = Resource.create({"service.name": name, "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        if exporter is not None:
            self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        else:
            self._provider.add_span_processor(BatchSpanProcessor(_exporter()))
        self._tracer = self._provider.get_tracer("orderbell", __version__)
        self._second, self._left = 0, _MAX_PER_SECOND

    def close(self) -> None:
        """Send the remaining spans. Takes some seconds if the collector does not answer."""
        self._provider.shutdown()

    @contextmanager
    def request(self, method: str, traceparent: str) -> Iterator[Span]:
        """A request that is being answered; its name gets the route once that is known."""
        with self._tracer.start_as_current_span(
            method, context=self._context(traceparent), kind=self._api.SpanKind.SERVER
        ) as span:
            yield span

    @contextmanager
    def step(self, name: str, texts: Iterable[bytes] = ()) -> Iterator[None]:
        """A step of the current request, or without one a trace of its own; linked to these events."""
        contexts = filter(None, map(self._context_of, texts))
        links = [self._api.Link(context) for context, _ in zip(contexts, range(_MAX_LINKS), strict=False)]
        with self._tracer.start_as_current_span(name, links=links):
            yield

    def delivered(self, messages: Iterable[bytes]) -> None:
        """Live messages whose events have left for browsers. Beyond the limit, they cost nothing here."""
        for message in messages:
            if not self._has_room():
                return
            match = _SAMPLED.search(message, 0, _BEGINNING)
            context = self._parsed(match[1].decode()) if match else None
            if context is None:
                continue
            self._left -= 1
            found = _ID.search(message[:_BEGINNING])
            attributes = {"cloudevents.event_id": found[1].decode(errors="replace")} if found else {}
            self._tracer.start_span(
                "deliver",
                context=self._api.set_span_in_context(self._api.NonRecordingSpan(context)),
                kind=self._api.SpanKind.CONSUMER,
                attributes=attributes,
            ).end()

    def traceparent(self, span: Span) -> str:
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._left = second, _MAX_PER_SECOND
        return self._left > 0

    def _context_of(self, text: bytes) -> SpanContext | None:
        match = _TRACEPARENT.search(text[:_BEGINNING])
        return self._parsed(match[1].decode()) if match else None

    def _context(self, traceparent: str) -> Any:
        parsed = self._parsed(traceparent)
        if parsed is None:
            return None
        return self._api.set_span_in_context(self._api.NonRecordingSpan(parsed))

    def _parsed(self, traceparent: str) -> SpanContext | None:
        parts = traceparent.split("-")
        if len(parts) != 4:
            return None
        context = self._api.SpanContext(
            int(parts[1], 16),
            int(parts[2], 16),
            is_remote=True,
            trace_flags=self._api.TraceFlags(int(parts[3], 16)),
        )
        return context if context.is_valid else None


@asynccontextmanager
async def tracing(service: str, *, enabled: bool) -> AsyncIterator[Tracing | None]:
    """None if not enabled. At the end, waiting spans are sent, or dropped after some seconds."""
    if not enabled:
        yield None
        return
    traces = Tracing(service)
    try:
        yield traces
    finally:
        await asyncio.to_thread(traces.close)


def _exporter() -> SpanExporter:
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
