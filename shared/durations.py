"""Durations in settings: `order.completed=3d,menu.changed=90m`, one for each type of event."""

from __future__ import annotations

import re
from datetime import timedelta

_LONGEST = timedelta(days=3650)
_PAIR = re.compile(r"\s*([^\s=,]+)\s*=\s*([0-9]{1,9})\s*([smhd])\s*")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_durations(text: str) -> dict[str, timedelta]:
    """Raises `ValueError`."""
    durations: dict[str, timedelta] = {}
    for part in filter(str.strip, text.split(",")):
        match = _PAIR.fullmatch(part)
        if match is None:
            raise ValueError(f"expected <type>=<number>s, m, h or d, as order.completed=3d, not {part!r}")
        duration = timedelta(**{_UNITS[match[3]]: int(match[2])})
        if not timedelta() < duration <= _LONGEST:
            raise ValueError(f"expected more than 0 and at most {_LONGEST.days} days, not {part!r}")
        if match[1] in durations:
            raise ValueError(f"{match[1]} is named twice")
        durations[match[1]] = duration
    return durations
