"""Impossible and unusual values of every setting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shared.settings import ReceiverSettings, SenderSettings, load
from tests.settings.values import KEY, SECRET

if TYPE_CHECKING:
    from tests.settings.conftest import Faults, Set

LONG = "x" * 5000


NUMBERS = ("", "nan", "inf", "-inf", "1e999", "0x10", "1,5", "1_", "ten", "-1", "1e-300", "9" * 400)


# Impossible values, for each setting that restricts them. Empty means unset, so it is not among them.
ODD: dict[str, tuple[str, ...]] = {
    "redis_url": (
        "redis", "redis:", "redis://", "redis:///", "redis://h:0/x", "redis://h/-1", "redis://h/1.5",
        "redis://h/0?db=x", "redis://h?ssl=true", "redis://h:6379:1", "http://h", "REDIS", "redis://h h",
    ),
    "key_prefix": ("a b", "ob:", "{ob}", "é", LONG, "a/b", "*"),
    "api_keys": (",", "short", "k" * 15, "k k" * 9, "k" * 16 + ",short"),
    "api_key": ("short", "k" * 8 + " " + "k" * 8, "ключ" * 8),
    "log_format": ("text", "jsonl", "1"),
    "log_channels": ("clear", "1", "hash", "plain,hashed"),
    "log_level": ("LOUD", "10", "TRACE"),
    "development": ("maybe", "2", "-1"),
    "forwarded_allow_ips": ("*", "proxy", "10.0.0.1/8", "::1/200", "10.0.0.0/8;::1", "1.2.3"),
    "keep_alive_seconds": (*NUMBERS[1:], "0", "0.5", "3601"),
    "ready_delay_seconds": (*NUMBERS[1:10], "301"),
    "live_keys": ("x", "a:short", "a b:" + "s" * 32, ":" + "s" * 32),
    "metrics_listen": ("9100", ":9100", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:a"),
    "root_path": ("alerts", "/a b", "/a//b", "/é", "/a?b", "/a#b", "http://h/a", "/../a", "/.", "/%2e"),
    "database_url": ("x", "mysql://h/d", "postgres:h", "sqlite://", "sqlite:///", "postgresql+psycopg2://h/d"),
    "database_schema": ("a b", "pg_x", "1x", "a.b", 'a"b', LONG, "é"),
    "database_prepared_statements": ("maybe", "2"),
    "history_days": (*NUMBERS[1:], "0", "0.0001", "3651"),
    "sender_url": (
        "sender", "sender:8090", "8090", "http:", "http://", "http:///x", "http:sender", "http:8090",
        "http://8090", "http://0x7f.1", "http://127.1", "http://1.2.3.4.5", "http://256.1.1.1",
        "http://sender:0", "http://sender:99999", "http://sender:", "http://sender:port", "http://sen der",
        "http://sen\tder", "http:\\\\sender", "http://..", "http://.sender", "http://-", "http://sender-",
        "http://a..b", "http://%73ender", "http://u:p@sender", "http://sender?x=1", "http://sender/#x",
        "http://[::1", "http://[1]", "http://[::1]x", "ftp://sender", "redis://sender", "https//sender",
        f"http://{LONG}", "http://sender,http://other", "http://*",
    ),
    "sender_ca": ("x", "/etc/ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
    "jwt_secret": ("short", "s" * 31, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw\n-----END PUBLIC KEY-----"),
    "jwt_secrets": ("short", "s" * 32 + ",short"),
    "jwks_url": ("keys", "file:///keys", "https://", "https://i:0/keys", "https://u:p@i/keys", "https://i/k#x"),
    "jwt_audience": (",", " , "),
    "jwt_audience_claim": ("a..b", ".", "a."),
    "jwt_customer_claim": ("a..b", ".", "..", ".a", "a.", "\x07"),
    "jwt_topics_claim": ("a..b", "."),
    "jwt_issuer": ("https://i\x00"[:9] + "\x07i", "a\nb"),
    "jwt_type": ("application/", "/jwt", "a b", "at+jwt;q=1", "at+jwt,JWT", "*", "é", "a/b/c"),
    "jwt_cookie": ("a b", "a;b", "a=b", "é", "a,b"),
    "allowed_origins": (
        "*", "null", "shop.example", "https://", "https://*", "https://*.com", "https://a*.example.com",
        "https://shop.example/", "https://shop.example:0", "https://u@shop.example", "ftp://shop.example",
    ),
    "drain_seconds": (*NUMBERS[1:10], "601"),
    "heartbeat_seconds": (*NUMBERS[1:], "0", "301"),
    "max_connections": (*NUMBERS[1:], "0", "1.5", "10000001"),
    "max_connections_per_customer": (*NUMBERS[1:], "0", "1.5"),
    "lists_per_minute": (*NUMBERS[1:], "0", "1.5"),
    "tickets_per_minute": (*NUMBERS[1:], "0", "1.5"),
    "webhook_url": (
        "shop", "http://", "http://shop.example", "http://10.0.0.7/x", "https://u:p@shop.example/",
        "https://shop.example/#x", "ftp://shop.example", "https://shop.example:0/", "https://shop .example",
    ),
    "webhook_secrets": (
        "short", "s" * 40, "whsec_", "whsec_" + "A" * 28, "whsec_" + "A" * 88, "whsec_" + "é" * 32,
        "whsec_" + "A" * 31, "whsec_" + "A" * 32 + ",whsec_x",
    ),
    "webhook_events": (",", "alert.seen", "alert.shown,alert", "Alert.shown", "*"),
    "webhook_not_shown_seconds": (*NUMBERS[1:], "0", "604801"),
}  # fmt: skip


FIELDS = SenderSettings.model_fields | ReceiverSettings.model_fields


OF_TYPES = {int: (*NUMBERS[1:], "0.5"), float: NUMBERS[1:7], bool: ("maybe", "2", "-1")}


def odd_values(name: str) -> tuple[str, ...]:
    return ODD.get(name) or next(
        (values for kind, values in OF_TYPES.items() if FIELDS[name].annotation in (kind, kind | None)), ()
    )


def test_no_odd_value_is_that_of_a_setting_that_is_gone() -> None:
    assert ODD.keys() - FIELDS.keys() == set()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in FIELDS for value in odd_values(name)])
def test_odd_value_is_one_line_that_names_its_setting(
    set: Set, faults: Faults, name: str, value: str
) -> None:
    key = {} if name == "api_key" else {"api_keys": KEY}
    secret = {} if name in ("jwks_url", "jwt_secrets") else {"jwt_secret": SECRET}
    set(**(key | secret | {name: value}))
    lines = faults(SenderSettings if name in SenderSettings.model_fields else ReceiverSettings)
    # Without a valid way to verify tokens, that is reported, too.
    lines = [line for line in lines if "set exactly one of" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"orderbell: ORDERBELL_{name.upper()}: "), lines
    assert len(lines[0]) < 400


def bounds_of(name: str) -> list[tuple[str, str]]:
    """Of a number: the last value that each bound allows, and the first that it doesn't."""
    step = 1 if FIELDS[name].annotation is int else 0.001
    found = []
    for bound in FIELDS[name].metadata:
        if (least := getattr(bound, "ge", None)) is not None:
            found.append((str(least), str(least - step)))
        if (above := getattr(bound, "gt", None)) is not None:
            found.append((str(above + step), str(above)))
        if (most := getattr(bound, "le", None)) is not None:
            found.append((str(most), str(most + step)))
    return found


NUMBERED = [name for name in FIELDS if FIELDS[name].annotation in (int, float, int | None, float | None)]


@pytest.mark.parametrize("name", NUMBERED)
def test_number_has_a_least_and_a_greatest_value(set: Set, faults: Faults, name: str) -> None:
    """Both work, and what lies beyond is one line."""
    model = SenderSettings if name in SenderSettings.model_fields else ReceiverSettings
    bounds = bounds_of(name)
    assert len(bounds) == 2
    for allowed, beyond in bounds:
        set(**{"api_keys": KEY, "jwt_secret": SECRET, name: allowed})
        assert str(getattr(load(model), name)) in (allowed, f"{allowed}.0")
        set(**{name: beyond})
        [line] = faults(model)
        assert line.startswith(f"orderbell: ORDERBELL_{name.upper()}: ")


@pytest.mark.parametrize("name", FIELDS)
def test_value_that_is_not_utf_8_is_one_line(set: Set, faults: Faults, name: str) -> None:
    set(**({"api_keys": KEY, "jwt_secret": SECRET} | {name: os.fsdecode(b"http://\xff" + b"a" * 40)}))
    lines = faults(SenderSettings if name in SenderSettings.model_fields else ReceiverSettings)
    assert f"orderbell: ORDERBELL_{name.upper()}: it is not UTF-8 text" in lines
    assert len([line for line in lines if name.upper() in line and "set exactly" not in line]) == 1, lines


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sender_url", "http://sender:8090"),
        ("sender_url", "HTTPS://Sender.Shop.example/base/"),
        ("sender_url", "http://orderbell_sender-1.shop.svc.cluster.local.:80"),
        ("sender_url", "http://[::1]:8090"),
        ("sender_url", "http://10.0.0.7"),
        ("sender_url", "http://bücher.example"),
        ("jwks_url", "https://issuer.example/keys?p=policy"),
        ("jwt_customer_claim", "https://shop.example/id"),
        ("jwt_customer_claim", "realm access.user-id"),
        ("log_level", "info"),
        ("log_format", "Console"),
        ("history_days", "0.01"),
        ("root_path", "/alerts.v1/~shop/"),
        ("jwt_type", "application/at+jwt"),
        ("jwt_type", "JWT"),
        ("log_events", "1e-9"),
        ("max_topics", "0"),
    ],
)
def test_unusual_value_that_works_is_taken(set: Set, name: str, value: str) -> None:
    needed = {"api_keys": KEY} | ({} if name == "jwks_url" else {"jwt_secret": SECRET})
    set(**(needed | {name: value}))
    load(SenderSettings if name in SenderSettings.model_fields else ReceiverSettings)
