"""Whether the services of one installation have the same values of the settings that they must share.

Each service sends a few letters of a hash of each such setting: gateways with the questions that they ask
senders every few seconds, senders with their answers. So a sender finds two gateways that verify tokens
differently, and a gateway finds two senders that keep the history for different times. Senders of one
database also compare each other there (sender/peers.py). A rolling change of a setting is reported while it
lasts.

The letters are too few to find a value by trying: each fits millions of others.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import SecretStr

from shared.redis.url import parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import Gauge
    from pydantic import BaseModel

SHARED = ("redis_url", "key_prefix", "live_keys", "spring_compat")  # by all
OF_SENDERS = (
    *("api_keys", "history_days", "orders_days", "revocation_days", "expire_after", "pop_up_for"),
    *("webhook_url", "webhook_secrets", "webhook_events", "webhook_not_shown_seconds"),
)
OF_GATEWAYS = (
    *("jwt_secret", "jwt_secrets", "jwks_url", "jwt_audience", "jwt_audience_claim", "jwt_customer_claim"),
    *("jwt_topics_claim", "jwt_issuer", "jwt_type", "jwt_cookie", "allowed_origins"),
)
ALL = tuple(sorted({*SHARED, *OF_SENDERS, *OF_GATEWAYS}))
LATELY_SECONDS = 60.0  # a balancer may lead a gateway's connection to the same sender for a while
_LOOK_SECONDS = 5.0
_LETTERS = 6
_MAX_SERVICES = 1_000
_ENTRY = re.compile(rf"([a-z_]{{1,64}})=([0-9a-f]{{{_LETTERS}}})")

logger = structlog.get_logger(__name__)


def announced(settings: BaseModel, names: Iterable[str]) -> str:
    """What a service says of its settings: `<name>=<letters>`, separated by commas."""
    return ",".join(f"{name}={_letters(name, getattr(settings, name))}" for name in names)


def _letters(name: str, value: Any) -> str:
    if name == "redis_url":  # servers may have several names, but the database's number is in all of ours
        value = parse_redis_url(value).db
    items = sorted(map(_plain, value)) if isinstance(value, tuple) else [_plain(value)]
    return hashlib.sha256(repr((name, items)).encode()).hexdigest()[:_LETTERS]


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class Agreement:
    """What the services of one kind announced lately, beside our own announcement."""

    def __init__(self, kind: str, own: str = "", now: Callable[[], float] = time.monotonic) -> None:
        """`kind` is for the log. `own` is compared in what both announce."""
        self._kind = kind
        self._own = _parsed(own)
        self._now = now
        self._heard: OrderedDict[str, tuple[float, Mapping[str, str]]] = OrderedDict()  # the latest last
        self._logged: tuple[str, ...] = ()
        self._look_at = 0.0

    def note(self, name: str, announcement: str) -> None:
        """A service of an earlier version announces nothing."""
        now, given = self._now(), _parsed(announcement)
        before = self._heard.get(name)
        known = before is not None and before[1] == given
        self._heard[name] = now, given
        self._heard.move_to_end(name)
        if len(self._heard) > _MAX_SERVICES:
            self._heard.popitem(last=False)
        if not known or now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._report()

    def differing(self) -> tuple[str, ...]:
        """The settings of which more than one value is in use."""
        since = self._now() - LATELY_SECONDS
        values: dict[str, set[str]] = {}
        for settings in (self._own, *(settings for at, settings in self._heard.values() if at >= since)):
            for setting, letters in settings.items():
                values.setdefault(setting, set()).add(letters)
        return tuple(sorted(setting for setting, found in values.items() if len(found) > 1))

    def _report(self) -> None:
        differing = self.differing()
        if differing == self._logged:
            return
        self._logged = differing
        if differing:
            logger.warning(
                "services of this installation run with different settings",
                settings=[f"ORDERBELL_{setting.upper()}" for setting in differing],
                of=self._kind,
                services=list(self._heard)[-10:],
            )
        else:
            logger.info("services of this installation have the same settings again", of=self._kind)


def show(gauge: Gauge, settings: Iterable[str], *agreements: Agreement) -> None:
    """Show 1 for each setting for which one of the agreements finds more than one value in use."""
    differing = {setting for agreement in agreements for setting in agreement.differing()}
    for setting in settings:
        gauge.labels(setting).set(setting in differing)


def _parsed(announcement: str) -> dict[str, str]:
    return dict(_ENTRY.findall(announcement))
