"""Times as texts: RFC 3339; ours are in UTC with milliseconds, so they sort in order."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime
from functools import lru_cache

# RFC 3339 5.6, which is narrower than ISO 8601.
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_LEAP = 60  # the second that 23:59 UTC has now and then
_LAST_MINUTE = 23 * 60 + 59
_DAY = 24 * 60
_YEAR_ZERO = 2000  # stands in for year 0, which `calendar` lacks; its months are the same


@lru_cache(maxsize=16)  # all events of a batch have the same moment
def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """The moment of a text for which `is_time` holds; a leap second counts as the one before it."""
    day, clock = text[:10], text[11:].upper()
    if clock[6:8] == "60":
        clock = clock[:6] + "59" + clock[8:]
    try:
        return datetime.fromisoformat(f"{day}T{clock}").astimezone(UTC)
    except (ValueError, OverflowError):  # year 0, which `datetime` lacks; or beyond its first or last moment
        return (datetime.min if day < "5" else datetime.max).replace(tzinfo=UTC)


def is_time(text: str) -> bool:
    """Whether the text is a timestamp of RFC 3339, with its offset; a leap second is one, too."""
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    sign, offset_hours, offset_minutes = match[7], int(match[8] or 0), int(match[9] or 0)
    if not 1 <= month <= 12 or max(hour, offset_hours) > 23 or max(minute, offset_minutes) > 59:
        return False
    if not 1 <= day <= monthrange(year or _YEAR_ZERO, month)[1]:
        return False
    if second < _LEAP:
        return True
    offset = (offset_hours * 60 + offset_minutes) * (-1 if sign == "-" else 1)
    return second == _LEAP and (hour * 60 + minute - offset) % _DAY == _LAST_MINUTE
