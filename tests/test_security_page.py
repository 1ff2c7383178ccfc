"""docs/security.md matches the code: its tests exist, and its table of limits is the code's."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from receiver import metrics as receiver_metrics
from receiver.access.claims import MAX_TOKEN_BYTES
from receiver.access.tickets import LIFETIME_SECONDS
from receiver.connections.messages import MAX_IDS
from receiver.serving import alerts
from receiver.transports.polling import poll as polling
from receiver.transports.sockjs.session import AWAY_SECONDS, XHR_BUFFER_BYTES
from receiver.transports.stomp import connection as stomp
from receiver.transports.stomp.session import MAX_SUBSCRIPTIONS
from receiver.transports.websocket import connection as websocket
from sender import lane
from sender import metrics as sender_metrics
from shared.cursors import MAX_CHANNELS
from shared.extents import MAX_RANGES
from shared.process import limits
from shared.process.framing import MAX_CHUNKS
from shared.process.head import MAX_ESCAPES, MAX_MEMBERS, MAX_PATH
from shared.settings import PREFIX, ReceiverSettings, SenderSettings, Settings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
RISKS = 40
_BEGIN, _END = "<!-- limits: begin -->\n", "<!-- limits: end -->"
_OF_SETTINGS = re.compile(
    r"^(max_|handshakes_|replays_|polls_|lists_|tickets_|requests_|drain_seconds|heartbeat_|keep_alive|revocation"
    r"|head_|body_|frames_|bytes_|authenticate_)"
)


def limits_table() -> str:
    lines = ["| limit | default | of | counted by | tested by |", "|---|---|---|---|---|"]
    for name, default, of in _limits():
        metric, test = HELD[f"{of}: {name}"] if f"{of}: {name}" in HELD else HELD[name]
        lines.append(f"| `{name}` | {_shown(default)} | {of} | `{metric}` | `{test}` |")
    return "\n".join(lines) + "\n"


_REFUSED = "orderbell_requests_refused_total"
_HANDSHAKES = "orderbell_handshakes_refused_total"
_CLOSED = "orderbell_connections_closed_total"
_SLOW = f'{_CLOSED}{{code="4408"}}'
_FAST = f'{_CLOSED}{{code="4429"}}'
_LAG = "orderbell_loop_lag_seconds"


def _in_force(setting: str) -> str:
    return f'orderbell_limit{{setting="{setting}"}}'


# Of each limit, by its name or by what it is of: the metric that shows that it is reached, or what is in
# force where nothing is refused at it; and the test that fails without it.
HELD = {
    "ORDERBELL_KEEP_ALIVE_SECONDS": (
        _in_force("keep_alive_seconds"),
        "test_connection_is_kept_for_its_idle_time_and_no_longer",
    ),
    "ORDERBELL_MAX_HEAD_BYTES": (
        f'{_REFUSED}{{kind="head-too-large"}}',
        "test_settings_of_a_request_count_at_the_edge_of_both_services",
    ),
    "ORDERBELL_HEAD_SECONDS": (
        f'{_REFUSED}{{kind="slow-head"}}',
        "test_settings_of_a_request_count_at_the_edge_of_both_services",
    ),
    "ORDERBELL_BODY_SECONDS": (
        f'{_REFUSED}{{kind="slow-body"}}',
        "test_request_that_is_none_or_too_much_is_answered_and_counted",
    ),
    "ORDERBELL_BODY_BYTES_PER_SECOND": (
        f'{_REFUSED}{{kind="slow-body"}}',
        "test_body_that_drips_is_given_up_however_long_it_is",
    ),
    "ORDERBELL_DRAIN_SECONDS": (
        f'{_CLOSED}{{code="1012"}}',
        "test_drain_says_bye_spreads_the_closes_and_exits_with_0",
    ),
    "ORDERBELL_HEARTBEAT_SECONDS": (
        f'{_CLOSED}{{code="1006"}}',
        "test_each_connection_has_one_beat_a_heartbeat_and_no_second_has_them_all",
    ),
    "ORDERBELL_MAX_CONNECTIONS": (
        f'{_HANDSHAKES}{{reason="overloaded"}}',
        "test_customers_come_in_while_strangers_hold_whatever_they_may",
    ),
    "ORDERBELL_MAX_CONNECTIONS_PER_CUSTOMER": (
        f'{_CLOSED}{{code="4409"}}',
        "test_connection_beyond_a_customers_limit_is_4409_and_leaves_the_others",
    ),
    "ORDERBELL_MAX_CONNECTIONS_PER_ADDRESS": (
        f'{_HANDSHAKES}{{reason="too-many-connections"}}',
        "test_one_address_has_so_many_connections_and_others_theirs",
    ),
    "ORDERBELL_MAX_UNAUTHENTICATED": (
        "orderbell_strangers_ended_total",
        "test_the_oldest_stranger_is_ended_for_one_more_and_never_a_customer",
    ),
    "ORDERBELL_MAX_UNAUTHENTICATED_PER_ADDRESS": (
        "orderbell_strangers_ended_total",
        "test_strangers_of_one_address_end_each_other_alone",
    ),
    "ORDERBELL_AUTHENTICATE_SECONDS": (
        f'{_CLOSED}{{code="4401"}}',
        "test_settings_of_a_connection_count_on_its_socket",
    ),
    "ORDERBELL_HANDSHAKES_PER_SECOND": (
        f'{_HANDSHAKES}{{reason="too-many-handshakes"}}',
        "test_handshakes_in_all_are_bounded_in_each_second",
    ),
    "ORDERBELL_HANDSHAKES_PER_SECOND_PER_ADDRESS": (
        f'{_HANDSHAKES}{{reason="too-many-handshakes"}}',
        "test_handshakes_of_one_address_are_bounded_and_ten_seconds_worth_may_come_at_once",
    ),
    "ORDERBELL_REPLAYS_PER_MINUTE": (
        "orderbell_replays_refused_total",
        "test_asking_for_the_whole_history_in_a_loop_ends_with_4429",
    ),
    "ORDERBELL_MAX_CONNECTION_HOURS": (
        f'{_CLOSED}{{code="1012"}}',
        "test_a_connection_ends_at_its_greatest_age_give_or_take_a_tenth",
    ),
    "ORDERBELL_MAX_TOPICS": (
        f'{_CLOSED}{{code="4403"}}',
        "test_settings_of_a_connection_count_on_its_socket",
    ),
    "ORDERBELL_MAX_MESSAGE_BYTES": (
        f'{_CLOSED}{{code="1009"}}',
        "test_settings_of_a_connection_count_on_its_socket",
    ),
    "ORDERBELL_FRAMES_PER_SECOND": (_FAST, "test_settings_of_a_connection_count_on_its_socket"),
    "ORDERBELL_BYTES_PER_SECOND": (_FAST, "test_settings_of_a_connection_count_on_its_socket"),
    "ORDERBELL_TICKETS_PER_MINUTE": (
        f'{_REFUSED}{{kind="too-many-tickets"}}',
        "test_tickets_beyond_a_customers_quota_are_429",
    ),
    "ORDERBELL_POLLS_PER_MINUTE": (
        f'{_REFUSED}{{kind="too-many-polls"}}',
        "test_customer_that_polls_without_a_pause_is_asked_to_come_later",
    ),
    "ORDERBELL_LISTS_PER_MINUTE": (
        f'{_REFUSED}{{kind="too-many-lists"}}',
        "test_lists_beyond_a_customers_quota_are_429_and_others_get_theirs",
    ),
    "ORDERBELL_REQUESTS_PER_MINUTE": (
        f'{_REFUSED}{{kind="too-many-requests"}}',
        "test_a_key_has_so_many_requests_a_minute_and_is_told_how_many_are_left",
    ),
    "ORDERBELL_REVOCATION_DAYS": (
        _in_force("revocation_days"),
        "test_ended_ones_are_pruned_and_places_go_on",
    ),
    "head_bytes": (f'{_REFUSED}{{kind="head-too-large"}}', "test_endless_head_is_refused_while_it_is_sent"),
    "MAX_MEMBERS": (
        f'{_REFUSED}{{kind="head-too-large"}}',
        "test_one_more_of_what_is_costly_to_read_is_refused",
    ),
    "MAX_ESCAPES": (
        f'{_REFUSED}{{kind="head-too-large"}}',
        "test_one_more_of_what_is_costly_to_read_is_refused",
    ),
    "MAX_PATH": (
        f'{_REFUSED}{{kind="head-too-large"}}',
        "test_one_more_of_what_is_costly_to_read_is_refused",
    ),
    "MAX_CHUNKS": (f'{_REFUSED}{{kind="bad-body"}}', "test_body_has_so_many_chunks_and_no_more"),
    "head_lines": (
        f'{_REFUSED}{{kind="head-too-large"}}',
        "test_request_that_is_none_or_too_much_is_answered_and_counted",
    ),
    "head_seconds": (f'{_REFUSED}{{kind="slow-head"}}', "test_half_heads_are_not_held"),
    "long_turn_seconds": (
        _LAG,
        "test_no_turn_begins_more_requests_than_it_may_and_each_is_answered_in_its_order",
    ),
    "turn_seconds": (
        f'{_REFUSED}{{kind="overloaded"}}',
        "test_request_that_waits_too_long_for_its_turn_is_refused_with_a_time_to_come_back",
    ),
    "heads_a_turn": (_LAG, "test_no_turn_begins_more_requests_than_it_may_and_each_is_answered_in_its_order"),
    "body_bytes": (
        f'{_REFUSED}{{kind="content-too-large"}}',
        "test_request_that_is_none_or_too_much_is_answered_and_counted",
    ),
    "body_seconds": (
        f'{_REFUSED}{{kind="slow-body"}}',
        "test_request_that_is_none_or_too_much_is_answered_and_counted",
    ),
    "body_grace_seconds": (
        f'{_REFUSED}{{kind="slow-body"}}',
        "test_body_that_drips_is_given_up_however_long_it_is",
    ),
    "body_bytes_per_second": (
        f'{_REFUSED}{{kind="slow-body"}}',
        "test_body_that_drips_is_given_up_however_long_it_is",
    ),
    "idle_seconds": (
        _in_force("keep_alive_seconds"),
        "test_connection_is_kept_for_its_idle_time_and_no_longer",
    ),
    "a request, both services: linger_seconds": (
        _REFUSED,
        "test_request_that_is_none_or_too_much_is_answered_and_counted",
    ),
    "leave_seconds": (f'{_REFUSED}{{kind="leaving"}}', "test_half_sent_request_does_not_hold_up_the_end"),
    "a request, both services: stall_seconds": (
        f'{_REFUSED}{{kind="stalled-answer"}}',
        "test_client_that_reads_nothing_of_its_answer_is_given_up",
    ),
    "connections": (
        f'{_REFUSED}{{kind="too-many-connections"}}',
        "test_connection_beyond_the_limit_is_asked_to_come_back",
    ),
    "tick_seconds": (_LAG, "test_connection_that_says_nothing_ends_in_silence"),
    "a WebSocket: buffer_bytes": (
        _SLOW,
        "test_42_browser_that_reads_nothing_is_closed_with_bounded_memory",
    ),
    "kernel_bytes": (
        "orderbell_waiting_bytes",
        "test_42_browser_that_reads_nothing_is_closed_with_bounded_memory",
    ),
    "stall_bytes": (_SLOW, "test_browser_for_which_little_waits_is_not_called_slow"),
    "a WebSocket: stall_seconds": (_SLOW, "test_browser_that_stalls_with_little_to_read_is_closed_in_time"),
    "a WebSocket: linger_seconds": (_CLOSED, "test_browser_that_does_not_answer_a_close_is_ended"),
    "message_bytes": (
        f'{_CLOSED}{{code="1009"}}',
        "test_settings_of_a_connection_count_on_its_socket",
    ),
    "message_fragments": (_FAST, "test_message_in_more_fragments_than_any_client_makes_is_refused"),
    "customers.frames_a_second": (_FAST, "test_too_many_frames_are_refused"),
    "customers.frames_a_heartbeat": (_FAST, "test_too_many_pongs_that_come_alone_are_refused"),
    "customers.bytes_a_second": (_FAST, "test_settings_of_a_connection_count_on_its_socket"),
    "customers.bytes_a_heartbeat": (_FAST, "test_flood_is_answered_with_4429_where_it_is_read"),
    "strangers.frames_a_second": (_FAST, "test_flood_is_answered_with_4429_where_it_is_read"),
    "strangers.frames_a_heartbeat": (_FAST, "test_flood_is_answered_with_4429_where_it_is_read"),
    "strangers.bytes_a_second": (_FAST, "test_flood_is_answered_with_4429_where_it_is_read"),
    "strangers.bytes_a_heartbeat": (_FAST, "test_flood_is_answered_with_4429_where_it_is_read"),
    "lists_at_once": (
        f'{_REFUSED}{{kind="overloaded"}}',
        "test_few_questions_are_asked_at_a_time_and_the_others_wait_for_their_turn",
    ),
    "lists_waiting": (
        f'{_REFUSED}{{kind="overloaded"}}',
        "test_few_questions_are_asked_at_a_time_and_the_others_wait_for_their_turn",
    ),
    "lists_of_customer": (
        f'{_REFUSED}{{kind="too-many-lists"}}',
        "test_one_customer_takes_no_more_than_its_part_of_the_turns",
    ),
    "answer_bytes": (
        'orderbell_connections{transport="polling"}',
        "test_more_than_one_answer_holds_comes_in_several",
    ),
    "a client that polls: buffer_bytes": (
        f'{_CLOSED}{{code="slow"}}',
        "test_41_client_that_does_not_read_is_ended_and_holds_up_nobody",
    ),
    "a client that polls: linger_seconds": (
        'orderbell_connections{transport="polling"}',
        "test_no_subscription_is_made_anew_between_two_polls",
    ),
    "farewell_seconds": (
        _CLOSED,
        "test_connection_beyond_a_customers_limit_is_refused_and_leaves_the_others",
    ),
    "longest_wait_seconds": (
        'orderbell_connections{transport="long-polling"}',
        "test_request_waits_no_longer_than_it_asks_for",
    ),
    "LIFETIME_SECONDS": (
        f'{_CLOSED}{{code="4401"}}',
        "test_ticket_dies_by_itself_and_redis_does_not_know_it",
    ),
    "MAX_TOKEN_BYTES": (f'{_CLOSED}{{code="4403"}}', "test_any_token_is_a_refusal"),
    "MAX_CHANNELS": (f'{_CLOSED}{{code="4400"}}', "test_as_many_channels_as_allowed_and_no_more"),
    "MAX_RANGES": (
        "orderbell_seen_reports_total",
        "test_of_too_many_ranges_the_newest_are_kept_and_nothing_unseen_is_added",
    ),
    "MAX_IDS": (f'{_CLOSED}{{code="4400"}}', "test_report_names_so_many_alerts_and_no_more"),
    "MAX_SUBSCRIPTIONS": (f'{_CLOSED}{{code="1002"}}', "test_subscriptions_are_bounded"),
    "stomp MAX_WAITING": (_FAST, "test_frames_of_one_message_beyond_what_may_wait_are_4429"),
    "XHR buffer_bytes": (_SLOW, "test_41_client_that_does_not_read_is_ended_and_holds_up_nobody"),
    "AWAY_SECONDS": (
        'orderbell_connections{transport="sockjs-xhr"}',
        "test_session_without_a_receiver_ends_after_fifteen_seconds",
    ),
    "lane MAX_WAITING": (
        'orderbell_request_seconds_count{status="503"}',
        "test_lane_that_is_full_refuses_at_once_and_takes_more_when_it_is_not",
    ),
}


def _limits() -> list[tuple[str, Any, str]]:
    found: list[tuple[str, Any, str]] = []
    for settings, of in ((ReceiverSettings, "a gateway"), (SenderSettings, "a sender")):
        for name, field in settings.model_fields.items():
            variable = f"{PREFIX}{name.upper()}"
            if _OF_SETTINGS.match(name) and variable not in [known for known, _, _ in found]:
                both = name in Settings.model_fields
                found.append((variable, field.default, "a request, both services" if both else of))
    for held, of in (
        (limits.Limits(), "a request, both services"),
        (websocket.LIMITS, "a WebSocket"),
    ):
        for one_of in dataclasses.fields(held):
            value = getattr(held, one_of.name)
            if dataclasses.is_dataclass(value):
                parts = asdict(value)  # type: ignore[arg-type] # an instance
                found += [(f"{one_of.name}.{name}", number, of) for name, number in parts.items()]
            else:
                found.append((one_of.name, value, of))
    found += [(name, value, "lists of a gateway") for name, value in asdict(alerts.LIMITS).items()]
    found += [(name, value, "a client that polls") for name, value in asdict(polling.LIMITS).items()]
    found.append(("MAX_MEMBERS", MAX_MEMBERS, "a list in a head, cookies and query included"))
    found.append(("MAX_ESCAPES", MAX_ESCAPES, "percent-encoded bytes of a target"))
    found.append(("MAX_PATH", MAX_PATH, "bytes of a path"))
    found.append(("MAX_CHUNKS", MAX_CHUNKS, "chunks of a body, below 64 bytes on average"))
    found.append(("LIFETIME_SECONDS", LIFETIME_SECONDS, "a ticket"))
    found.append(("MAX_TOKEN_BYTES", MAX_TOKEN_BYTES, "a token"))
    found.append(("MAX_CHANNELS", MAX_CHANNELS, "cursors in one text"))
    found.append(("MAX_RANGES", MAX_RANGES, "what was seen beyond a cursor"))
    found.append(("MAX_IDS", MAX_IDS, "alerts that one message marks as read"))
    found.append(("MAX_SUBSCRIPTIONS", MAX_SUBSCRIPTIONS, "a STOMP connection"))
    found.append(("stomp MAX_WAITING", stomp.MAX_WAITING, "frames of a STOMP connection, not done yet"))
    found.append(("XHR buffer_bytes", XHR_BUFFER_BYTES, "a SockJS session over XHR"))
    found.append(("AWAY_SECONDS", AWAY_SECONDS, "a SockJS session without a request"))
    found.append(("lane MAX_WAITING", lane.MAX_WAITING, "lists that wait in a sender, read one by one"))
    return found


def _shown(value: Any) -> str:
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}"


def _written() -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{limits_table()}{_END}{after}"


def _rows() -> dict[int, str]:
    text = PAGE.read_text(encoding="utf-8").partition("## Limits")[0]
    return {int(match[1]): match[0] for match in re.finditer(r"^\| (\d+) \|.*$", text, re.MULTILINE)}


def _tests() -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    return {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}


def test_every_risk_has_a_defence_and_tests_that_exist() -> None:
    rows, tests = _rows(), _tests()
    assert sorted(rows) == list(range(1, RISKS + 1))
    for number, row in rows.items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named, f"row {number} names no test"
        assert set(named) <= tests, f"row {number}: {sorted(set(named) - tests)}"


def test_the_table_of_limits_is_the_codes() -> None:
    assert _written() == PAGE.read_text(encoding="utf-8"), "run python -m tests.test_security_page"


def test_every_limit_has_a_metric_and_a_test_that_exist() -> None:
    families = [*REGISTRY.collect(), *sender_metrics.registry.collect()]
    metrics = {name for family in families for name in (family.name, f"{family.name}_total")}
    tests = _tests()
    for name, (metric, test) in HELD.items():
        assert metric.partition("{")[0].removesuffix("_count") in metrics, f"{name}: {metric}"
        assert test in tests, f"{name}: {test}"
        if setting := re.search(r'setting="(\w+)"', metric):
            assert setting[1] in {*receiver_metrics.LIMITS, *sender_metrics.LIMITS}, name


def test_every_limit_of_the_settings_has_its_value_in_the_metrics() -> None:
    for name in ReceiverSettings.model_fields:
        if _OF_SETTINGS.match(name):
            assert name in receiver_metrics.LIMITS, name
    for name in SenderSettings.model_fields:
        if _OF_SETTINGS.match(name):
            assert name in sender_metrics.LIMITS, name


def test_every_limit_of_the_settings_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, _, _ in _limits():
        if name.startswith(PREFIX):
            assert f"`{name.removeprefix(PREFIX)}`" in readme, name


if __name__ == "__main__":
    PAGE.write_text(_written(), encoding="utf-8")
