"""What a gateway counts. No label ever holds a customer, an order or a channel.

Where several workers share a port, each shows the figures of all: counters add up, also those of workers
that have died; each gauge declares how to combine those of the living. See receiver/serving/worker.py.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from receiver.connections.connection import End
from shared import __version__, agreement
from shared.process import head
from shared.redis.signatures import Kind

if TYPE_CHECKING:
    from shared.settings import ReceiverSettings

TRANSPORTS = ("websocket", "sse", "long-polling", "polling", "stomp", "sockjs", "sockjs-xhr")
# How WebSockets usually end; other transports use the words of `End`.
CODES = (
    *("1000", "1001", "1005", "1006", "1011", "1012", "1013", "4400", "4401", "4403", "4408", "4409", "4429"),
    *(end.value for end in End),
)
REFUSALS = (
    *("foreign-origin", "overloaded", "draining", "unknown-subprotocol", "too-early", "bad-handshake"),
    *("too-many-connections", "too-many-handshakes", "not-admitted", "admission-failed"),
)
LIMITS = (
    "max_connections",
    "max_connections_per_customer",
    "max_connections_per_address",
    "max_unauthenticated",
    "max_unauthenticated_per_address",
    "handshakes_per_second",
    "handshakes_per_second_per_address",
    "replays_per_minute",
    "tickets_per_minute",
    "polls_per_minute",
    "lists_per_minute",
    "authenticate_seconds",
    "max_connection_hours",
    "max_topics",
    "max_message_bytes",
    "frames_per_second",
    "bytes_per_second",
    "max_head_bytes",
    "head_seconds",
    "body_seconds",
    "body_bytes_per_second",
    "keep_alive_seconds",
    "heartbeat_seconds",
    "drain_seconds",
)

connections = Gauge(
    "orderbell_connections", "Connections that are open", ["transport"], multiprocess_mode="livesum"
)
opened = Counter("orderbell_connections_opened", "Connections that were authenticated", ["transport"])
closed = Counter("orderbell_connections_closed", "Connections that ended", ["code"])
connections_of = cache(connections.labels)  # by transport, bound once: a look-up of labels takes 5 µs
opened_of = cache(opened.labels)
closed_with = cache(closed.labels)
refused = Counter("orderbell_handshakes_refused", "Handshakes refused before accepting", ["reason"])
requests_refused = Counter(
    "orderbell_requests_refused", "Requests refused as malformed, too large, too slow or too many", ["kind"]
)
deliveries = Counter(
    "orderbell_deliveries", "Live events handed to connections, without those caught up", ["transport"]
)
resumes = Counter(
    "orderbell_connections_resumed", "Connections that came with a cursor of an earlier one", ["transport"]
)
resumed_of = cache(resumes.labels)
waiting_bytes = Gauge(
    "orderbell_waiting_bytes", "Bytes that wait for clients to read them", multiprocess_mode="livesum"
)
probe_heard = Gauge(
    "orderbell_probe_heard_timestamp_seconds",
    "When the gateway last heard its own probe through Redis; time() minus this is the probe's age",
    multiprocess_mode="livemin",
)
keys_fetched = Gauge(
    "orderbell_jwks_fetched_timestamp_seconds",
    "When the issuer's keys were last fetched; 0 if never, or without JWKS_URL",
    multiprocess_mode="livemin",
)
keys_failures = Counter("orderbell_jwks_failures", "Fetches of the issuer's keys that failed")
foreign = Counter("orderbell_messages_foreign", "Live messages not published by an Orderbell sender")
strangers_ended = Counter(
    "orderbell_strangers_ended", "Connections without a token that were ended because others waited"
)
replays_refused = Counter(
    "orderbell_replays_refused", "Connections ended because their customer had too many events replayed"
)
revoked = Counter("orderbell_connections_revoked", "Connections ended because their token was revoked")
unauthentic = Counter(
    "orderbell_unauthentic",
    "Values in Redis that were rejected because their signature is missing or wrong",
    ["kind"],
)
repeats = Counter("orderbell_repeats_dropped", "Live messages of events that were already handed over")
resets = Counter("orderbell_resets", "Cursors that could not be honoured", ["reason"])
repairs = Counter("orderbell_feed_repairs", "Repairs of feeds that missed events", ["cause"])
repairs_for = cache(repairs.labels)
history_reads = Counter("orderbell_history_reads", "Channels read from the sender, not from Redis")
subscription_losses = Counter("orderbell_subscription_losses", "Times the subscription to Redis was lost")
feeds = Gauge("orderbell_feeds", "Channels that this gateway is subscribed to", multiprocess_mode="livesum")
pull_mode = Gauge(
    "orderbell_pull_mode",
    "1 while events are pulled from the sender because Redis is away",
    multiprocess_mode="livemax",
)
log_lines_dropped = Counter(
    "orderbell_log_lines_dropped", "Log lines dropped because their reader was too slow"
)
not_ready = Gauge(
    "orderbell_not_ready",
    "1 while this reason keeps the gateway from serving new connections",
    ["reason"],
    multiprocess_mode="livemax",
)
seen_reports = Counter("orderbell_seen_reports", "Seen cursors passed on to the sender")
order_to_frame = Histogram(
    "orderbell_order_to_frame_seconds",
    "Age of an event as it leaves for browsers, by its sender's clock; of completed orders, one a second",
    ["transport"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
order_to_frame_of = cache(order_to_frame.labels)
canary = Histogram(
    "orderbell_canary_seconds",
    "From the POST of the gateway's own event to its arrival where browsers' events arrive",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
canary_failures = Counter("orderbell_canary_failures", "Own events that did not arrive in time")
limits = Gauge("orderbell_limit", "Limits in force, by setting", ["setting"], multiprocess_mode="livemax")
settings_differ = Gauge(
    "orderbell_settings_differ",
    "1 while senders, or a sender and this gateway, run with different values of this setting",
    ["setting"],
    multiprocess_mode="livemax",
)
build = Gauge(
    "orderbell_build_info",
    "1; the labels name the release",
    ["version", "python"],
    multiprocess_mode="livemax",
)
loop_lag = Histogram(
    "orderbell_loop_lag_seconds",
    "How late the event loop ran what was due, sampled every second",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


def describe(settings: ReceiverSettings) -> None:
    """What never changes while it runs: the release and the limits. All reasons exist from the start."""
    build.labels(__version__, platform.python_version()).set(1)
    for name in LIMITS:
        limits.labels(name).set(getattr(settings, name))
    for transport in TRANSPORTS:
        connections_of(transport)
        order_to_frame_of(transport)
        for counter in (opened, resumes, deliveries):
            counter.labels(transport)
    for setting in agreement.ALL:
        settings_differ.labels(setting)
    for code in CODES:
        closed_with(code)
    for reason in REFUSALS:
        refused.labels(reason)
    for kind in (*head.REFUSALS, "too-many-tickets", "too-many-lists", "too-many-polls"):
        requests_refused.labels(kind)
    for signed in Kind:
        unauthentic.labels(signed.value)
    for reason in ("pruned", "epoch", "future"):
        resets.labels(reason)
    for cause in ("subscribed", "gap", "check", "pull", "epoch", "seen", "again"):
        repairs.labels(cause)


# Since the last `note_second`, by transport: counting each in a metric would cost a delivery a tenth.
delivered: defaultdict[str, int] = defaultdict(int)


def note_second(waiting: int) -> None:
    """Once a second: what is counted in plain numbers until then, and how many bytes wait."""
    waiting_bytes.set(waiting)
    for transport in TRANSPORTS:  # not the canary's, which is no client
        if count := delivered.get(transport):
            deliveries.labels(transport).inc(count)
    delivered.clear()
