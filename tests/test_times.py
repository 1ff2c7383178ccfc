"""RFC 3339, exactly as its grammar and its calendar define it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.times import format_time, is_time

NOW = datetime(2026, 11, 23, 14, 25, 0, 123_456, tzinfo=UTC)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def test_times_are_utc_with_milliseconds() -> None:
    assert format_time(NOW) == "2026-11-23T14:25:00.123Z"
    assert format_time(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-11-23T14:25:00.123Z"


@given(st.datetimes(timezones=offsets))
def test_every_moment_there_is_has_a_time(moment: datetime) -> None:
    assert is_time(moment.isoformat())
    assert is_time(moment.isoformat().replace("T", "t"))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T14:25:00Z",
        "2026-11-23t14:25:00z",
        "2026-11-23T14:25:00.1Z",
        "2026-11-23T14:25:00.123456789012345+01:00",
        "2026-11-23T14:25:00-00:00",
        "2024-02-29T00:00:00Z",
        "0000-02-29T00:00:00Z",
        "9999-12-31T23:59:59.999+23:59",
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.5z",
        "2017-01-01T08:59:60+09:00",
        "2016-12-31T18:29:60-05:30",
    ],
)
def test_time(text: str) -> None:
    assert is_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1790000000",
        "2026-11-23",
        "2026-11-23T14:25:00",
        "2026-11-23 14:25:00Z",
        "2026-11-23T14:25:00Z ",
        "2026-11-23T14:25:00Z\n",
        "2026-00-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-00T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T14:60:00Z",
        "2026-11-23T14:25:61Z",
        "2026-11-23T14:25:60Z",  # a leap second that UTC does not have there
        "2016-12-31T23:59:60+01:00",
        "2026-11-23T14:25:00+24:00",
        "2026-11-23T14:25:00+01:60",
        "2026-11-23T14:25:00.Z",
        "2026-11-23T14:25:00\u0661Z",
        # ISO 8601 that is no RFC 3339
        "2026-W48-1T14:25:00Z",
        "20261123T142500Z",
        "2026-11-23T14:25Z",
        "2026-11-23T14Z",
        "2026-11-23T14:25:00,5Z",
        "2026-11-23T14:25:00+0100",
    ],
)
def test_not_a_time(text: str) -> None:
    assert not is_time(text)
