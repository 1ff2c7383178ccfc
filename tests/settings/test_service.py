"""Settings of both services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import ReceiverSettings, SenderSettings, Settings, load
from tests.settings.values import KEY, SECRET, keys_of

if TYPE_CHECKING:
    from tests.settings.conftest import Faults, Set


def test_keys_are_split_at_commas(set: Set) -> None:
    set(api_keys=f" {KEY}1 , {KEY}2,")
    assert [key.get_secret_value() for key in load(SenderSettings).api_keys] == [f"{KEY}1", f"{KEY}2"]


@pytest.mark.parametrize("keys", [",", " ", f"{KEY},short"])
def test_keys_that_open_too_easily(set: Set, faults: Faults, keys: str) -> None:
    set(api_keys=keys)
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_API_KEYS: ")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:pw@h:6380/3",
        "rediss://user:pw@h",
        "unix:///run/redis.sock",
        "redis://[::1]:6379",
    ],
)
def test_redis_url(set: Set, url: str) -> None:
    set(api_keys=KEY, redis_url=url)
    assert load(SenderSettings).redis_url == url


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://localhost", "redis://", "redis://h:port", "redis://h:99999"]
)
def test_redis_url_that_is_none(set: Set, faults: Faults, url: str) -> None:
    set(api_keys=KEY, redis_url=url)
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_REDIS_URL: ")


@pytest.mark.parametrize("everybody", ["*", "0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"])
def test_any_proxy_is_refused(set: Set, faults: Faults, everybody: str) -> None:
    set(api_keys=KEY, forwarded_allow_ips=f"10.0.0.0/8,{everybody}")
    assert "any client's" in faults(SenderSettings)[0]


@pytest.mark.parametrize("address", ["proxy.internal", "10.0.0.1/8", "10.0.0.0/99"])
def test_proxy_that_is_no_address_is_refused(set: Set, faults: Faults, address: str) -> None:
    set(api_keys=KEY, forwarded_allow_ips=f"10.0.0.0/8,::1,{address}")
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_FORWARDED_ALLOW_IPS: ")
    assert line.endswith(f"not '{address}'")


@pytest.mark.parametrize("settings_class", [SenderSettings, ReceiverSettings])
def test_the_callers_name_for_a_key_is_taken_by_services_too(
    set: Set, settings_class: type[Settings]
) -> None:
    set(api_key=KEY, jwt_secret=SECRET)
    assert keys_of(load(settings_class)) == [KEY]
    set(api_keys=f"{KEY}1,{KEY}")  # beside it: a gateway calls the sender with the first
    assert keys_of(load(settings_class)) == [KEY, f"{KEY}1"]


@pytest.mark.parametrize("key", [f"{KEY} x", f"{KEY}\u200b", f"{KEY}é", f"{KEY}\x07"])
def test_key_that_no_header_can_carry_is_a_fault(set: Set, faults: Faults, key: str) -> None:
    set(api_keys=key)
    (line,) = faults(SenderSettings)
    assert "visible ASCII" in line
    assert KEY not in line


def test_live_keys_have_an_id_and_a_secret_each(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, live_keys=f"a:{SECRET}, b:{SECRET}")
    assert len(load(SenderSettings).live_keys) == len(load(ReceiverSettings).live_keys) == 2
    for wrong, why in (
        (SECRET, "expected <id>:<secret>"),
        ("a:short", "at least 32 bytes"),
        (f"a:{SECRET},a:{SECRET}", "two keys have the id a"),
    ):
        set(live_keys=wrong)
        (line,) = faults(ReceiverSettings)
        assert line.startswith("orderbell: ORDERBELL_LIVE_KEYS: ")
        assert why in line
        assert SECRET not in line
