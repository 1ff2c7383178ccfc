"""What the sender needs to know."""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from shared.durations import parse_durations
from shared.loopback import is_loopback
from shared.settings.database import DatabaseSettings
from shared.settings.environment import PREFIX, CommaSeparated
from shared.settings.http_url import HttpUrl, check_http_url
from shared.settings.service import Settings
from shared.webhook_secrets import parse_webhook_secret

WEBHOOK_EVENTS = ("alert.shown", "alert.read", "alert.not_shown_in")


class SenderSettings(DatabaseSettings, Settings):
    history_days: float = Field(7, ge=0.001, le=3650)  # at least a minute and a half
    # Of each API key, at each sender; a burst may be as large.
    requests_per_minute: int = Field(600_000, ge=1, le=10_000_000)
    # How long a revocation is kept: longer than any token lives, or a revoked token is accepted again.
    revocation_days: float = Field(30, ge=0.001, le=3650)
    orders_days: float | None = Field(None, ge=0.001, le=3650)  # after their completion; None: for ever
    # By type of event, where its caller says nothing: order.completed=3d,menu.changed=2h
    expire_after: str = ""
    pop_up_for: str = ""
    # Reports to the shop's own server of what became of alerts; docs/webhooks.md.
    webhook_url: HttpUrl | None = None
    # `whsec_…` each; a message is signed with all of them, so that one can be replaced without a pause.
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field((), validate_default=True)
    webhook_events: CommaSeparated = WEBHOOK_EVENTS
    # After how long an alert that no device has shown is reported.
    webhook_not_shown_seconds: float = Field(300, ge=1, le=7 * 86_400, validate_default=True)

    @field_validator("webhook_url", mode="before")
    @classmethod
    def _check_webhook_url(cls, url: object, info: ValidationInfo) -> object:
        if not isinstance(url, str):
            return url
        check_http_url(url, query=True)  # raises ValueError
        parts = urlsplit(url)
        is_safe = parts.scheme.lower() == "https" or is_loopback(parts.hostname)
        if not is_safe and not info.data.get("development"):
            raise ValueError("expected https://…: what is reported names customers")
        return url

    @field_validator("webhook_secrets")
    @classmethod
    def _check_webhook_secrets(
        cls, secrets: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        for secret in secrets:
            parse_webhook_secret(secret.get_secret_value())  # raises ValueError
        if info.data.get("webhook_url") is not None and not secrets:
            raise ValueError(f"missing: what goes to {PREFIX}WEBHOOK_URL has to be signed")
        return tuple({secret.get_secret_value(): secret for secret in secrets}.values())  # each once

    @field_validator("webhook_events")
    @classmethod
    def _check_webhook_events(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in WEBHOOK_EVENTS]:
            raise ValueError(f"expected some of {', '.join(WEBHOOK_EVENTS)}, not {unknown[0][:80]!r}")
        if not names:
            raise ValueError(f"expected some of {', '.join(WEBHOOK_EVENTS)}")
        return names

    @field_validator("webhook_not_shown_seconds")
    @classmethod
    def _check_not_shown(cls, seconds: float, info: ValidationInfo) -> float:
        reported = "alert.not_shown_in" in info.data.get("webhook_events", ())
        if info.data.get("webhook_url") is None or not reported:
            return seconds
        if seconds >= info.data.get("history_days", math.inf) * 86_400:
            raise ValueError(f"expected less than {PREFIX}HISTORY_DAYS: the alert must still be there")
        return seconds

    @field_validator("expire_after", "pop_up_for")
    @classmethod
    def _check_durations(cls, text: str) -> str:
        parse_durations(text)
        return text
