"""Settings: every fault at once, and no secret anywhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shared.settings import (
    PREFIX,
    InvalidSettings,
    ReceiverSettings,
    SenderSettings,
    Settings,
    known_names,
    load,
    read,
)
from tests.certificates import Certificates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Set = Callable[..., None]
    Faults = Callable[..., list[str]]

KEY = "k" * 16
SECRET = "s" * 32


@pytest.fixture(name="set")
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Make these the only settings; names without prefix, in lower case."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)

    def set(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(PREFIX + name.upper(), value)

    return set


@pytest.fixture
def faults(capsys: pytest.CaptureFixture[str]) -> Faults:
    """Load faulty settings; returns the lines that report the faults."""

    def faults(settings_class: type[Settings], host: str | None = None) -> list[str]:
        with pytest.raises(SystemExit) as ended:
            load(settings_class, host=host)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert not printed.out
        return printed.err.splitlines()

    return faults


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


def test_empty_is_the_same_as_unset(set: Set) -> None:
    set(api_keys=KEY, redis_url="")
    assert load(SenderSettings).redis_url == "redis://localhost:6379/0"


def test_keys_are_split_at_commas(set: Set) -> None:
    set(api_keys=f" {KEY}1 , {KEY}2,")
    assert [key.get_secret_value() for key in load(SenderSettings).api_keys] == [f"{KEY}1", f"{KEY}2"]


@pytest.mark.parametrize("keys", [",", " ", f"{KEY},short"])
def test_keys_that_open_too_easily(set: Set, faults: Faults, keys: str) -> None:
    set(api_keys=keys)
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_API_KEYS: ")


def test_secret_from_a_file(set: Set, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    set(api_keys_file=str(tmp_path / "key"))
    assert load(SenderSettings).api_keys[0].get_secret_value() == KEY


def test_file_that_cannot_be_read(set: Set, faults: Faults, tmp_path: Path) -> None:
    set(api_keys_file=str(tmp_path / "nothing"))
    (line,) = faults(SenderSettings)
    assert "_FILE" in line
    assert "nothing: No such file" in line


def test_file_that_is_no_text(set: Set, faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00")
    set(api_keys_file=str(tmp_path / "key"))
    (line,) = faults(SenderSettings)
    assert "_FILE" in line


def test_no_secret_is_shown(set: Set, faults: Faults) -> None:
    set(api_keys="hush-hush-key-number-1", jwt_secret="hush-hush" * 4)
    assert "hush" not in repr(load(ReceiverSettings)) + str(load(ReceiverSettings).model_dump())
    set(api_keys="hush", jwt_secret="hush", redis_url="redis://:hush@:1", database_url="mysql://u:hush@h/d")
    assert not any("hush" in line for line in faults(ReceiverSettings) + faults(SenderSettings))


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


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///",
        "sqlite+aiosqlite:///",
        "sqlite://x.db",
        "mysql://h/d",
        "x",
    ],
)
def test_database_url_that_is_none(set: Set, faults: Faults, url: str) -> None:
    set(api_keys=KEY, database_url=url)
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_DATABASE_URL: ")


def test_tokens_are_verified_in_exactly_one_way(set: Set, faults: Faults) -> None:
    set(api_keys=KEY)
    assert "exactly one" in faults(ReceiverSettings)[0]
    set(jwt_secret=SECRET, jwks_url="https://issuer.example/keys")
    assert "exactly one" in faults(ReceiverSettings)[0]


def test_secret_that_is_too_short(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secret="s" * 31)
    assert "at least 32 bytes" in faults(ReceiverSettings)[0]


def test_public_key_as_secret_is_a_fault(set: Set, faults: Faults) -> None:
    """Anyone who knows it could sign tokens, and it is public."""
    set(api_keys=KEY, jwt_secret="-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n")
    assert "a key of another kind" in faults(ReceiverSettings)[0]


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/", "https://shop.example/x", "*", "ftp://h", "null"]
)
def test_origin_that_is_none(set: Set, faults: Faults, origin: str) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, allowed_origins=f"https://a.example,{origin}")
    (line,) = faults(ReceiverSettings)
    assert f"{origin!r} is not an origin" in line


def test_origins_are_kept_as_browsers_send_them(set: Set) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, allowed_origins="HTTPS://Shop.Example:443, http://büro.example:8080")
    assert load(ReceiverSettings).allowed_origins == (
        "https://shop.example",
        "http://xn--bro-hoa.example:8080",
    )


def test_any_proxy_is_refused(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, forwarded_allow_ips="*")
    assert "any client's" in faults(SenderSettings)[0]


@pytest.mark.parametrize("address", ["proxy.internal", "10.0.0.1/8", "10.0.0.0/99"])
def test_proxy_that_is_no_address_is_refused(set: Set, faults: Faults, address: str) -> None:
    set(api_keys=KEY, forwarded_allow_ips=f"10.0.0.0/8,::1,{address}")
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_FORWARDED_ALLOW_IPS: ")
    assert line.endswith(f"not '{address}'")


@pytest.mark.parametrize("name", ["a b", "token;path", "token=", "jetón"])
def test_cookie_that_no_browser_sends_is_refused(set: Set, faults: Faults, name: str) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, jwt_cookie=name)
    (line,) = faults(ReceiverSettings)
    assert line.startswith("orderbell: ORDERBELL_JWT_COOKIE: ")


def test_authority_for_a_sender_without_tls_is_a_fault(set: Set, faults: Faults, tmp_path: Path) -> None:
    """The certificate would prove nothing."""
    authority = Certificates.make(tmp_path).ca
    set(api_keys=KEY, jwt_secret=SECRET, sender_ca_file=str(authority))
    assert faults(ReceiverSettings) == [
        "orderbell: ORDERBELL_SENDER_CA needs an ORDERBELL_SENDER_URL with https://"
    ]
    set(sender_url="https://sender")
    assert load(ReceiverSettings).sender_ca == authority.read_text().strip()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "shop.example", ""])
def test_development_mode_refuses_to_listen_beyond_loopback(set: Set, faults: Faults, host: str) -> None:
    set(api_keys=KEY, development="1")
    (line,) = faults(SenderSettings, host=host)
    assert "loopback" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_development_mode_listens_on_loopback(set: Set, host: str) -> None:
    set(api_keys=KEY, development="1")
    assert load(SenderSettings, host=host).development


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
    ],
)
def test_unusual_value_that_works_is_taken(set: Set, name: str, value: str) -> None:
    needed = {"api_keys": KEY} | ({} if name == "jwks_url" else {"jwt_secret": SECRET})
    set(**(needed | {name: value}))
    load(SenderSettings if name in SenderSettings.model_fields else ReceiverSettings)


@pytest.mark.parametrize("quotes", ['"{}"', "'{}'", "`{}`", ' "{}"\n'])
def test_quotation_marks_around_a_value_are_a_fault(
    set: Set, faults: Faults, tmp_path: Path, quotes: str
) -> None:
    """As Docker's --env-file keeps them."""
    set(api_keys=quotes.format(KEY), redis_url=quotes.format("redis://h"), history_days=quotes.format("7"))
    lines = faults(SenderSettings)
    assert len(lines) == 3
    assert all("remove the quotation marks" in line for line in lines)
    assert KEY not in "".join(lines)
    (tmp_path / "key").write_text(quotes.format(KEY))
    set(api_keys="", api_keys_file=str(tmp_path / "key"), redis_url="", history_days="")
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_API_KEYS: remove")


def test_every_field_of_both_services_is_a_known_name() -> None:
    assert {"ORDERBELL_DATABASE_URL", "ORDERBELL_JWKS_URL", "ORDERBELL_API_KEYS_FILE"} <= known_names()


# --- one name for one thing


def keys_of(settings: Settings) -> list[str]:
    return [key.get_secret_value() for key in settings.api_keys]


@pytest.mark.parametrize("settings_class", [SenderSettings, ReceiverSettings])
def test_the_callers_name_for_a_key_is_taken_by_services_too(
    set: Set, settings_class: type[Settings]
) -> None:
    set(api_key=KEY, jwt_secret=SECRET)
    assert keys_of(load(settings_class)) == [KEY]
    set(api_keys=f"{KEY}1,{KEY}")  # beside it: a gateway calls the sender with the first
    assert keys_of(load(settings_class)) == [KEY, f"{KEY}1"]


def test_fault_of_a_key_names_the_variable_it_is_in(set: Set, faults: Faults) -> None:
    set(api_key="short")
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_API_KEY: a key needs at least 16 characters")


# --- what Kubernetes sets

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


# --- what editors and shells put around a value


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "\ufeff{}", "\ufeff{}\r\n", " {}\t\n\n"])
def test_what_surrounds_a_secret_does_not_count(set: Set, tmp_path: Path, around: str) -> None:
    for name, value in (("key", KEY), ("secret", SECRET), ("secrets", f"{SECRET}\r\n{'t' * 32}")):
        (tmp_path / name).write_bytes(around.format(value).encode())
    set(api_keys_file=str(tmp_path / "key"), jwt_secret_file=str(tmp_path / "secret"))
    settings = load(ReceiverSettings)
    assert keys_of(settings) == [KEY]
    assert [secret.get_secret_value() for secret in settings.secrets] == [SECRET]
    set(api_keys_file="", jwt_secret_file="", jwt_secrets_file=str(tmp_path / "secrets"))
    set(api_keys=around.format(KEY))
    settings = load(ReceiverSettings)
    assert keys_of(settings) == [KEY]
    assert [secret.get_secret_value() for secret in settings.secrets] == [SECRET, "t" * 32]


def test_keys_may_stand_one_a_line(set: Set, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(f"{KEY}1\r\n{KEY}2\n\n{KEY}1,{KEY}3\n".encode())
    set(api_keys_file=str(tmp_path / "keys"))
    assert keys_of(load(SenderSettings)) == [f"{KEY}1", f"{KEY}2", f"{KEY}3"]


@pytest.mark.parametrize("key", [f"{KEY} x", f"{KEY}\u200b", f"{KEY}é", f"{KEY}\x07"])
def test_key_that_no_header_can_carry_is_a_fault(set: Set, faults: Faults, key: str) -> None:
    set(api_keys=key)
    (line,) = faults(SenderSettings)
    assert "visible ASCII" in line
    assert KEY not in line


# --- all at once


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


# --- tokens


def test_several_secrets_while_one_replaces_another(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secrets=f"{'t' * 32},{SECRET}")
    assert [secret.get_secret_value() for secret in load(ReceiverSettings).secrets] == ["t" * 32, SECRET]
    set(jwt_secret="u" * 32)
    assert load(ReceiverSettings).secrets[0].get_secret_value() == "u" * 32
    set(jwt_secrets=f"{SECRET},short")
    (line,) = faults(ReceiverSettings)
    assert line.startswith("orderbell: ORDERBELL_JWT_SECRETS: needs at least 32 bytes")


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


def test_audiences_may_be_several(set: Set, faults: Faults) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, jwt_audience="shop-web, shop-app")
    assert load(ReceiverSettings).jwt_audiences == ("shop-web", "shop-app")
    set(jwt_audience=" , ")
    assert "at least one audience" in faults(ReceiverSettings)[0]


@pytest.mark.parametrize("claim", [".", "a\x00b"[:1] + "\x07", "\u200b\x1b"])
def test_claim_that_has_no_name(set: Set, faults: Faults, claim: str) -> None:
    set(api_keys=KEY, jwt_secret=SECRET, jwt_customer_claim=claim)
    (line,) = faults(ReceiverSettings)
    assert line.startswith("orderbell: ORDERBELL_JWT_CUSTOMER_CLAIM: expected the name of a claim")


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
