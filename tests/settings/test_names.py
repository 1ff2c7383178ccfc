"""Which variables are settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import ReceiverSettings, SenderSettings, known_names, load
from tests.settings.values import KEY, SECRET

if TYPE_CHECKING:
    from tests.settings.conftest import Faults, Set


def test_unknown_name_is_refused_and_the_likely_one_suggested(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, databse_url="sqlite+aiosqlite:///x.db")
    assert faults(SenderSettings) == [
        "orderbell: ORDERBELL_DATABSE_URL: no such setting; did you mean ORDERBELL_DATABASE_URL?"
    ]


def test_unlikely_name_is_refused_without_a_guess(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, zzzzzz="1")
    assert faults(SenderSettings) == ["orderbell: ORDERBELL_ZZZZZZ: no such setting"]


def test_settings_of_the_other_service_and_of_tests_are_no_fault(set: Set) -> None:
    set(
        api_keys=KEY,
        jwt_secret=SECRET,
        database_url="sqlite+aiosqlite:///x.db",
        test_redis_url="redis://localhost",
    )
    load(SenderSettings)
    load(ReceiverSettings)


def test_every_field_of_both_services_is_a_known_name() -> None:
    assert {"ORDERBELL_DATABASE_URL", "ORDERBELL_JWKS_URL", "ORDERBELL_API_KEYS_FILE"} <= known_names()


SERVICE_LINKS = {
    "ORDERBELL_SERVICE_HOST": "10.0.0.7",
    "ORDERBELL_SERVICE_PORT": "8091",
    "ORDERBELL_SERVICE_PORT_HTTP": "8091",
    "ORDERBELL_PORT": "tcp://10.0.0.7:8091",
    "ORDERBELL_PORT_8091_TCP": "tcp://10.0.0.7:8091",
    "ORDERBELL_PORT_8091_TCP_PROTO": "tcp",
    "ORDERBELL_PORT_8091_TCP_PORT": "8091",
    "ORDERBELL_PORT_8091_TCP_ADDR": "10.0.0.7",
    "ORDERBELL_PORT_53_UDP": "udp://10.0.0.7:53",
    "ORDERBELL_SENDER_SERVICE_HOST": "10.0.0.8",
    "ORDERBELL_SENDER_SERVICE_PORT_HTTP_API": "8090",
    "ORDERBELL_SENDER_PORT": "tcp://10.0.0.8:8090",
    "ORDERBELL_GATEWAY_2_PORT_8091_TCP_ADDR": "10.0.0.9",
    "ORDERBELL_REDIS_PORT": "tcp://10.0.0.9:6379",
    "ORDERBELL__BLUE_SERVICE_HOST": "10.0.0.9",  # of orderbell--blue
    "ORDERBELL_PORT_SERVICE_PORT_WEB_1": "80",  # of orderbell-port
    "ORDERBELL_DATABASE_URL_SERVICE_HOST": "10.0.0.9",
    "ORDERBELL_SENDER_PORT_8090_SCTP_ADDR": "10.0.0.8",
    # Docker's links, https://docs.docker.com/engine/network/links/
    "ORDERBELL_NAME": "/web/orderbell",
    "ORDERBELL_SENDER_NAME": "/web_1/orderbell-sender",
    "ORDERBELL_ENV_PATH": "/usr/bin",
    "ORDERBELL_SENDER_ENV_ORDERBELL_API_KEYS": "the-key-of-a-neighbour",
    "ORDERBELL_ENV_lower": "",
    "ORDERBELL_PORT_8091_TCP_START": "tcp://172.17.0.2:8091",
    "ORDERBELL_PORT_8091_TCP_END": "tcp://172.17.0.2:8092",
    "ORDERBELL_PORT_8091_TCP_PORT_START": "8091",
    "ORDERBELL_PORT_8091_TCP_PORT_END": "8092",
}


def test_variables_that_kubernetes_sets_for_a_service_are_passed_over(
    set: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    set(api_keys=KEY, jwt_secret=SECRET)
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    load(SenderSettings)
    load(ReceiverSettings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "8091"),
        ("SENDER_PORT", "8090"),
        ("PORT_HTTP", "8091"),
        ("PORTS", "tcp://h:1"),
        ("PORT_8091", "tcp://h:1"),
        ("PORT_X_TCP", "tcp://h:1"),
        ("SERVICE", "x"),
        ("REDIS_HOST", "10.0.0.7"),
        ("SERVICE_HOSTS", "10.0.0.7"),
        ("NAME", "orderbell"),
        ("ENVIRONMENT", "production"),
        ("PORT_8091_QUIC", "quic://h:1"),
    ],
)
def test_names_that_only_look_like_them_are_faults(set: Set, faults: Faults, name: str, value: str) -> None:
    set(api_keys=KEY, **{name: value})
    (line,) = faults(SenderSettings)
    assert f"ORDERBELL_{name}: no such setting" in line
