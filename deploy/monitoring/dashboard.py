"""Writes grafana/orderbell.json, the dashboard: `python deploy/monitoring/dashboard.py`.

A test checks that the file is up to date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "grafana" / "orderbell.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT = 8, 7


def _quantile(quantile: str, histogram: str, by: str = "le") -> str:
    return f"histogram_quantile({quantile}, sum by ({by}) (rate({histogram}_bucket[5m])))"


# Title, what it means, unit, and the queries with their legends. Three panels a row.
PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (
        "Order to frame",
        "Age of an event as it leaves a gateway",
        "s",
        [
            (
                f"histogram_quantile({q}, sum by (le) (rate(orderbell_order_to_frame_seconds_bucket[5m])))",
                f"p{q}",
            )
            for q in ("0.5", "0.99")
        ],
    ),
    (
        "Order to published",
        "From the database to Redis",
        "s",
        [(_quantile(q, "orderbell_order_to_published_seconds"), f"p{q}") for q in ("0.5", "0.99")],
    ),
    (
        "Waiting to be published",
        "Events in the outbox, and the age of the oldest",
        "short",
        [
            ("max(orderbell_outbox_events)", "events"),
            ("max(orderbell_outbox_oldest_seconds)", "age of the oldest, s"),
        ],
    ),
    (
        "Orders and events",
        "A second",
        "short",
        [
            ("sum(rate(orderbell_completions_total[1m]))", "orders completed"),
            ("sum by (result) (rate(orderbell_events_total[1m]))", "events: {{result}}"),
        ],
    ),
    (
        "Publishing",
        "Batches a second, by Redis' answer; GAP: Redis had lost something, STALE: a newer epoch had begun",
        "short",
        [("sum by (answer) (rate(orderbell_relay_published_total[1m]))", "{{answer}}")],
    ),
    (
        "Health",
        "1 is good for the first two, 0 for the others",
        "short",
        [
            ("min(orderbell_database_up)", "database"),
            ("min(orderbell_redis_up)", "sender reaches Redis"),
            ("max(orderbell_pull_mode)", "a gateway pulls"),
            ('max by (reason) (orderbell_not_ready{reason!~"draining|starting"})', "not ready: {{reason}}"),
        ],
    ),
    (
        "Connections",
        "Open, by transport",
        "short",
        [("sum by (transport) (orderbell_connections)", "{{transport}}")],
    ),
    (
        "Connecting and closing",
        "A second; closed by code",
        "short",
        [
            ("sum(rate(orderbell_connections_opened_total[1m]))", "opened"),
            ("sum by (code) (rate(orderbell_connections_closed_total[1m]))", "closed: {{code}}"),
        ],
    ),
    (
        "Refused",
        "Handshakes by reason, requests by kind, a second",
        "short",
        [
            ("sum by (reason) (rate(orderbell_handshakes_refused_total[1m]))", "handshake: {{reason}}"),
            ("sum by (job, kind) (rate(orderbell_requests_refused_total[1m]))", "{{job}}: {{kind}}"),
        ],
    ),
    (
        "Catching up",
        "Feeds repaired by cause, channels read from the sender, a second",
        "short",
        [
            ("sum by (cause) (rate(orderbell_feed_repairs_total[1m]))", "repair: {{cause}}"),
            ("sum(rate(orderbell_history_reads_total[1m]))", "read from the sender"),
        ],
    ),
    (
        "Losses that were noticed",
        "Lost subscriptions, resets, repeats dropped, dead letters; in five minutes",
        "short",
        [
            ("sum(increase(orderbell_subscription_losses_total[5m]))", "subscriptions lost"),
            ("sum by (reason) (increase(orderbell_resets_total[5m]))", "reset: {{reason}}"),
            ("sum(increase(orderbell_repeats_dropped_total[5m]))", "repeats dropped"),
            ("sum(increase(orderbell_dead_letters_total[5m]))", "dead letters"),
        ],
    ),
    (
        "Requests to the sender",
        "p99 by route",
        "s",
        [(_quantile("0.99", "orderbell_request_seconds", by="route, le"), "{{route}}")],
    ),
    (
        "Loop lag of gateways",
        "p99: over 0.1 s, a gateway has no processor time left",
        "s",
        [(_quantile("0.99", "orderbell_loop_lag_seconds", by="instance, le"), "{{instance}}")],
    ),
    (
        "Deliveries",
        "Live events handed to connections a second, by transport; connections resumed",
        "short",
        [
            ("sum by (transport) (rate(orderbell_deliveries_total[1m]))", "{{transport}}"),
            ("sum(rate(orderbell_connections_resumed_total[1m]))", "resumed"),
        ],
    ),
    (
        "Waiting for clients to read",
        "Bytes in gateways' buffers",
        "bytes",
        [("sum by (instance) (orderbell_waiting_bytes)", "{{instance}}")],
    ),
    (
        "Age of the last probe and of the keys",
        "Since a gateway last heard its probe through Redis, and fetched the issuer's keys",
        "s",
        [
            ("time() - min by (instance) (orderbell_probe_heard_timestamp_seconds)", "probe, {{instance}}"),
            (
                "time() - min by (instance) (orderbell_jwks_fetched_timestamp_seconds > 0)",
                "keys, {{instance}}",
            ),
        ],
    ),
    (
        "Redis' memory",
        "Memory that Redis uses, and its limit",
        "bytes",
        [
            ("max(orderbell_redis_memory_bytes)", "used"),
            ("max(orderbell_redis_memory_limit_bytes)", "maxmemory"),
        ],
    ),
    (
        "Connections to the database",
        "By state, of all senders",
        "short",
        [("sum by (state) (orderbell_database_pool_connections)", "{{state}}")],
    ),
    (
        "Processor",
        "Cores",
        "short",
        [('rate(process_cpu_seconds_total{job=~"orderbell.*"}[1m])', "{{job}} {{instance}}")],
    ),
    (
        "Memory",
        "Resident",
        "bytes",
        [('process_resident_memory_bytes{job=~"orderbell.*"}', "{{job}} {{instance}}")],
    ),
    (
        "Settings that differ",
        "Settings that services must share but do not; 0 is good, and so is 1 while one is being changed",
        "short",
        [
            ("sum(max by (setting) (orderbell_settings_differ))", "total"),
            ("max by (setting) (orderbell_settings_differ) == 1", "{{setting}}"),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    return {
        "uid": "orderbell",
        "title": "Orderbell",
        "tags": ["orderbell"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _panel(
    number: int, title: str, meaning: str, unit: str, queries: list[tuple[str, str]]
) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "description": meaning,
        "datasource": SOURCE,
        "gridPos": {
            "x": number % 3 * _WIDTH,
            "y": number // 3 * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": SOURCE}
            for place, (query, legend) in enumerate(queries)
        ],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")
