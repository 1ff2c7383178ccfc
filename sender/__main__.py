"""`python -m sender`: builds one sender and runs it until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import structlog
from uvicorn.loops.auto import auto_loop_factory

import orderbell_start  # noqa: F401 - before our other imports: it checks that they are ours
from sender import metrics
from sender.database.errors import DatabaseDamaged, DatabaseError, DatabaseUnusable
from sender.database.open import open_database
from sender.database.watched import WatchedDatabase
from sender.expiry import Expiry
from sender.http.api import Api
from sender.http.api_keys import ApiKeys, ApiKeysOfFile
from sender.http.app import create_app
from sender.http.leaving import Leaving
from sender.http.pages import OfficePage
from sender.http.reading import MAX_BATCH_BYTES
from sender.lifetimes import Lifetimes
from sender.peers import Peers
from sender.publishing.forgetting import Forgetting
from sender.publishing.relay import Relay
from sender.publishing.sweep import Sweep
from sender.retention import Retention
from sender.seen import SeenNotifier
from sender.traced import TracedDatabase, TracedLogWriter, TracedRequests
from sender.webhooks.courier import Target
from sender.webhooks.parts import webhooks_to
from shared import agreement
from shared.agreement import Agreement, announced
from shared.process.garbage import spare_what_lives
from shared.process.limits import Limits
from shared.process.listening import listening_on
from shared.process.logs import configure_logs
from shared.process.loop_lag import LoopLag
from shared.process.metrics_listener import MetricsListener
from shared.process.server import Server, Service, raise_file_limit
from shared.process.tracing import tracing
from shared.process.ways import ways
from shared.redis.channel_log import LogReader, LogWriter
from shared.redis.connect import connect, pipelines_to
from shared.redis.inquiries import Inquirer
from shared.redis.keys import Names
from shared.redis.signatures import Signatures
from shared.settings import SenderSettings, file_of, load, read

if TYPE_CHECKING:
    import socket

    from sender.database.protocol import Database

logger = structlog.get_logger(__name__)

PAGE = Path(__file__).parent / "http" / "page"
REQUESTS_END_SECONDS = 2  # together with the relay's second below, well within 5 from SIGTERM to the end
RELAY_END_SECONDS = 1
TASKS_END_SECONDS = 0.5  # a task that has not ended by then waits for a silent database
BODY_BYTES = 2 * MAX_BATCH_BYTES  # the API refuses what exceeds its own limits, and names the limit
# How long one thread may keep the others waiting. With Python's 5 ms, each step of a completion would wait
# that long for every read of the database that is under way.
SWITCH_SECONDS = 0.0005
FIRST_TURN_SECONDS = 0.5  # callers wait, and take it for a part of the start
CONNECTIONS = 1_000  # callers for which a sender needs open files


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; :: means all.")
@click.option("--port", default=8090, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--uds", type=click.Path(), help="Unix socket to listen on, in place of host and port.")
def main(host: str, port: int, uds: str | None) -> None:
    """Run the sender: HTTP in, database first, Redis behind it.

    Settings come from ORDERBELL_… environment variables. SIGTERM, SIGHUP or Ctrl-C ends it once pending
    requests are answered.
    """
    settings = load(SenderSettings, host=None if uds else host, port=0 if uds else port)
    metrics.describe(settings)
    lines = configure_logs(settings.log_format, settings.log_level, "sender", channels=settings.log_channels)
    ways.share = settings.log_events
    sys.setswitchinterval(SWITCH_SECONDS)
    lines.dropped = metrics.log_lines_dropped.inc
    with listening_on(host, port, uds) as listener:
        _run(settings, listener)


def _run(settings: SenderSettings, listener: socket.socket) -> None:
    try:
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            runner.run(serve(settings, listener))
    except (DatabaseUnusable, DatabaseError) as error:
        _end(f"ORDERBELL_DATABASE_URL: {error}")
    except BaseExceptionGroup as group:  # of the tasks
        if (damaged := group.subgroup(DatabaseDamaged)) is None:
            raise
        _end(f"ORDERBELL_DATABASE_URL: {damaged.exceptions[0]}")


async def serve(settings: SenderSettings, listener: socket.socket) -> None:
    """Build everything, and end everything on return."""
    async with (
        tracing("sender", enabled=settings.traces) as traces,
        open_database(
            settings.database_url,
            schema=settings.database_schema,
            prepared_statements=settings.database_prepared_statements,
        ) as opened,
        connect(settings.redis_url) as redis,
        pipelines_to(redis) as pipelines,
    ):
        database = WatchedDatabase(opened)
        names = Names.of(settings.redis_url, settings.key_prefix)
        signatures = Signatures.of(settings.live_keys)
        log = (
            LogWriter(pipelines, names, signatures)
            if traces is None
            else TracedLogWriter(pipelines, names, traces, signatures)
        )
        relay = Relay(database, log, _now)
        sweep = Sweep(
            database,
            LogReader(pipelines, names),
            relay.wake,
            relay.floor,
            publishes=lambda: relay.publishes,
        )
        notifier, forgetting = SeenNotifier(log), Forgetting(log)
        retention = Retention(
            database,
            _now,
            history_days=settings.history_days,
            orders_days=settings.orders_days,
            floor=lambda: relay.floor.now,
        )
        pages = OfficePage(PAGE, settings.api_keys[0] if settings.development else None)
        expiry, inquirer = Expiry(database, relay.wake, _now), Inquirer(pipelines, names, signatures)
        lifetimes = Lifetimes.of(settings)
        stored: Database = database if traces is None else TracedDatabase(database, traces)
        target = Target.of(settings)
        webhooks = webhooks_to(target, database, _now) if target is not None else None
        peers = Peers(
            database,
            relay.stops.sender,
            announced(settings, (*agreement.SHARED, *agreement.OF_SENDERS)),
        )
        api = Api(
            stored,
            relay,
            notifier,
            _now,
            forgetting,
            inquirer,
            lifetimes,
            revocation_days=settings.revocation_days,
            webhooks=webhooks.reports if webhooks is not None else None,
            agreement=Agreement("gateways", announced(settings, agreement.SHARED)),
            peers=peers,
        )
        inner = create_app(
            api,
            pages,
            _api_keys(settings),
            spring=settings.spring_compat,
            requests_per_minute=settings.requests_per_minute,
            metrics_here=settings.metrics_listen is None,
        )
        app = Leaving(inner if traces is None else TracedRequests(inner, traces), api.board.end)
        service = Service(
            app,
            settings.forwarded_allow_ips,
            lambda kind: metrics.requests_refused.labels(kind).inc(),
            limits=Limits.of(settings, body_bytes=BODY_BYTES, connections=raise_file_limit(CONNECTIONS)),
            root_path=settings.root_path,
            hsts_seconds=settings.hsts_seconds,
            leaving=app.begin,
            ready_delay_seconds=settings.ready_delay_seconds,
            closed=database.hurry,
            grace_seconds=REQUESTS_END_SECONDS,
        )
        if settings.spring_compat:
            logger.warning("ORDERBELL_SPRING_COMPAT: anybody may POST /submit, without an API key")
        spare_what_lives()
        # A task that dies takes the process with it, loudly: its supervisor starts a whole one.
        metrics_listener = MetricsListener(api.operations.exposition)
        async with metrics_listener.serve(settings.metrics_listen), asyncio.TaskGroup() as tasks:
            relaying = tasks.create_task(relay.run())
            others = [
                tasks.create_task(part.run())
                for part in (
                    database,
                    sweep,
                    notifier,
                    retention,
                    forgetting,
                    expiry,
                    peers,
                    api.board,
                    *(webhooks.running if webhooks is not None else ()),
                    LoopLag(metrics.loop_lag),
                )
            ]
            await relay.wait_for_first_turn(FIRST_TURN_SECONDS)
            await Server(service).serve(sockets=[listener])
            relay.stop()
            await asyncio.wait({relaying}, timeout=RELAY_END_SECONDS)
            for task in (relaying, *others):
                task.cancel()
            _, left = await asyncio.wait({relaying, *others}, timeout=TASKS_END_SECONDS)
            if left:
                database.abandon()


def _end(reason: str) -> NoReturn:
    print(f"orderbell: {reason}", file=sys.stderr)
    raise SystemExit(2)


def _api_keys(settings: SenderSettings) -> ApiKeys:
    if (path := file_of("api_keys")) is None:
        return ApiKeys(settings.api_keys)
    return ApiKeysOfFile(settings.api_keys, path, lambda: read(SenderSettings).api_keys)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
