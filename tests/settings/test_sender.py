"""The sender's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.settings import SenderSettings, load
from tests.settings.values import KEY

if TYPE_CHECKING:
    from tests.settings.conftest import Faults, Set

WHSEC = f"whsec_{'A' * 32}"


def test_webhooks_are_off_unless_a_url_is_set(set: Set) -> None:
    set(api_keys=KEY)
    settings = load(SenderSettings)
    assert (settings.webhook_url, settings.webhook_secrets) == (None, ())
    assert settings.webhook_not_shown_seconds == 300


def test_webhook_needs_a_secret_and_https_beyond_this_machine(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, webhook_url="https://shop.example/alerts?shop=1", webhook_events="x")
    missing, unknown = faults(SenderSettings)
    assert missing.startswith("orderbell: ORDERBELL_WEBHOOK_SECRETS: missing")
    assert unknown.startswith("orderbell: ORDERBELL_WEBHOOK_EVENTS: expected some of alert.shown, ")
    set(webhook_secrets=f"{WHSEC},whsec_{'B' * 32},{WHSEC}", webhook_events="alert.read")
    settings = load(SenderSettings)
    assert len(settings.webhook_secrets) == 2
    assert "AAAA" not in repr(settings)
    set(webhook_url="http://shop.example/")
    assert faults(SenderSettings) == [
        "orderbell: ORDERBELL_WEBHOOK_URL: expected https://…: what is reported names customers"
    ]
    for url in ("http://127.0.0.1:8095/", "http://localhost/alerts", "http://[::1]:8095/"):
        set(webhook_url=url)
        assert str(load(SenderSettings).webhook_url) == url
    set(webhook_url="http://shop.example/", development="1")
    assert load(SenderSettings, host="127.0.0.1").webhook_url is not None


def test_alert_is_reported_as_not_shown_while_the_history_has_it(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, webhook_url="https://shop.example/", webhook_secrets=WHSEC, history_days="0.002")
    assert "ORDERBELL_WEBHOOK_NOT_SHOWN_SECONDS: expected less than" in faults(SenderSettings)[0]
    set(webhook_not_shown_seconds="60")
    assert load(SenderSettings).webhook_not_shown_seconds == 60
