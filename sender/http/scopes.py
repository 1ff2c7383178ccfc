"""Which scope a call of the sender's API needs: any one of those given here.

A call that is missing here needs `admin`, so a new call stays closed until it is listed.
"""

from __future__ import annotations

from shared.api_keys import Scope

_GATEWAYS = frozenset({Scope.HISTORY, Scope.ADMIN})  # what gateways call for themselves
_CUSTOMERS = frozenset({Scope.ALERTS, Scope.HISTORY})  # what gateways pass on for customers
_NEEDED: dict[tuple[str, str], frozenset[Scope]] = {
    ("POST", "/orders"): frozenset({Scope.ORDERS}),
    ("GET", "/orders"): frozenset({Scope.ORDERS}),
    ("GET", "/orders/changes"): frozenset({Scope.ORDERS}),
    ("POST", "/orders/{order_id}/complete"): frozenset({Scope.ORDERS}),
    ("POST", "/orders/{order_id}/cancel"): frozenset({Scope.ORDERS}),
    ("POST", "/events"): frozenset({Scope.EVENTS}),
    ("GET", "/channels/{channel}/events"): frozenset({Scope.HISTORY}),
    ("POST", "/history"): frozenset({Scope.HISTORY}),
    ("POST", "/seen"): frozenset({Scope.HISTORY}),
    ("GET", "/revocations"): _GATEWAYS,
    ("POST", "/retractions"): frozenset({Scope.ALERTS}),
    ("POST", "/read"): _CUSTOMERS,
    ("POST", "/unread"): _CUSTOMERS,
    ("GET", "/channels/{channel}/alerts"): _CUSTOMERS,
}
ADMIN_ALONE = frozenset({Scope.ADMIN})


def scopes_for(method: str, path: str) -> frozenset[Scope]:
    """`path` is the route's."""
    return _NEEDED.get((method, path), ADMIN_ALONE)
