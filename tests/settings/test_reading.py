"""Reading settings: every fault at once, and no secret anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import InvalidSettings, ReceiverSettings, SenderSettings, load, read
from tests.settings.values import KEY, SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from tests.settings.conftest import Faults, Set


def test_defaults_are_those_of_the_contract(set: Set) -> None:
    set(api_keys=KEY, jwt_secret=SECRET)
    sender, receiver = load(SenderSettings), load(ReceiverSettings)
    assert sender.redis_url == receiver.redis_url == "redis://localhost:6379/0"
    assert sender.key_prefix == receiver.key_prefix == "ob"
    assert sender.database_url == "sqlite:///orderbell.db"
    assert str(receiver.sender_url).rstrip("/") == "http://127.0.0.1:8090"
    assert receiver.jwt_audience == "orderbell"
    assert sender.history_days == 7
    assert not sender.development


def test_a_required_setting_is_missing(set: Set, faults: Faults) -> None:
    set()
    assert faults(SenderSettings) == ["orderbell: ORDERBELL_API_KEYS: missing"]


def test_all_faults_are_reported_at_once(set: Set, faults: Faults) -> None:
    set(redis_url="http://localhost", api_keys="short", log_level="LOUD", history_days="-1", databse_url="x")
    lines = faults(SenderSettings)
    assert len(lines) == 5
    for name in ("REDIS_URL", "API_KEYS", "LOG_LEVEL", "HISTORY_DAYS", "DATABSE_URL"):
        assert sum(f"ORDERBELL_{name}" in line for line in lines) == 1, lines


def test_no_secret_is_shown(set: Set, faults: Faults) -> None:
    set(api_keys="hush-hush-key-number-1", jwt_secret="hush-hush" * 4)
    assert "hush" not in repr(load(ReceiverSettings)) + str(load(ReceiverSettings).model_dump())
    set(api_keys="hush", jwt_secret="hush", redis_url="redis://:hush@:1", database_url="mysql://u:hush@h/d")
    assert not any("hush" in line for line in faults(ReceiverSettings) + faults(SenderSettings))


HUSH = "hush7f3a"
WITH_SECRETS = {
    "redis_url": (
        f"redis://u:{HUSH}@h:x/0", f"redis://:{HUSH}@h/0?db={HUSH}", f"redis://u:{HUSH}?x@h:1:2", f"{HUSH}",
        f"redis://u:p#{HUSH}@h", f"redis://u:p/{HUSH}@h:6379/x", f"http://u:{HUSH}@h", f"redis://{HUSH}@:1",
        f"rediss://h?password={HUSH}&x=1", f"redis://u:{HUSH}%@h:0/0", f"redis://u:{HUSH}@h/0?ssl_certfile=/-",
        f"redis://u:p@{HUSH}@h:1/x", f"redis://u:{HUSH}@[::1", f"redis://u:\x07{HUSH}@h:y",
    ),
    "database_url": (
        f"postgresql://u:{HUSH}@[h/d", f"postgresql://u:{HUSH}@h:port/d", f"mysql://u:{HUSH}@h/d", HUSH,
        f"postgresql://h/d?sslmode=bad&password={HUSH}", f"postgresql://u:p#{HUSH}@h:x/d", f"//u:{HUSH}@h/d",
        f"postgresql://u:p@{HUSH}@h:x/d", f"postgresql+psycopg2://u:{HUSH}@h/d", f"postgresql:u:{HUSH}@h",
    ),
    "api_keys": (HUSH, f"shop:orders:{HUSH}", f"{HUSH * 2},{HUSH}", f"'{HUSH * 3}'"),
    "api_key": (HUSH, f"{HUSH} {HUSH} {HUSH}"),
    "live_keys": (HUSH, f"a b:{HUSH * 5}", f"a:{HUSH}", f"a:{HUSH * 5},a:{HUSH * 5}", f":{HUSH * 5}"),
    "jwt_secret": (
        HUSH, f'"{HUSH * 5}"',
        f"-----BEGIN PUBLIC KEY-----\n{HUSH * 5}\n-----END PUBLIC KEY-----",
    ),
    "jwt_secrets": (HUSH, f"{HUSH * 5},{HUSH}"),
    "jwks_url": (f"https://u:{HUSH}@i/keys", f"https://i/keys?key={HUSH}#x", f"ftp://i/?key={HUSH}"),
    "sender_url": (f"http://u:{HUSH}@sender", f"http://sender?key={HUSH}", f"ftp://u:{HUSH}@sender"),
    "webhook_url": (f"https://u:{HUSH}@shop.example/", f"https://shop.example/?key={HUSH}#x"),
    "webhook_secrets": (HUSH, f"whsec_{HUSH}", f"whsec_{HUSH},whsec_{HUSH}"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WITH_SECRETS.items() for value in values]
)
def test_no_fault_quotes_what_may_be_secret(set: Set, faults: Faults, name: str, value: str) -> None:
    needed = (
        {"api_keys": KEY} if name == "api_key" else {"api_keys": KEY, "webhook_url": "https://h.example/"}
    )
    set(**(needed | ({} if name in ("jwks_url", "jwt_secrets") else {"jwt_secret": SECRET}) | {name: value}))
    lines = faults(SenderSettings if name in SenderSettings.model_fields else ReceiverSettings)
    variable = "API_KEYS" if name == "api_key" else name.upper()
    assert any(f"ORDERBELL_{variable}: " in line for line in lines), lines
    assert not any(HUSH in line for line in lines), lines


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "shop.example", ""])
def test_development_mode_refuses_to_listen_beyond_loopback(set: Set, faults: Faults, host: str) -> None:
    set(api_keys=KEY, development="1")
    (line,) = faults(SenderSettings, host=host)
    assert "loopback" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_development_mode_listens_on_loopback(set: Set, host: str) -> None:
    set(api_keys=KEY, development="1")
    assert load(SenderSettings, host=host).development


def test_fault_of_a_key_names_the_variable_it_is_in(set: Set, faults: Faults) -> None:
    set(api_key="short")
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_API_KEY: a key needs at least 16 characters")


def test_faults_between_settings_are_reported_beside_those_of_single_ones(
    set: Set, faults: Faults, tmp_path: Path
) -> None:
    set(redis_url="x", development="1", sender_url_file=str(tmp_path / "nothing"), log_lvel="INFO")
    lines = faults(ReceiverSettings, host="0.0.0.0")
    expected = [
        "LOG_LVEL: no such setting; did you mean ORDERBELL_LOG_LEVEL?",
        "REDIS_URL: expected redis://",
        "API_KEYS: missing",
        f"SENDER_URL_FILE: cannot read {tmp_path}/nothing: No such file or directory",
        "set exactly one of ORDERBELL_JWT_SECRET and ORDERBELL_JWKS_URL",
        "DEVELOPMENT: anybody may sign in, so it may listen on loopback only, not on 0.0.0.0",
    ]
    assert len(lines) == len(expected), lines
    for part in expected:
        assert sum(part in line for line in lines) == 1, (part, lines)


def test_each_fault_is_reported_once(set: Set, faults: Faults) -> None:
    set(api_keys=KEY)
    assert faults(ReceiverSettings) == [
        "orderbell: set exactly one of ORDERBELL_JWT_SECRET and ORDERBELL_JWKS_URL"
    ]


def test_every_bad_entry_of_a_list_is_named_and_the_port_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERBELL_API_KEYS", f"short,{'k' * 16},other,{'k' * 16}é")
    monkeypatch.setenv("ORDERBELL_ALLOWED_ORIGINS", "https://a.example,ftp://b.example,https://c.example/d")
    with pytest.raises(InvalidSettings) as refused:
        read(ReceiverSettings, port=99999)
    faults = refused.value.faults
    assert faults[0] == "--port 99999: a port is a number up to 65535"
    (keys,) = (fault for fault in faults if fault.startswith("ORDERBELL_API_KEYS: "))
    assert "key 1 and 3 of 4: a key needs at least 16 characters" in keys
    assert "key 4 of 4: a key may have only visible ASCII characters" in keys
    (origins,) = (fault for fault in faults if fault.startswith("ORDERBELL_ALLOWED_ORIGINS: "))
    assert "ftp://b.example" in origins
    assert "https://c.example/d" in origins
    assert any("exactly one of ORDERBELL_JWT_SECRET" in fault for fault in faults)
