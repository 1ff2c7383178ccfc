"""The sender's metrics. Labels have few values: never a customer, an order or a raw path."""

from __future__ import annotations

import platform
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from shared import __version__
from shared.redis.channel_log import PublishAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sender.outbox import Backlog

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry for one service, so that a test's counts are its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.completions = Counter(
            "orderbell_completions", "Orders completed, without repetitions.", registry=self.registry
        )
        self.events = Counter(
            "orderbell_events", "Events posted by callers, by result.", ["result"], registry=self.registry
        )
        self.published = Counter(
            "orderbell_relay_published",
            "Batches of one channel that the relay sent to Redis, by answer.",
            ["answer"],
            registry=self.registry,
        )
        self.order_to_published = Histogram(
            "orderbell_order_to_published_seconds",
            "Time from an event's record to Redis, by this sender's clock.",
            registry=self.registry,
            buckets=(*_SECONDS, 30, 60, 300, 3600),
        )
        self.order_to_shown = Histogram(
            "orderbell_order_to_shown_seconds",
            "Time from an event's record until a device has reported it as shown, absences included; of one"
            " event a second.",
            registry=self.registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400),
        )
        self.build = Gauge(
            "orderbell_build_info",
            "1; the labels name the release.",
            ["version", "python"],
            registry=self.registry,
        )
        self.build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        for answer in PublishAnswer:  # each series exists from the start
            self.published.labels(answer.value)
        self.refilled = Counter(
            "orderbell_relay_refilled",
            "Events published again because Redis had lost them.",
            registry=self.registry,
        )
        self.returned = Counter(
            "orderbell_sweep_returned",
            "Events returned to the outbox because Redis had lost them.",
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "orderbell_dead_letters",
            "Events that cannot be published and were replaced by a tombstone.",
            ["reason"],
            registry=self.registry,
        )
        self.dead_letters_kept = Gauge(
            "orderbell_dead_letters_kept",
            "Dead letters in the database, of all senders; counted up to 10,000.",
            registry=self.registry,
        )
        self.epoch_changes = Counter(
            "orderbell_epoch_changes",
            "How often the database was found to have gone back, as after a restore.",
            registry=self.registry,
        )
        self.database_up = Gauge(
            "orderbell_database_up",
            "Whether the database answered this request; if not, its figures are the previous ones.",
            registry=self.registry,
        )
        self.redis_up = Gauge(
            "orderbell_redis_up",
            "Whether the relay's last exchange with Redis succeeded.",
            registry=self.registry,
        )
        self.outbox_size = Gauge(
            "orderbell_outbox_events",
            "Events recorded and not yet published; above 1,000 an estimate, never too low.",
            registry=self.registry,
        )
        self.outbox_age = Gauge(
            "orderbell_outbox_oldest_seconds", "Age of the oldest unpublished event.", registry=self.registry
        )
        self.pruned = Counter(
            "orderbell_events_pruned",
            "Events deleted because they were older than the history's time.",
            registry=self.registry,
        )
        self.pruned_orders = Counter(
            "orderbell_orders_pruned",
            "Completed orders deleted because they were older than ORDERBELL_ORDERS_DAYS.",
            registry=self.registry,
        )
        self.removed_channels = Counter(
            "orderbell_channels_removed",
            "Channels removed because nothing of them was left.",
            registry=self.registry,
        )
        self.retention_doubts = Gauge(
            "orderbell_retention_doubts_clock",
            "1 while nothing is deleted because the clock is far ahead of the newest event.",
            registry=self.registry,
        )
        self.requests_refused = Counter(
            "orderbell_requests_refused",
            "Requests refused before routing: malformed, too large or too slow.",
            ["kind"],
            registry=self.registry,
        )
        self.log_lines_dropped = Counter(
            "orderbell_log_lines_dropped",
            "Log lines dropped because they were not read in time.",
            registry=self.registry,
        )
        self.requests = Histogram(
            "orderbell_request_seconds",
            "Time from the request's head to the end of the answer.",
            ["method", "route", "status"],
            registry=self.registry,
            buckets=_SECONDS,
        )

    def note_published(self, recorded_at: Iterable[str], *, now: datetime) -> None:
        """How long each of them took from its record to Redis; what has no time is left out."""
        for text in recorded_at:
            if text:
                self.order_to_published.observe(
                    max(0.0, (now - datetime.fromisoformat(text)).total_seconds())
                )

    def note_shown(self, recorded_at: str, *, now: datetime) -> None:
        self.order_to_shown.observe(max(0.0, (now - datetime.fromisoformat(recorded_at)).total_seconds()))

    def note_backlog(self, backlog: Backlog, *, now: datetime) -> None:
        oldest = datetime.fromisoformat(backlog.oldest) if backlog.oldest else now
        self.outbox_size.set(backlog.size)
        self.outbox_age.set(max(0.0, (now - oldest).total_seconds()))

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
