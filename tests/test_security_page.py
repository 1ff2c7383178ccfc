"""docs/security.md matches the code: its tests exist, and its table of limits is the code's."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from receiver.access.claims import MAX_TOKEN_BYTES
from receiver.access.tickets import LIFETIME_SECONDS
from receiver.connections.life import Terms
from receiver.connections.messages import MAX_IDS
from receiver.serving import alerts
from receiver.transports.polling import poll as polling
from receiver.transports.sockjs.session import AWAY_SECONDS, XHR_LIMITS
from receiver.transports.stomp import connection as stomp
from receiver.transports.stomp.session import MAX_SUBSCRIPTIONS
from receiver.transports.websocket import connection as websocket
from sender import lane
from shared.cursors import MAX_CHANNELS
from shared.extents import MAX_RANGES
from shared.process import limits
from shared.settings import PREFIX, ReceiverSettings, SenderSettings
from shared.tokens import MAX_TOPICS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
RISKS = 40
_BEGIN, _END = "<!-- limits: begin -->\n", "<!-- limits: end -->"
_OF_SETTINGS = re.compile(
    r"^(max_|handshakes_|replays_|polls_|lists_|tickets_|requests_|drain_seconds|heartbeat_|keep_alive|revocation)"
)


def limits_table() -> str:
    lines = ["| limit | default | of |", "|---|---|---|"]
    lines += [f"| `{name}` | {_shown(default)} | {of} |" for name, default, of in _limits()]
    return "\n".join(lines) + "\n"


def _limits() -> list[tuple[str, Any, str]]:
    found: list[tuple[str, Any, str]] = []
    for settings, of in ((ReceiverSettings, "a gateway"), (SenderSettings, "a sender")):
        for name, field in settings.model_fields.items():
            variable = f"{PREFIX}{name.upper()}"
            if _OF_SETTINGS.match(name) and variable not in [known for known, _, _ in found]:
                found.append((variable, field.default, of))
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
    found.append(
        ("authenticate_seconds", Terms("", 20, 1).authenticate_seconds, "a connection without a token")
    )
    found.append(("LIFETIME_SECONDS", LIFETIME_SECONDS, "a ticket"))
    found.append(("MAX_TOPICS", MAX_TOPICS, "a token, and so channels of a connection but one"))
    found.append(("MAX_TOKEN_BYTES", MAX_TOKEN_BYTES, "a token"))
    found.append(("MAX_CHANNELS", MAX_CHANNELS, "cursors in one text"))
    found.append(("MAX_RANGES", MAX_RANGES, "what was seen beyond a cursor"))
    found.append(("MAX_IDS", MAX_IDS, "alerts that one message marks as read"))
    found.append(("MAX_SUBSCRIPTIONS", MAX_SUBSCRIPTIONS, "a STOMP connection"))
    found.append(("stomp MAX_WAITING", stomp.MAX_WAITING, "frames of a STOMP connection, not done yet"))
    found.append(("XHR buffer_bytes", XHR_LIMITS.buffer_bytes, "a SockJS session over XHR"))
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


def test_every_limit_of_the_settings_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, _, _ in _limits():
        if name.startswith(PREFIX):
            assert f"`{name.removeprefix(PREFIX)}`" in readme, name


if __name__ == "__main__":
    PAGE.write_text(_written(), encoding="utf-8")
