"""How long events live if their callers don't say: by type, from the settings.

`ORDERBELL_EXPIRE_AFTER=order.completed=3d,menu.changed=2h` gives events of these types an `expirytime`,
`ORDERBELL_POP_UP_FOR` a `popuntil`. After its expirytime an alert has expired; after popuntil it no longer
pops up, and is only listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.durations import parse_durations
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from shared.settings import SenderSettings


class Lifetimes(NamedTuple):
    expire_after: Mapping[str, timedelta] = {}
    pop_up_for: Mapping[str, timedelta] = {}

    @classmethod
    def of(cls, settings: SenderSettings) -> Lifetimes:
        return cls(parse_durations(settings.expire_after), parse_durations(settings.pop_up_for))

    def attributes(self, event_type: object, now: datetime) -> dict[str, str]:
        """What an event of this type gets, unless it has its own."""
        if not isinstance(event_type, str) or not (self.expire_after or self.pop_up_for):
            return {}
        found = {
            "expirytime": self.expire_after.get(event_type),
            "popuntil": self.pop_up_for.get(event_type),
        }
        return {name: format_time(now + after) for name, after in found.items() if after is not None}
