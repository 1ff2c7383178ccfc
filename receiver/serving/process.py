"""One gateway's process: builds everything, serves until a signal comes, and closes everything."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol

import httpx2
import structlog
from prometheus_client import REGISTRY
from uvicorn.loops.auto import auto_loop_factory

from receiver import metrics
from receiver.access.admission import Admission, load_hook
from receiver.access.authentication import Authentication
from receiver.access.origins import Origins
from receiver.access.tickets import Tickets
from receiver.access.verifier import create_verifier
from receiver.canary import Canary, Pace
from receiver.feeds.history import History
from receiver.gateway import Gateway
from receiver.inquiries import Inquiries
from receiver.pages.development import Development
from receiver.sender_line import SenderLine
from receiver.serving.app import create_app
from receiver.serving.readiness import Readiness
from receiver.transports.stomp.endpoint import StompTransport
from receiver.transports.stomp.spring import Spring
from receiver.transports.websocket.endpoint import WebSocketTransport
from shared.process.exposition import expose
from shared.process.garbage import spare_what_lives
from shared.process.limits import Limits
from shared.process.logs import configure_logs, set_level
from shared.process.metrics_listener import MetricsListener
from shared.process.sampled import Sampled
from shared.process.server import Server, Service, raise_file_limit
from shared.process.tracing import tracing
from shared.process.ways import ways
from shared.redis.connect import connect, pipelines_to
from shared.redis.inquiries import Answerer
from shared.redis.keys import Names
from shared.redis.signatures import Signatures

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from shared.process.exposition import Exposition
    from shared.settings import ReceiverSettings

BODY_BYTES = 256 * 1024  # of a request; the largest lists ids to be marked as read

logger = structlog.get_logger(__name__)


class Watcher(Protocol):
    """What a worker reports to its supervisor."""

    def alive(self) -> None:
        """Called about once a second, while the worker's loop turns."""

    def leaving(self) -> None:
        """Called when the worker accepts no more connections."""


def name_of(listening: socket.socket) -> str:
    address = listening.getsockname()
    return f"{socket.gethostname()}:{address if isinstance(address, str) else address[1]}"


def signatures_of(settings: ReceiverSettings) -> Signatures:
    """The signatures by which this gateway recognises what its own services put into Redis."""
    sampled = Sampled(logger)

    def reject(kind: str) -> None:
        metrics.unauthentic.labels(kind).inc()
        sampled.warning("values in redis are rejected: their signature is missing or wrong", kind=kind)

    return Signatures.of(settings.live_keys, reject)


def run(
    settings: ReceiverSettings,
    listening: socket.socket,
    *,
    name: str,
    registry: CollectorRegistry = REGISTRY,
    watcher: Watcher | None = None,
    level: str | None = None,
) -> None:
    """`registry`: the metrics that /metrics shows. `watcher` is given if a supervisor watches; the next
    worker then takes the socket over. `level`: of the log, if it is not that of the settings now.
    """
    lines = configure_logs(
        settings.log_format, settings.log_level, "receiver", channels=settings.log_channels
    )
    ways.share = settings.log_events
    if level is not None:
        set_level(level)
    lines.dropped = metrics.log_lines_dropped.inc
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(serve(settings, listening, name=name, registry=registry, watcher=watcher))


async def serve(
    settings: ReceiverSettings,
    listening: socket.socket,
    *,
    name: str,
    registry: CollectorRegistry,
    watcher: Watcher | None,
) -> None:
    """Build everything, and end everything on return."""
    tls = settings.tls
    sender_client = httpx2.AsyncClient(
        base_url=str(settings.sender_url),
        headers={"authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"},
        timeout=5,
        trust_env=False,  # a company's outbound proxy is not for the way to its own sender
        verify=tls,
    )
    sender_line = SenderLine(str(settings.sender_url), settings.api_keys[0].get_secret_value(), tls=tls)
    async with (
        # No retries: while Redis fails, the sender's history is asked instead.
        connect(settings.redis_url, retries=0) as redis,
        pipelines_to(redis) as pipelines,
        sender_client as sender,
        sender_line as line,
        create_verifier(settings) as verifier,
        tracing("receiver", enabled=settings.traces) as traces,
    ):
        names = Names.of(settings.redis_url, settings.key_prefix)
        signatures = signatures_of(settings)
        tickets = Tickets(pipelines, names, signatures, per_minute=settings.tickets_per_minute)
        authentication = Authentication(verifier, tickets, cookie=settings.jwt_cookie)
        gateway = Gateway(
            redis,
            pipelines,
            History(line),
            authentication,
            settings,
            name=name,
            signatures=signatures,
            tracing=traces,
        )
        development = Development(settings, authentication, sender) if settings.development else None
        origins = Origins(settings.allowed_origins)
        admission = Admission(load_hook(settings.admit), settings.admit_seconds) if settings.admit else None
        websocket = WebSocketTransport(gateway, authentication, origins, admission)
        spring = Spring(sender, origins) if settings.spring_compat else None
        stomp = StompTransport(gateway, authentication, origins, admission, spring)
        readiness = Readiness(
            line,
            str(settings.sender_url),
            hears=lambda: gateway.hears and not gateway.keeper.sources.behind,
            unable=lambda: verifier.unable,
        )
        canaries = []
        if settings.canary_seconds:
            canaries.append(Canary(gateway.keeper, sender, name, Pace(settings.canary_seconds)))
        inquiries = Inquiries(
            gateway, Answerer(pipelines, names, signatures), lambda: readiness.reasons.values()
        )
        app = create_app(
            gateway,
            readiness,
            authentication,
            tickets,
            origins,
            development,
            None if settings.metrics_listen else registry,
            admission,
            spring,
            lists_per_minute=settings.lists_per_minute,
            polls_per_minute=settings.polls_per_minute,
        )

        async def exposition(accept: str) -> Exposition:
            return expose(registry, accept)

        def close() -> None:
            gateway.draining = True
            logger.info("draining", connections=gateway.clock.count, seconds=settings.drain_seconds)
            if watcher is not None:
                watcher.leaving()

        service = Service(
            app,
            settings.forwarded_allow_ips,
            lambda kind: metrics.requests_refused.labels(kind).inc(),
            limits=Limits.of(
                settings,
                body_bytes=BODY_BYTES,
                connections=raise_file_limit(settings.max_connections) // 2,
            ),
            root_path=settings.root_path,
            hsts_seconds=settings.hsts_seconds,
            take=lambda head, edge: websocket.take(head, edge) or stomp.take(head, edge),
            leaving=readiness.drain,  # before any connection is ended
            ready_delay_seconds=settings.ready_delay_seconds,
            closed=close,
            drain=lambda: gateway.drain(settings.drain_seconds),
            successor=watcher is not None,
            alive=watcher.alive if watcher is not None else lambda: None,
        )
        if spring is not None:
            logger.warning("ORDERBELL_SPRING_COMPAT: anybody may read every topic and send to /app/hello")
        metrics.describe(settings)
        spare_what_lives()
        # A task that dies takes the process with it, loudly: otherwise it would look alive and hear nothing.
        metrics_at = MetricsListener(exposition).serve(settings.metrics_listen, shared=watcher is not None)
        async with metrics_at, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(part.run())
                for part in (gateway, readiness, inquiries, *((spring,) if spring else ()), *canaries)
            ]
            await Server(service).serve(sockets=[listening])
            for task in running:
                task.cancel()
