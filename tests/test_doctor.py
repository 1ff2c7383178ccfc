"""`orderbell doctor` finds each fault, names the line to change, and finds nothing if all is well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from redis import Redis

from shared.commands.doctor import Asked, find
from shared.commands.doctor.clocks import clock
from shared.commands.doctor.findings import Verdict
from shared.commands.doctor.redis import memory, version
from shared.commands.doctor.services import open_files
from shared.settings import PREFIX
from tests import commands, postgres_servers
from tests.end_to_end.test_main_path import api, complete
from tests.issuers import running_issuer, sign_with
from tests.processes import REPOSITORY, clean_environment
from tests.waiting import wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Processes, ReceiverProcess, SenderProcess

    Faults = Callable[..., dict[str, tuple[str, str]]]


_DIFFERING = "sender settings"


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {
        name if "proxy" in name else f"ORDERBELL_{name.upper()}": value for name, value in settings.items()
    }
    cli = "shared.commands.cli"
    return commands.run(cli, "doctor", *arguments, environment=environment, directory=directory)


def examine(directory: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    done = run(directory, *arguments, **settings)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def rows(output: str) -> dict[str, str]:
    """The checks and their verdicts."""
    lines = [line for line in output.splitlines() if not line.startswith("  ")]
    return {line[6:].split("  ")[0].strip(): line[:4].strip() for line in lines}


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    """The gateway of a shop that has completed an order."""
    gateway = module_processes.start_receiver()
    with httpx2.Client(base_url=sender.url, headers=module_processes.api_headers, trust_env=False) as client:
        assert client.post("/orders", json={"order_id": "1", "customer_id": "alice"}).status_code == 201
        assert client.post("/orders/1/complete").status_code == 200
    return gateway


@pytest.fixture
def good(module_processes: Processes, sender: SenderProcess) -> dict[str, str]:
    """The settings of a healthy installation; names without the prefix."""
    return {
        "redis_url": module_processes.redis_url,
        "key_prefix": module_processes.key_prefix,
        "api_keys": module_processes.api_key,
        "jwt_secret": module_processes.jwt_secret,
        "database_url": module_processes.database_url,
        "sender_url": sender.url,
    }


@pytest.fixture
def faults(good: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Faults:
    """The faults found with these changes to good settings: each one's check, message and advice.

    Without differing settings: for a minute, the sender remembers the gateways of the tests before.
    """

    def faults(asked: Asked | None = None, **changes: str) -> dict[str, tuple[str, str]]:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            monkeypatch.delenv(name)
        for name, value in {**good, **changes}.items():
            monkeypatch.setenv(PREFIX + name.upper(), value)
        found = find(asked or Asked())
        bad = {one.what: (one.says, one.fix) for one in found if one.verdict is not Verdict.OK}
        bad.pop(_DIFFERING, None)
        return bad

    return faults


# --- nothing is found where nothing is


def test_everything_is_well(gateway: ReceiverProcess, good: dict[str, str], tmp_path: Path) -> None:
    """Proxies in the environment don't matter: they are for outgoing connections."""
    proxies = {"http_proxy": "http://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9"}
    code, output = examine(tmp_path, "--gateway", gateway.url, "--url", gateway.url, **good, **proxies)
    assert code == 0, output
    expected = ["settings", "database", "redis", "redis version", "redis memory", "redis clock", "redis use"]
    expected += ["redis sender", "sender", "sender clock", "sender key"]
    expected += ["gateway", "gateway clock", "gateway files", "gateway door", "public door"]
    assert rows(output) == dict.fromkeys(expected, "ok")
    assert good["api_keys"] not in output
    assert "→" not in output


def test_services_that_run_with_different_settings(
    module_processes: Processes, sender: SenderProcess, good: dict[str, str], tmp_path: Path
) -> None:
    other = module_processes.start_receiver(sender=sender, jwt_issuer="https://other.example/")
    try:
        wait_until(lambda: 'setting="jwt_issuer"} 1.0' in httpx2.get(f"{sender.url}/metrics").text)
        _, output = examine(tmp_path, **good)
    finally:
        other.kill()
    assert rows(output)[_DIFFERING] == "warn"
    assert "ORDERBELL_JWT_ISSUER" in output


def test_everything_is_well_where_an_issuer_signs(
    module_processes: Processes, sender: SenderProcess, faults: Faults
) -> None:
    with running_issuer() as issuer:
        settings = {"jwt_secret": "", "jwks_url": issuer.url}
        gateway = module_processes.start_receiver(sender=sender, **settings)  # type: ignore[arg-type]
        try:
            for token in (None, sign_with("ES256")):
                assert faults(Asked(gateways=[gateway.url], url=gateway.url, token=token), **settings) == {}
        finally:
            gateway.kill()


def test_everything_is_well_where_the_sender_runs(
    gateway: ReceiverProcess, good: dict[str, str], faults: Faults
) -> None:
    """Without the gateways' settings, as in the sender's container."""
    assert faults(jwt_secret="") == {}
    assert "token" in faults(Asked(token="x.y.z"), jwt_secret="")
    assert "settings" in faults(jwt_secret="", database_url="")  # then it is a gateway's, and lacks them
    assert "settings" in faults(jwks_url="https://id.example/keys")


# --- the ten


def test_1_key_that_the_sender_refuses(faults: Faults) -> None:
    found = faults(api_keys="another-key-of-ours")
    assert list(found) == ["sender key"]
    says, fix = found["sender key"]
    assert "refuses the API key" in says
    assert fix.startswith("the gateways' ORDERBELL_API_KEYS: ")


def test_1_gateway_whose_key_the_sender_refuses(
    module_processes: Processes, sender: SenderProcess, faults: Faults
) -> None:
    gateway = module_processes.start_receiver(sender=sender, api_keys="another-key-of-ours", wait_ready=False)
    try:
        wait_until(lambda: gateway.answers("/livez"))
        found = faults(Asked(gateways=[gateway.url]))
        assert "gateway" in found or "gateway door" in found
    finally:
        gateway.kill()


@pytest.mark.parametrize("changes", [{"key_prefix": "another"}, {"redis_url": "/1"}])
def test_2_other_names_in_redis_than_the_senders(
    gateway: ReceiverProcess, good: dict[str, str], faults: Faults, changes: dict[str, str]
) -> None:
    if "redis_url" in changes:
        changes = {"redis_url": good["redis_url"].rpartition("/")[0] + "/1"}
    for asked in (Asked(), Asked(gateways=[gateway.url])):
        says, fix = faults(asked, **changes)["redis sender"]
        assert "the sender" in says
        assert "ORDERBELL_REDIS_URL (with its database number), ORDERBELL_KEY_PREFIX" in fix


def test_2_gateway_that_hears_another_redis(
    module_processes: Processes, sender: SenderProcess, faults: Faults
) -> None:
    gateway = module_processes.start_receiver(sender=sender, key_prefix="another")
    try:
        says, fix = faults(Asked(gateways=[gateway.url]))["gateway door redis"]
        assert "does not hear this Redis" in says
        assert "ORDERBELL_KEY_PREFIX" in fix
    finally:
        gateway.kill()


def test_2_second_gateway_that_hears_another_redis_is_found_by_the_same_token(
    module_processes: Processes, sender: SenderProcess, gateway: ReceiverProcess, faults: Faults
) -> None:
    """The first gateway hears the right Redis, and remembers the token's customer for a while."""
    deaf = module_processes.start_receiver(sender=sender, key_prefix="another")
    try:
        asked = Asked(gateways=[gateway.url, deaf.url], token=module_processes.token("alice"))
        says, _ = faults(asked)["gateway door redis"]
        assert f":{deaf.url.rpartition(':')[2]}/events does not hear this Redis" in says
    finally:
        deaf.kill()


@pytest.mark.long
def test_2_second_gateway_that_hears_another_redis_is_found_where_only_an_issuer_signs(
    module_processes: Processes, sender: SenderProcess, faults: Faults
) -> None:
    with running_issuer() as issuer:
        settings = {"jwt_secret": "", "jwks_url": issuer.url}
        hearing = module_processes.start_receiver(sender=sender, **settings)  # type: ignore[arg-type]
        deaf = module_processes.start_receiver(sender=sender, key_prefix="another", **settings)  # type: ignore[arg-type]
        try:
            asked = Asked(gateways=[hearing.url, deaf.url], token=sign_with("ES256"))
            says, _ = faults(asked, **settings)["gateway door redis"]
            assert f":{deaf.url.rpartition(':')[2]}/events does not hear this Redis" in says
        finally:
            hearing.kill()
            deaf.kill()


@pytest.mark.anyio
async def test_gateway_with_other_live_keys_than_the_senders_is_found(
    module_processes: Processes, faults: Faults
) -> None:
    signing = module_processes.start_sender(live_keys="one:" + "a" * 32)
    gateway = module_processes.start_receiver(sender=signing, live_keys="two:" + "b" * 32)
    try:
        asked = Asked(gateways=[gateway.url])
        assert "gateway live keys" not in await asyncio.to_thread(faults, asked)
        async with (
            api(module_processes, signing) as client,
            connected(gateway, module_processes.token("alice")) as browser,
        ):
            await complete(client, "1042", "alice")
            await browser.receive_events(1)  # from the history
        says, fix = (await asyncio.to_thread(faults, asked))["gateway live keys"]
        assert "that none of its ORDERBELL_LIVE_KEYS has signed" in says
        assert fix.startswith("ORDERBELL_LIVE_KEYS")
    finally:
        gateway.kill()
        signing.kill()


def test_3_sender_that_is_not_there(gateway: ReceiverProcess, faults: Faults) -> None:
    found = faults(sender_url="http://127.0.0.1:9")
    assert found["sender"][0] == "http://127.0.0.1:9: nothing listens there (connection refused)"
    assert found["sender"][1].startswith("ORDERBELL_SENDER_URL: ")
    found = faults(sender_url=gateway.url)
    assert "a gateway, not a sender" in found["sender key"][0]
    assert found["sender key"][1].startswith("ORDERBELL_SENDER_URL: ")


def test_3_each_command_recognises_the_other_service(
    module_processes: Processes, sender: SenderProcess, gateway: ReceiverProcess, faults: Faults
) -> None:
    found = faults(Asked(gateways=[sender.url]))
    assert "is a sender, not a gateway" in found["gateway"][0]
    settings = {"api_keys": module_processes.api_key, "jwt_secret": module_processes.jwt_secret}
    environment = clean_environment() | {f"ORDERBELL_{name.upper()}": is_ for name, is_ in settings.items()}
    for arguments, url, words in (
        (("watch", "alice", "--gateway"), sender.url, "is a sender"),
        (("watch", "alice", "--transport", "sse", "--gateway"), sender.url, "is a sender"),
        (("trace", "--order", "1", "--sender"), gateway.url, "is a gateway"),
        (("kick", "alice", "--sender"), gateway.url, "is a gateway"),
    ):
        done = commands.run("shared.commands.cli", *arguments, url, environment=environment)
        assert done.returncode in (1, 3)
        assert f"{url} {words}" in done.stderr


def test_4_issuer_that_is_away_or_answers_something_else(faults: Faults) -> None:
    found = faults(jwt_secret="", jwks_url="http://127.0.0.1:9/keys")
    assert "nothing listens there" in found["issuer"][0]
    assert found["issuer"][1].startswith("ORDERBELL_JWKS_URL: ")
    with running_issuer() as issuer:
        issuer.body = b'{"jwks_uri": "https://id.example/keys"}'
        assert "https://id.example/keys" in faults(jwt_secret="", jwks_url=issuer.url)["issuer"][0]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql+asyncpg://u:hush@127.0.0.1:9/d", "nothing listens there"),
        ("postgresql+asyncpg://u:hush@nowhere.invalid/d", "nowhere.invalid"),
        ("sqlite:////no/such/directory/orderbell.db", "no such directory"),
    ],
)
def test_5_database_url_to_nowhere(faults: Faults, url: str, why: str) -> None:
    found = faults(database_url=url)
    assert list(found) == ["database"]
    assert why in found["database"][0]
    assert "hush" not in found["database"][0]
    assert found["database"][1].startswith("ORDERBELL_DATABASE_URL: ")


@pytest.mark.long
@pytest.mark.postgres
def test_5_database_without_the_tls_that_its_url_asks_for(faults: Faults, postgres_url: str) -> None:
    with postgres_servers.fresh_database(postgres_url) as url:
        assert faults(database_url=url) == {}
        says, fix = faults(database_url=f"{url}?sslmode=require")["database"]
        assert "SSL" in says or "TLS" in says
        assert "drop sslmode" in fix


def test_6_gateway_with_200_open_files(
    module_processes: Processes, sender: SenderProcess, faults: Faults
) -> None:
    gateway = module_processes.start_receiver(sender=sender, wait_ready=False)
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (200, 200))
    try:
        gateway.wait_ready()
        says, fix = faults(Asked(gateways=[gateway.url]))["gateway files"]
        assert says.startswith("only 200 may be open")
        assert "ulimit -n 10100" in fix
    finally:
        gateway.kill()


@pytest.mark.long
def test_6_machine_that_allows_200_open_files(good: dict[str, str], tmp_path: Path) -> None:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {f"ORDERBELL_{name.upper()}": value for name, value in good.items()}
    shell = f"ulimit -n 200; exec {sys.executable} -m shared.commands.cli doctor"
    done = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert rows(done.stdout)["open files"] == "fail"
    assert "→ ulimit -n 10100" in done.stdout


def test_7_heartbeat_above_the_time_outs_of_proxies(
    module_processes: Processes, sender: SenderProcess, faults: Faults
) -> None:
    assert faults(heartbeat_seconds="120")["heartbeat"][1] == "ORDERBELL_HEARTBEAT_SECONDS=20"
    gateway = module_processes.start_receiver(sender=sender, heartbeat_seconds="50")
    try:
        found = faults(Asked(gateways=[gateway.url]))
        assert found["gateway door heartbeat"][1] == "ORDERBELL_HEARTBEAT_SECONDS=20"
    finally:
        gateway.kill()


def test_8_token_for_another_audience(module_processes: Processes, faults: Faults) -> None:
    token = module_processes.token("alice")
    assert faults(Asked(token=token)) == {}
    says, fix = faults(Asked(token=token), jwt_audience="shop")["token"]
    assert "another audience" in says
    assert fix == "issue it for the audience shop (ORDERBELL_JWT_AUDIENCE)"
    assert faults(Asked(token="abc"))["token"][0] == "it is not a JWT"


def test_8_public_address_where_nothing_listens(faults: Faults) -> None:
    says, fix = faults(Asked(url="http://127.0.0.1:9"))["public door"]
    assert "nothing listens there (connection refused)" in says
    assert fix.startswith("--url: ")


@pytest.mark.parametrize(
    ("claims", "settings", "fix"),
    [
        ({"aud": None, "azp": "orderbell"}, {}, "ORDERBELL_JWT_AUDIENCE_CLAIM=azp"),
        ({"aud": ["a", "b"]}, {}, "issue it for the audience orderbell (ORDERBELL_JWT_AUDIENCE)"),
        ({"iss": "https://x/"}, {"jwt_issuer": "https://x"}, "ORDERBELL_JWT_ISSUER=https://x/"),
        (
            {"iss": "https://y"},
            {"jwt_issuer": "https://x"},
            "use a token of the issuer that ORDERBELL_JWT_ISSUER names: https://x",
        ),
        (
            {"sub": None, "uid": "7"},
            {},
            "ORDERBELL_JWT_CUSTOMER_CLAIM: the claim that holds the customer, one of aud, exp, uid",
        ),
        ({"exp": 1}, {}, ""),
    ],
)
def test_8_other_tokens_that_settings_do_not_take(
    faults: Faults, claims: dict[str, Any], settings: dict[str, str], fix: str
) -> None:
    with running_issuer() as issuer:
        found = faults(
            Asked(token=sign_with("ES256", **claims)), jwt_secret="", jwks_url=issuer.url, **settings
        )
    assert list(found) == ["token"]
    assert found["token"][1] == fix


def test_8_token_signed_in_another_way_or_with_another_secret(
    module_processes: Processes, faults: Faults
) -> None:
    found = faults(Asked(token=sign_with("ES256")))
    assert "ORDERBELL_JWKS_URL instead of ORDERBELL_JWT_SECRET" in found["token"][1]
    found = faults(Asked(token=module_processes.token("alice")), jwt_secret="x" * 32)
    assert found["token"][1].startswith("ORDERBELL_JWT_SECRET or ORDERBELL_JWT_SECRETS: ")


@pytest.mark.postgres
def test_9_database_that_takes_no_writes(faults: Faults, postgres_url: str) -> None:
    with postgres_servers.fresh_database(postgres_url) as url:
        name = url.rpartition("/")[2]
        postgres_servers._execute(
            postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        )
        says, fix = faults(database_url=url)["database"]
    assert "takes no writes" in says
    assert "default_transaction_read_only" in fix


def test_9_file_that_is_no_database(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database, but longer than a header of one: " + "x" * 1000)
    found = faults(database_url=f"sqlite:///{tmp_path}/x.db")
    assert list(found) == ["database"]
    assert "not a database" in found["database"][0]


def test_9_file_removed_under_the_sender(module_processes: Processes, faults: Faults, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orderbell.db"
    # The module's sender has claimed the usual names in Redis for its own database.
    sender = module_processes.start_sender(database_url=url, key_prefix="removed")
    os.unlink(tmp_path / "orderbell.db")
    found = faults(database_url=url, sender_url=sender.url)
    assert "is not the file that the running sender has opened" in found["database"][0]
    assert found["database"][1].startswith("move the file back")
    assert "was removed or replaced" in found["sender"][0]
    assert found["sender"][1].startswith("move the file back")
    environment = {**clean_environment(), "ORDERBELL_API_KEYS": module_processes.api_key}
    arguments = ("trace", "--order", "1", "--sender", sender.url)
    asked = commands.run("shared.commands.cli", *arguments, environment=environment)
    assert asked.returncode == 3
    assert "was removed or replaced" in asked.stderr
    sender.kill()


def test_9_file_on_a_full_disk(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 300, 1, 1, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    says, fix = faults()["database"]
    assert says.endswith("takes no writes: the disk is full")
    assert fix == "free or add space on its disk"


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may write everything, and services do not run as root."""
    if user := os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(user)


def test_9_file_that_may_not_be_written(faults: Faults, as_nobody: None) -> None:
    with tempfile.TemporaryDirectory() as directory:  # of this user; pytest's is its starter's
        file = Path(directory) / "x.db"
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE orders (x)")
        file.chmod(0o444)
        Path(directory).chmod(0o555)
        found = faults(database_url=f"sqlite:///{file}")
        Path(directory).chmod(0o755)
    assert "read-only: no order can be stored" in found["database"][0]
    assert "let the sender's user write the file" in found["database"][1]


def test_10_redis_that_is_full(redis_server: EmbeddedServer, faults: Faults) -> None:
    with Redis.from_url(redis_server.url) as redis:
        redis.config_set("maxmemory", 1)
    found = faults(redis_url=redis_server.url)
    assert "Redis is full" in found["redis use"][0]
    assert "maxmemory" in found["redis use"][1]
    assert "Redis is full" in found["redis memory"][0]


# --- what else


def test_nothing_is_there(tmp_path: Path) -> None:
    settings = {"redis_url": "redis://:hush@127.0.0.1:9", "api_keys": "k" * 16, "jwt_secret": "s" * 32}
    code, output = examine(
        tmp_path, "--sender", "http://127.0.0.1:9", "--gateway", "http://127.0.0.1:9", **settings
    )
    assert code == 1
    assert rows(output) == {"settings": "ok", "redis": "fail", "sender": "fail", "gateway": "fail"}
    assert output.count("→") == 3
    assert "hush" not in output


@pytest.mark.parametrize("option", ["--sender", "--gateway", "--url"])
def test_address_that_is_none_is_one_line(tmp_path: Path, option: str) -> None:
    done = run(tmp_path, option, "nonsense", api_keys="k" * 16, jwt_secret="s" * 32)
    assert done.returncode == 2
    assert "'nonsense' is not a URL" in done.stderr


def test_each_fault_of_the_settings_is_a_line(tmp_path: Path) -> None:
    code, output = examine(tmp_path, redis_url="nonsense", log_level="LOUD")
    assert code == 1
    lines = output.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("fail  settings  ") for line in lines)


def test_redis_that_evicts_is_warned_of(redis_server: EmbeddedServer, faults: Faults) -> None:
    with Redis.from_url(redis_server.url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
    assert faults(redis_url=redis_server.url)["redis memory"][1].endswith("maxmemory-policy noeviction")


def test_users_of_redis_need_no_more_than_services_do(redis_server: EmbeddedServer, faults: Faults) -> None:
    """The users that we ship, unchanged, and then without one of their rights."""
    acl = (REPOSITORY / "deploy" / "users.acl").read_text(encoding="utf-8").splitlines()
    rules = {line.split()[1]: line.split()[2:] for line in acl if line.startswith("user ")}

    def found(user: str, *changes: str, **settings: str) -> dict[str, tuple[str, str]]:
        with Redis.from_url(redis_server.url) as redis:
            selectors = " ".join(rules[user])
            words = re.findall(r"\([^)]*\)|\S+", selectors)
            redis.execute_command("ACL", "SETUSER", user, "reset", "on", ">secret", *words, *changes)
        url = redis_server.url.replace("//", f"//{user}:secret@")
        everything = faults(redis_url=url, key_prefix="ob", **settings)
        return {what: fault for what, fault in everything.items() if what in ("redis", "redis use")}

    assert found("sender") == {}
    assert found("gateway", database_url="") == {}
    assert "redeem tickets" in found("gateway", "-getdel", database_url="")["redis use"][0]
    assert "deploy/users.acl" in found("sender", "-eval")["redis use"][1]
    assert "redis use" in found("gateway")  # it may not publish, and a sender's settings want to


def test_frozen_redis_is_reported_in_a_few_seconds(redis_server: EmbeddedServer, faults: Faults) -> None:
    redis_server.stop()
    started = time.monotonic()
    assert "redis" in faults(redis_url=redis_server.url)
    redis_server.resume()
    assert time.monotonic() - started < 15


def test_claims_that_users_write_themselves(faults: Faults) -> None:
    found = faults(jwt_customer_claim="user_metadata.id")
    assert "ORDERBELL_JWT_CUSTOMER_CLAIM" in found["claims"][0]


@pytest.mark.parametrize(
    ("name", "text", "verdict"),
    [
        ("Redis", "6.0.16", Verdict.FAIL),
        ("Redis", "6.2.0", Verdict.OK),
        ("Redis", "8.0.1", Verdict.OK),
        ("Valkey", "7.2.5", Verdict.OK),
    ],
)
def test_versions(name: str, text: str, verdict: Verdict) -> None:
    assert version(name, text).verdict is verdict


@pytest.mark.parametrize(
    ("ahead_seconds", "verdict"),
    [
        (0, Verdict.OK),
        (-2, Verdict.OK),
        (6, Verdict.WARN),
        (-29, Verdict.WARN),
        (31, Verdict.FAIL),
        (-3600, Verdict.FAIL),
    ],
)
def test_clocks(ahead_seconds: float, verdict: Verdict) -> None:
    assert clock("redis clock", ahead_seconds).verdict is verdict


@pytest.mark.parametrize(
    ("policy", "used", "limit", "verdict"),
    [
        ("noeviction", 10, 0, Verdict.OK),
        ("noeviction", 10, 100, Verdict.OK),
        ("noeviction", 90, 100, Verdict.WARN),
        ("noeviction", 100, 100, Verdict.FAIL),
        ("volatile-lru", 10, 0, Verdict.WARN),
    ],
)
def test_memory(policy: str, used: int, limit: int, verdict: Verdict) -> None:
    assert memory(policy, used, limit).verdict is verdict


@pytest.mark.parametrize(
    ("limit", "verdict"), [(200, Verdict.FAIL), (4096, Verdict.WARN), (10_100, Verdict.OK)]
)
def test_open_files(limit: int, verdict: Verdict) -> None:
    assert open_files("open files", limit, 10_000).verdict is verdict
