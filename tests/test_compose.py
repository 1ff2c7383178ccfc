"""compose.yaml and what it mounts, compared with the settings that the code knows.

Nothing is started here but Caddy's own check of its file; tests/test_compose_up.py runs all of it for real.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shared.settings import ReceiverSettings, SenderSettings, Settings, known_names, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uvicorn._types import Scope

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CADDYFILE = DEPLOY / "Caddyfile"
KEYS_MOUNT = "/run/orderbell"  # where compose.yaml mounts the secrets
OURS: dict[str, type[Settings]] = {"sender": SenderSettings, "receiver": ReceiverSettings}

_WHOLE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = _WHOLE["services"]


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Replace `${NAME:-default}` (also if empty) and `${NAME-default}` as Compose does; we use no other
    forms.
    """

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        given = environment.get(name)
        return default if given is None or (operator == ":-" and not given) else given

    return re.sub(r"\$\{([A-Z_]+)(:?-)([^}]*)\}", value, text)


def environment_of(service: str, dotenv: Mapping[str, str], keys: Path) -> dict[str, str]:
    """The environment of the process in the container, with the secrets of `keys` in place of the volume."""
    environment = {
        name: interpolate(value, dotenv).replace(KEYS_MOUNT, str(keys))
        for name, value in SERVICES[service]["environment"].items()
    }
    return {**dotenv, **environment}


def example_settings() -> dict[str, str]:
    """deploy/example.env with every suggestion adopted, except those that exclude each other."""
    lines = (DEPLOY / "example.env").read_text(encoding="utf-8").splitlines()
    pairs = [line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line)]
    given = dict(pairs)
    given["ORDERBELL_API_KEYS"] = "the-first-key-of-two, the-second-key-of-two"
    return given


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A volume of secrets as the service `keys` leaves it."""
    subprocess.run([sys.executable, "-I", DEPLOY / "keys.py", tmp_path], check=True, timeout=30)
    return tmp_path


@pytest.fixture(autouse=True)
def _only_ours_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ORDERBELL_")]:
        monkeypatch.delenv(name)


def load_in_container(
    service: str, dotenv: Mapping[str, str], keys: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    for name, value in environment_of(service, dotenv, keys).items():
        monkeypatch.setenv(name, value)
    return load(OURS[service], host=option(service, "--host"))


def option(service: str, name: str) -> str:
    command = SERVICES[service]["command"]
    return str(command[command.index(name) + 1])


# --- the settings


@pytest.mark.parametrize(
    "path", ["compose.yaml", "deploy/Dockerfile", "deploy/Caddyfile", "deploy/example.env", "deploy/keys.py"]
)
def test_every_setting_named_is_one_that_the_code_reads(path: str) -> None:
    named = set(re.findall(r"ORDERBELL_[A-Z][A-Z_]*", (ROOT / path).read_text(encoding="utf-8")))
    assert named <= known_names()


@pytest.mark.parametrize("service", OURS)
def test_the_settings_are_whole_without_an_env_file(
    service: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_in_container(service, {}, keys, monkeypatch)
    assert not settings.development
    assert settings.api_keys[0].get_secret_value() == (keys / "api_keys").read_text(encoding="utf-8")


def test_sender_and_gateways_find_each_other_and_their_servers(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = load_in_container("sender", {}, keys, monkeypatch)
    receiver = load_in_container("receiver", {}, keys, monkeypatch)
    assert isinstance(sender, SenderSettings)
    assert isinstance(receiver, ReceiverSettings)
    for user, url in (("sender", sender.redis_url), ("gateway", receiver.redis_url)):
        assert re.fullmatch(rf"redis://{user}:[0-9a-f]{{64}}@valkey:6379/0", url)
        password = (urlsplit(url).password or "").encode()
        acl = (keys / "users.acl").read_text(encoding="utf-8")
        assert f"user {user} on #{hashlib.sha256(password).hexdigest()} " in acl
    assert sender.database_url.endswith("@postgres:5432/orderbell")
    assert str(receiver.sender_url) == f"http://sender:{option('sender', '--port')}/"
    for service, others in {"sender": ("valkey", "postgres"), "receiver": ("valkey", "sender")}.items():
        for other in others:
            assert set(SERVICES[service]["networks"]) & set(SERVICES[other]["networks"])


@pytest.mark.parametrize("service", OURS)
def test_every_suggestion_of_the_example_is_taken(
    service: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Either the shop's secret or an identity provider's keys.
    given = {name: value for name, value in example_settings().items() if name != "ORDERBELL_JWT_SECRET"}
    settings = load_in_container(service, given, keys, monkeypatch)
    assert len(settings.api_keys) == 2
    if isinstance(settings, ReceiverSettings):
        assert settings.jwt_secret is None
        assert settings.allowed_origins == ("https://shop.example",)
    if isinstance(settings, SenderSettings):
        assert settings.database_url == given["ORDERBELL_DATABASE_URL"]


def test_a_secret_in_the_env_file_goes_before_the_one_that_was_made(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"ORDERBELL_JWT_SECRET": "the secret the shop already signs with"}
    receiver = load_in_container("receiver", given, keys, monkeypatch)
    assert isinstance(receiver, ReceiverSettings)
    assert receiver.jwt_secret is not None
    assert receiver.jwt_secret.get_secret_value() == given["ORDERBELL_JWT_SECRET"]


@pytest.mark.parametrize("service", OURS)
def test_the_whole_env_file_reaches_the_settings_so_a_misspelt_name_is_reported(service: str) -> None:
    assert SERVICES[service]["env_file"] == [{"path": ".env", "required": False}]


def test_neither_side_is_given_the_secret_of_the_other(keys: Path) -> None:
    given = {"ORDERBELL_DATABASE_URL": "postgresql+asyncpg://a:b@c/d", "ORDERBELL_JWT_SECRET": "x" * 32}
    assert environment_of("receiver", given, keys)["ORDERBELL_DATABASE_URL"] == ""
    assert environment_of("sender", given, keys)["ORDERBELL_JWT_SECRET"] == ""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("peer", "client"),
    [("172.18.0.5", "203.0.113.7"), ("192.168.16.2", "203.0.113.7"), ("198.51.100.9", "198.51.100.9")],
)
async def test_the_balancer_is_believed_about_the_client_and_no_stranger_is(
    peer: str, client: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_in_container("receiver", {}, keys, monkeypatch)
    told: list[object] = []

    async def app(scope: Scope, receive: object, send: object) -> None:
        if scope["type"] != "lifespan":
            told.append(scope["client"])

    scope: Any = {"type": "http", "client": (peer, 5), "headers": [(b"x-forwarded-for", b"203.0.113.7")]}
    nobody: Any = None
    await ProxyHeadersMiddleware(app, list(settings.forwarded_allow_ips))(scope, nobody, nobody)
    assert told == [(client, 0 if peer != client else 5)]


# --- starting and ending


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_waits_for_what_it_needs(service: str) -> None:
    for needed, how in SERVICES[service].get("depends_on", {}).items():
        ends = SERVICES[needed]["restart"] == "no"
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")


def test_services_that_read_the_secrets_start_after_they_are_made() -> None:
    readers = {
        name
        for name, service in SERVICES.items()
        if any(volume.startswith("keys:") for volume in service.get("volumes", ())) and name != "keys"
    }
    assert readers == {"postgres", "valkey", "sender", "receiver"}
    assert all("keys" in SERVICES[name]["depends_on"] for name in readers)


@pytest.mark.parametrize("service", sorted(SERVICES.keys() - {"keys"}))
def test_each_service_says_whether_it_is_well_and_comes_back(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"  # no shell between


@pytest.mark.parametrize("service", OURS)
def test_ready_is_asked_at_the_port_listened_on(service: str) -> None:
    url = SERVICES[service]["healthcheck"]["test"][-1]
    assert url == f"http://127.0.0.1:{option(service, '--port')}/readyz"


def test_gateways_may_be_any_number() -> None:
    receiver = SERVICES["receiver"]
    assert receiver["deploy"]["replicas"] >= 2
    assert "ports" not in receiver
    assert "container_name" not in receiver


def test_nobody_is_killed_while_draining() -> None:
    grace = SERVICES["receiver"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= ReceiverSettings.model_fields["drain_seconds"].default + 10


# --- what a break-in would find


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_runs_with_as_little_as_it_needs(service: str) -> None:
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    if service != "balancer":
        assert SERVICES[service]["user"] in ("999:999", "valkey", "postgres", "65534:65534", "472:0")
        assert "cap_add" not in SERVICES[service]


def test_only_the_balancer_is_published_and_to_this_machine_alone() -> None:
    usual = {name: service for name, service in SERVICES.items() if "profiles" not in service}
    assert [name for name, service in usual.items() if "ports" in service] == ["balancer"]
    monitoring = [port for name in SERVICES.keys() - usual.keys() for port in SERVICES[name].get("ports", [])]
    assert len(monitoring) == 2
    assert all(port.startswith("127.0.0.1:") for port in monitoring)
    ports = [interpolate(port, {}) for port in SERVICES["balancer"]["ports"]]
    assert ports == ["127.0.0.1:8091:8091", "127.0.0.1:8090:8090"]


def test_the_balancer_reaches_neither_redis_nor_the_database() -> None:
    assert SERVICES["balancer"]["networks"] == ["front"]
    assert "front" not in SERVICES["valkey"]["networks"] + SERVICES["postgres"]["networks"]
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert "database" not in SERVICES["receiver"]["networks"]
    assert all(_WHOLE["networks"][name] == {"internal": True} for name in ("redis", "database"))


def test_valkey_never_throws_an_event_away_in_silence() -> None:
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_valkey_knows_the_users_that_were_made_for_this_prefix(tmp_path: Path) -> None:
    """test_redis_rights.py tests what each may do."""
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--aclfile") + 1] == f"{KEYS_MOUNT}/users.acl"
    environment = {"ORDERBELL_KEY_PREFIX": "shop"}
    subprocess.run(
        [sys.executable, "-I", DEPLOY / "keys.py", tmp_path], check=True, timeout=30, env=environment
    )
    acl = (tmp_path / "users.acl").read_text(encoding="utf-8")
    assert "~shop:log:*" in acl
    assert "ob:" not in acl


# --- the image


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n(\s*#.*\n)*", " ", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, rest in lines]


def values_of(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def test_both_stages_start_from_the_same_image() -> None:
    builder, final = values_of("FROM")
    assert builder == f"{final} AS builder"


def test_the_image_runs_as_nobody_special_and_gets_the_signal_itself() -> None:
    assert values_of("USER") == ["999:999"]
    assert values_of("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(values_of("CMD")[0])[:3] == ["python", "-m", "sender"]
    assert json.loads(values_of("HEALTHCHECK")[0].split("CMD", 1)[1])[0] == "python"
    assert not values_of("ENTRYPOINT")


def test_the_image_holds_what_the_lock_file_says_and_nothing_else() -> None:
    installs = [json.loads(rest) for rest in values_of("RUN") if '"pip"' in rest]
    dependencies, package = installs
    assert dependencies[-3:] == ["--only-binary=:all:", "-r", "requirements.lock"]
    assert "--require-hashes" in dependencies
    assert package[-2:] == ["--no-deps", "."]


def test_what_the_image_is_made_of_reaches_the_builder() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for copied in values_of("COPY"):
        if not copied.startswith("--from"):
            for source in copied.split()[:-1]:
                assert f"!{source.split('/')[0]}" in ignore
                assert (ROOT / source).exists()


def test_the_image_is_built_once_and_never_fetched() -> None:
    ours = {name: service for name, service in SERVICES.items() if service["image"] == "orderbell"}
    assert {name: service["pull_policy"] for name, service in ours.items()} == {
        "keys": "build",
        "sender": "never",
        "receiver": "never",
    }
    assert [name for name, service in SERVICES.items() if "build" in service] == ["keys"]


# --- the secrets


def test_keys_are_made_once_and_differ_between_installations(keys: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_text(encoding="utf-8") for path in keys.iterdir()}
    secrets = {"api_keys", "database_url", "jwt_secret", "live_keys", "postgres_password"}
    assert set(before) == secrets | {"sender_redis_url", "gateway_redis_url", "users.acl"}
    (keys / "jwt_secret").unlink()
    subprocess.run([sys.executable, "-I", DEPLOY / "keys.py", keys], check=True, timeout=30)
    after = {path.name: path.read_text(encoding="utf-8") for path in keys.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"jwt_secret"}


def test_the_address_of_the_database_has_its_password(keys: Path) -> None:
    password = (keys / "postgres_password").read_text(encoding="utf-8")
    assert f":{password}@" in (keys / "database_url").read_text(encoding="utf-8")
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == f"{KEYS_MOUNT}/postgres_password"


def test_every_reader_may_read_the_keys_and_none_may_write_them(keys: Path) -> None:
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in keys.iterdir())


# --- health.py


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("paths", "code"), [(["/livez"], 0), (["/readyz"], 1), (["/readyz", "/livez"], 0), ([], 1)]
)
def test_exit_code_says_whether_it_is_healthy(server: str, paths: list[str], code: int) -> None:
    command = [sys.executable, "-I", str(DEPLOY / "health.py"), *(server + path for path in paths)]
    # An engine may set a proxy in every container; it is not used for our own health check.
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
    assert subprocess.run(command, check=False, timeout=30, env=environment).returncode == code


def test_health_is_bad_where_nobody_listens() -> None:
    command = [sys.executable, "-I", str(DEPLOY / "health.py"), "http://127.0.0.1:9/livez"]
    assert subprocess.run(command, check=False, timeout=30).returncode == 1


# --- the balancer


def test_nothing_is_sticky() -> None:
    text = CADDYFILE.read_text(encoding="utf-8")
    assert re.findall(r"^\s*lb_policy (\S+)", text, re.MULTILINE) == ["least_conn"]
    assert f"dynamic a receiver {option('receiver', '--port')}" in text
    assert f"reverse_proxy sender:{option('sender', '--port')}" in text


def test_caddy_takes_the_caddyfile(tmp_path: Path) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("NOT RUN: caddy is not installed, so nothing has read deploy/Caddyfile")
    text = CADDYFILE.read_text(encoding="utf-8")
    if _is_before_2_7(caddy):  # as in Debian 12 and 13
        text = re.sub(r"\n\s*(stream_close_delay|request_buffers) .*", "", text)
    path = tmp_path / "Caddyfile"
    path.write_text(text, encoding="utf-8")
    subprocess.run(
        [caddy, "validate", "--adapter", "caddyfile", "--config", path],
        check=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},  # where Caddy keeps its own things
    )


def _is_before_2_7(caddy: str) -> bool:
    version = subprocess.run(
        [caddy, "version"], check=True, timeout=60, capture_output=True, text=True
    ).stdout
    numbers = re.match(r"v?2\.(\d+)", version)
    return numbers is not None and int(numbers[1]) < 7
