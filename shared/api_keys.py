"""API keys: what callers of the sender present, with a name and what the key allows.

In the setting a key stands alone and allows everything, or stands behind its name and its scopes:
`shop:orders+events:4f9c…`. Callers present the part behind the second colon. An older key that happens to
contain colons is not split by mistake: the middle part must consist of scopes.
"""

from __future__ import annotations

import enum
import re

from pydantic import SecretStr


class Scope(enum.StrEnum):
    ORDERS = "orders"  # place, complete and list orders
    EVENTS = "events"  # record events of one's own
    HISTORY = "history"  # read events, move seen cursors; gateways need it
    ALERTS = "alerts"  # read, retract and mark alerts
    ADMIN = "admin"  # erase, revoke, dead letters, traces; each call leaves a line in the log


ALL = frozenset(Scope)
_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,32}):([a-z]+(?:\+[a-z]+)*):(.+)", re.DOTALL)
_NAMES = frozenset(scope.value for scope in Scope)


class ApiKey(SecretStr):
    """Its value is what callers present."""

    def __init__(self, key: str, name: str = "", scopes: frozenset[Scope] = ALL) -> None:
        super().__init__(key)
        self.name = name
        self.scopes = scopes

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        match = _NAMED.fullmatch(text)
        if match is None or not (scopes := set(match[2].split("+"))) <= _NAMES:
            return cls(text)
        return cls(match[3], match[1], frozenset(map(Scope, scopes)))
