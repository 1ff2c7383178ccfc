"""What a sender counts. No label ever holds a customer, an order or a raw path.

Each metric is declared here and counted where its event happens, as in receiver/metrics.py. The registry is
not the gateway's, so that both services may run in one process, as in tests, although some names are equal.
"""

from __future__ import annotations

import platform
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from sender.recording import Status
from sender.tombstones import Fault
from sender.webhooks.message import Kind
from shared import __version__, agreement
from shared.process.head import REFUSALS
from shared.process.ways import trace_id_of
from shared.redis.channel_log import PublishAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sender.database.protocol import Pool
    from sender.outbox import Backlog, Waiting
    from shared.settings import SenderSettings

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

registry = CollectorRegistry()
ProcessCollector(registry=registry)

completions = Counter("orderbell_completions", "Orders completed, without repetitions", registry=registry)
events = Counter("orderbell_events", "Events posted by callers, by result", ["result"], registry=registry)
published = Counter(
    "orderbell_relay_published",
    "Batches of one channel that the relay sent to Redis, by answer",
    ["answer"],
    registry=registry,
)
order_to_published = Histogram(
    "orderbell_order_to_published_seconds",
    "Time from an event's record to Redis, by this sender's clock",
    registry=registry,
    buckets=(*_SECONDS, 30, 60, 300, 3600),
)
order_to_shown = Histogram(
    "orderbell_order_to_shown_seconds",
    "Time from an event's record until a device has reported it as shown, absences included; of one event a"
    " second",
    registry=registry,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400),
)
settings_differ = Gauge(
    "orderbell_settings_differ",
    "1 while gateways, or a gateway and this sender, run with different values of this setting",
    ["setting"],
    registry=registry,
)
build = Gauge(
    "orderbell_build_info", "1; the labels name the release", ["version", "python"], registry=registry
)
refilled = Counter(
    "orderbell_relay_refilled", "Events published again because Redis had lost them", registry=registry
)
returned = Counter(
    "orderbell_sweep_returned",
    "Events returned to the outbox because Redis had lost them",
    registry=registry,
)
dead_letters = Counter(
    "orderbell_dead_letters",
    "Events that cannot be published and were replaced by a tombstone",
    ["reason"],
    registry=registry,
)
dead_letters_kept = Gauge(
    "orderbell_dead_letters_kept",
    "Dead letters in the database, of all senders; counted up to 10,000",
    registry=registry,
)
epoch_changes = Counter(
    "orderbell_epoch_changes",
    "How often the database was found to have gone back, as after a restore",
    registry=registry,
)
database_up = Gauge(
    "orderbell_database_up",
    "Whether the database can be read and written now; if not read, its figures are the previous ones",
    registry=registry,
)
redis_up = Gauge(
    "orderbell_redis_up", "Whether the relay's last exchange with Redis succeeded", registry=registry
)
outbox_size = Gauge(
    "orderbell_outbox_events",
    "Events recorded and not yet published; above 1,000 an estimate, never too low",
    registry=registry,
)
outbox_age = Gauge(
    "orderbell_outbox_oldest_seconds", "Age of the oldest unpublished event", registry=registry
)
pruned = Counter(
    "orderbell_events_pruned", "Events deleted because they were older than HISTORY_DAYS", registry=registry
)
pruned_orders = Counter(
    "orderbell_orders_pruned",
    "Completed orders deleted because they were older than ORDERS_DAYS",
    registry=registry,
)
removed_channels = Counter(
    "orderbell_channels_removed", "Channels removed because nothing of them was left", registry=registry
)
retention_doubts = Gauge(
    "orderbell_retention_doubts_clock",
    "1 while nothing is deleted because the clock is far ahead of the newest event",
    registry=registry,
)
requests_refused = Counter(
    "orderbell_requests_refused",
    "Requests refused: malformed, too large, too slow or too many",
    ["kind"],
    registry=registry,
)
redis_memory = Gauge("orderbell_redis_memory_bytes", "Memory that Redis uses, of one node", registry=registry)
redis_memory_limit = Gauge(
    "orderbell_redis_memory_limit_bytes", "Redis' maxmemory, of one node; 0 if it has none", registry=registry
)
pool_connections = Gauge(
    "orderbell_database_pool_connections",
    "Connections to the database, by state",
    ["state"],
    registry=registry,
)
loop_lag = Histogram(
    "orderbell_loop_lag_seconds",
    "How late the event loop ran what was due, sampled every second",
    registry=registry,
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
limits = Gauge("orderbell_limit", "Limits in force, by setting", ["setting"], registry=registry)
log_lines_dropped = Counter(
    "orderbell_log_lines_dropped", "Log lines dropped because their reader was too slow", registry=registry
)
requests = Histogram(
    "orderbell_request_seconds",
    "Time from the request's head to the end of the answer",
    ["method", "route", "status"],
    registry=registry,
    buckets=_SECONDS,
)
webhook_attempts = Counter(
    "orderbell_webhook_attempts",
    "Attempts to deliver a webhook, by result; `unreachable` is without an answer",
    ["type", "result"],
    registry=registry,
)
webhooks_given_up = Counter(
    "orderbell_webhooks_given_up",
    "Webhooks that were given up: 410, or no success for days",
    registry=registry,
)
webhooks_waiting = Gauge(
    "orderbell_webhooks_waiting",
    "Webhooks in the database that are still to be delivered, of all senders; counted up to 10,000",
    registry=registry,
)
webhook_failing = Gauge(
    "orderbell_webhook_failing",
    "1 while this sender's last attempt to deliver a webhook failed",
    registry=registry,
)
webhook_seconds = Histogram(
    "orderbell_webhook_seconds",
    "Time that the receiver of webhooks took to answer, or that we waited for it",
    registry=registry,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
)


LIMITS = (
    *("requests_per_minute", "history_days", "orders_days", "revocation_days"),
    *("max_head_bytes", "head_seconds", "body_seconds", "body_bytes_per_second", "keep_alive_seconds"),
)


def describe(settings: SenderSettings) -> None:
    """What never changes while it runs: the release and the limits. Series exist from the start."""
    build.labels(__version__, platform.python_version()).set(1)
    for name in LIMITS:
        limits.labels(name).set(getattr(settings, name) or 0)
    for answer in PublishAnswer:
        published.labels(answer.value)
    for kind in Kind:
        for result in ("delivered", "refused", "unreachable"):
            webhook_attempts.labels(kind.value, result)
    for setting in agreement.ALL:
        settings_differ.labels(setting)
    for status in Status:
        events.labels(status.value)
    for fault in Fault:
        dead_letters.labels(fault.value)
    for refusal in (*REFUSALS, "too-many-requests"):
        requests_refused.labels(refusal)
    for state in ("in_use", "idle"):
        pool_connections.labels(state)


def note_pool(pool: Pool) -> None:
    pool_connections.labels("in_use").set(pool.in_use)
    pool_connections.labels("idle").set(pool.idle)


def note_published(published: Sequence[Waiting], *, now: datetime) -> None:
    """How long each event took from its record to Redis; events without a time are left out.

    The first of them, which waited longest, is the exemplar.
    """
    exemplar = _exemplar(published[0].entry.text) if published else None
    for event in published:
        if event.recorded_at:
            order_to_published.observe(_seconds_since(event.recorded_at, now), exemplar)
            exemplar = None


def note_shown(recorded_at: str, event: bytes, *, now: datetime) -> None:
    order_to_shown.observe(_seconds_since(recorded_at, now), _exemplar(event))


def _exemplar(event: bytes) -> dict[str, str] | None:
    trace_id = trace_id_of(event)
    return {"trace_id": trace_id} if trace_id else None


def note_backlog(backlog: Backlog, *, now: datetime) -> None:
    outbox_size.set(backlog.size)
    outbox_age.set(_seconds_since(backlog.oldest, now) if backlog.oldest else 0.0)


def _seconds_since(text: str, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(text)).total_seconds())
