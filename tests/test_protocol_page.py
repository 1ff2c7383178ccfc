"""docs/protocol.md and docs/architecture.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from receiver.connections import messages
from receiver.connections.notices import Notice
from receiver.transports.polling import endpoint as polling
from receiver.transports.polling.poll import LIMITS as POLLS
from receiver.transports.websocket.close_codes import CODES, Close
from receiver.transports.websocket.connection import LIMITS
from shared import events
from shared.channels import customer_channel
from shared.cursors import MAX_CHANNELS
from shared.events import MAX_EVENT_BYTES
from shared.redis.keys import Names

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NEVER_SENT = {Close.GOING_AWAY, Close.NO_CODE, Close.VANISHED}


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own head."""
    section = PROTOCOL.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_close_code_is_listed_and_no_other() -> None:
    listed = {int(row[0]) for row in rows("Close codes")}
    assert listed == set(Close) - NEVER_SENT
    assert set(CODES.values()) <= listed


def test_every_notice_is_listed_with_its_fields() -> None:
    kinds = {kind.type: kind for kind in Notice.__subclasses__()}
    listed = {row[0].strip("`"): row[1] for row in rows("Messages from the gateway")}
    assert listed.keys() == kinds.keys()
    for name, kind in kinds.items():
        assert set(re.findall(r"`(\w+)`", listed[name])) == set(kind.__struct_fields__), name


def test_every_message_to_the_gateway_is_listed() -> None:
    listed = {row[0].strip("`") for row in rows("Messages to the gateway")}
    source = Path(messages.__file__).read_text(encoding="utf-8")
    assert listed == set(re.findall(r'"(orderbell\.\w+)"', source))


def test_every_event_of_the_system_is_listed_and_refused_from_callers() -> None:
    text = PROTOCOL.split("What becomes of an alert later", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"^\| `(orderbell\.\w+)`", text, re.MULTILINE)) | {events.TOMBSTONE}
    assert listed == {value for value in vars(events).values() if _is_event_type(value)}
    assert all(kind.startswith(events.SYSTEM) for kind in listed)


def _is_event_type(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"orderbell\.\w+", value) is not None


def test_every_name_in_redis_is_listed() -> None:
    names, channel = Names(), customer_channel("alice")
    listed = [row[0].strip("`") for row in rows("Redis")]
    for name in (names.log(channel), names.head(channel), names.seen(channel), names.live(channel)):
        assert name.replace(channel, "<channel>") in listed
    assert {names.newest(), names.owner()} <= set(listed)
    assert {names.ticket("<SHA-256>"), names.probe("<gateway>")} <= set(listed)


@pytest.mark.parametrize(
    "text",
    [
        f"at most {MAX_EVENT_BYTES // 1024} KiB",
        f"(at most {MAX_CHANNELS})",
        f"At most {LIMITS.message_bytes // 1024} KiB each",
        f"({POLLS.longest_wait_seconds:g} at most)",
        f"for {POLLS.linger_seconds:g} s between two",
        f"at most {POLLS.answer_bytes // 1024} KiB of events",
        f"{polling.PER_MINUTE} times a minute",
        f"{LIMITS.buffer_bytes // 1024} KiB waiting, or {LIMITS.stall_bytes // 1024} KiB for "
        f"{LIMITS.stall_seconds:g} s",
    ],
)
def test_numbers_are_those_of_the_code(text: str) -> None:
    assert text in PROTOCOL


def test_every_test_that_the_architecture_names_is_there() -> None:
    defined = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", ARCHITECTURE)
    assert named
    assert [name for name in named if f"def {name}(" not in defined] == []


@pytest.mark.parametrize("text", [ARCHITECTURE, CONTRIBUTING], ids=["architecture", "contributing"])
def test_every_file_that_is_named_is_there(text: str) -> None:
    named = set(re.findall(r"`((?:sender|receiver|shared|tests|docs)/[\w./-]*)`", text))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
