"""The gateway's own messages."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from receiver.connections.notices import Hello, Pong, _time
from shared.channels import customer_channel, topic_channel
from shared.cursors import Place
from shared.times import format_time

ALICE, NEWS = customer_channel("alice"), topic_channel("news")


@pytest.mark.parametrize("milliseconds", [0, 7, 1_700_000_000_000, 1_700_000_000_007, 1_700_000_000_999])
def test_time_has_the_form_of_all_others(milliseconds: int) -> None:
    assert _time(milliseconds) == format_time(datetime.fromtimestamp(milliseconds / 1000, UTC))


def test_time_goes_on_from_second_to_second() -> None:
    assert [_time(n) for n in (59_999, 60_000, 60_001)] == [
        "1970-01-01T00:00:59.999Z",
        "1970-01-01T00:01:00.000Z",
        "1970-01-01T00:01:00.001Z",
    ]


def test_notice_is_made_now() -> None:
    sent = datetime.fromisoformat(msgspec.json.decode(Pong().cloud_event)["time"])
    assert abs((datetime.now(UTC) - sent).total_seconds()) < 5


@pytest.mark.parametrize("head", [Place(1, 4), Place(1, 9), Place(2, 0)])
def test_hello_shows_where_the_connection_starts_and_where_its_channels_are(head: Place) -> None:
    starts = {ALICE: Place(1, 4), NEWS: Place(1, 2)}
    hello = Hello.at(starts, {**starts, ALICE: head}, heartbeat_seconds=20, gateway="one")
    assert hello.cursor == "customer:alice=1.4,topic:news=1.2"
    assert hello.as_of == f"customer:alice={head},topic:news=1.2"
    assert hello.channels == (ALICE, NEWS)
