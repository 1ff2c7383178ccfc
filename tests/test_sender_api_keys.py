"""The keys of the sender's API: each opens it, and nothing else does."""

from __future__ import annotations

import itertools
import os
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from sender.http.api_keys import ApiKeys, ApiKeysOfFile
from sender.http.routes import CALLS
from sender.http.scopes import scopes_for
from shared.api_keys import ALL, ApiKey, Scope
from shared.settings import SenderSettings, read
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sender.http.calls import Call
    from tests.processes import Processes, SenderProcess


def test_each_key_is_accepted_and_no_other() -> None:
    keys = ApiKeys([SecretStr("first-key-of-ours"), SecretStr("second-key-of-ours")])
    assert keys.accept("first-key-of-ours")
    assert keys.accept("second-key-of-ours")
    for wrong in (
        "",
        "first-key-of-our",
        "first-key-of-ours ",
        "first-key-of-ours,second-key-of-ours",
        "é",
        "\udcff",
    ):
        assert not keys.accept(wrong)


def test_file_of_keys_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"

    def write(text: str) -> None:
        """Write it as secrets are replaced: another file takes the name."""
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(file)

    write("the-first-key-of-ours\n")
    monkeypatch.setenv("ORDERBELL_API_KEYS_FILE", str(file))
    keys = ApiKeysOfFile(
        read(SenderSettings).api_keys,
        str(file),
        lambda: read(SenderSettings).api_keys,
        look_seconds=0,
        settle_seconds=0,
    )
    assert keys.accept("the-first-key-of-ours")
    write("the-second-key-of-ours\nthe-first-key-of-ours\n")
    assert keys.accept("the-second-key-of-ours")
    assert keys.accept("the-first-key-of-ours")
    write("the-second-key-of-ours\n")
    assert not keys.accept("the-first-key-of-ours")
    for broken in ("short", " "):
        with capture_logs() as logs:
            write(broken)
            assert keys.accept("the-second-key-of-ours")
            assert keys.accept("the-second-key-of-ours")
        assert len(logs) == 1
        assert "ORDERBELL_API_KEYS" in logs[0]["reason"][0]
    with capture_logs() as logs:
        file.unlink()
        assert keys.accept("the-second-key-of-ours")
    assert len(logs) == 1
    write("the-third-key-of-ours")
    assert keys.accept("the-third-key-of-ours")
    assert not keys.accept("the-second-key-of-ours")


def test_half_written_file_of_keys_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("the-first-key-of-ours\nthe-second-key-of-ours\n")
    monkeypatch.setenv("ORDERBELL_API_KEYS_FILE", str(file))
    keys = ApiKeysOfFile(
        read(SenderSettings).api_keys,
        str(file),
        lambda: read(SenderSettings).api_keys,
        look_seconds=0,
        settle_seconds=60,
    )
    file.write_text("the-first-key-of-ours\nthe-second-key-o")  # a whole key, as far as one can see
    assert keys.accept("the-second-key-of-ours")
    assert not keys.accept("the-second-key-o")
    file.write_text("the-first-key-of-ours\nthe-third-key-of-ours\n")
    assert keys.accept("the-second-key-of-ours")
    os.utime(file, (1, 1))  # it has not changed for long
    assert keys.accept("the-third-key-of-ours")
    assert not keys.accept("the-second-key-of-ours")


def test_running_sender_takes_a_new_key_and_drops_an_old_one(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("the-first-key-of-ours")
    sender = processes.start_sender(api_keys="", api_keys_file=str(file))

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.get(f"{sender.url}/orders", headers=headers, trust_env=False).status_code

    assert (status("the-first-key-of-ours"), status("the-second-key-of-ours")) == (200, 401)
    file.write_text("the-second-key-of-ours")
    wait_until(lambda: status("the-second-key-of-ours") == 200)
    assert status("the-first-key-of-ours") == 401
    assert "the-second-key-of-ours" not in sender.text()


def test_named_key_is_its_last_part_and_a_plain_one_stays_whole() -> None:
    named = ApiKey.parse("shop:orders+events:the-key-of-the-shop:with-a-colon")
    assert (named.get_secret_value(), named.name) == ("the-key-of-the-shop:with-a-colon", "shop")
    assert named.scopes == {Scope.ORDERS, Scope.EVENTS}
    for plain in ("a-key-for-tests-only", "a:b:a-key-for-tests-only", "shop:everything:a-key-for-tests"):
        assert (ApiKey.parse(plain).get_secret_value(), ApiKey.parse(plain).scopes) == (plain, ALL)


def test_every_call_has_a_scope_and_those_that_erase_or_revoke_need_admin() -> None:
    needed = {(call.method, call.path): scopes_for(call.method, call.path) for call in CALLS if call.keyed}
    for call in (("DELETE", "/customers/{customer_id}"), ("POST", "/revocations"), ("GET", "/dead-letters")):
        assert needed[call] == {Scope.ADMIN}
    assert needed["POST", "/history"] == needed["POST", "/seen"] == {Scope.HISTORY}
    assert Scope.HISTORY in needed["GET", "/revocations"]


@pytest.fixture(scope="module")
def scoped(module_processes: Processes) -> SenderProcess:
    keys = [f"all-of-it-{'x' * 16}", *(f"{scope}:{scope}:the-key-for-{scope}-alone" for scope in Scope)]
    return module_processes.start_sender(api_keys=",".join(keys), requests_per_minute="30")


CALL_OF = {
    Scope.ORDERS: ("GET", "/orders"),
    Scope.EVENTS: ("POST", "/events"),
    Scope.HISTORY: ("POST", "/history"),
    Scope.ADMIN: ("GET", "/dead-letters"),
}


def call(sender: SenderProcess, key: str, method: str, path: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.request(method, f"{sender.url}{path}", headers=headers, trust_env=False)


@pytest.mark.parametrize("scope", CALL_OF)
def test_a_key_opens_what_its_scope_names_and_nothing_else(scoped: SenderProcess, scope: Scope) -> None:
    for other, (method, path) in CALL_OF.items():
        answer = call(scoped, f"the-key-for-{scope}-alone", method, path)
        assert (answer.status_code == 403) is (other is not scope), answer.text
        assert answer.status_code != 401
    assert call(scoped, f"{scope}:{scope}:the-key-for-{scope}-alone", *CALL_OF[scope]).status_code == 401


# Which keys open which call: written down once more, because a table that checks itself finds nothing.
OPEN_TO = {
    ("POST", "/orders"): "orders",
    ("GET", "/orders"): "orders",
    ("GET", "/orders/changes"): "orders",
    ("POST", "/orders/{order_id}/complete"): "orders",
    ("POST", "/orders/{order_id}/cancel"): "orders",
    ("POST", "/events"): "events",
    ("GET", "/channels/{channel}/events"): "history",
    ("POST", "/history"): "history",
    ("POST", "/seen"): "history",
    ("GET", "/revocations"): "history admin",
    ("POST", "/retractions"): "alerts",
    ("POST", "/read"): "alerts history",
    ("POST", "/unread"): "alerts history",
    ("GET", "/channels/{channel}/alerts"): "alerts history",
    ("DELETE", "/customers/{customer_id}"): "admin",
    ("POST", "/revocations"): "admin",
    ("GET", "/dead-letters"): "admin",
    ("GET", "/trace"): "admin",
    ("GET", "/connections"): "admin",
    ("POST", "/resends"): "admin",
    ("POST", "/trials"): "admin",
}


@pytest.fixture(scope="module")
def unlimited(module_processes: Processes) -> SenderProcess:
    keys = [f"{scope}:{scope}:the-key-for-{scope}-alone" for scope in Scope]
    return module_processes.start_sender(api_keys=",".join(keys))


@pytest.fixture(scope="module")
def caller(unlimited: SenderProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=unlimited.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("keyed", [call for call in CALLS if call.keyed], ids=lambda call: call.name)
def test_each_key_opens_the_calls_of_its_scope_and_no_other(caller: httpx2.Client, keyed: Call) -> None:
    path = re.sub(r"\{\w+\}", "customer:x", keyed.path)
    methods = [keyed.method, "HEAD"] if keyed.method == "GET" else [keyed.method]
    for method, scope in itertools.product(methods, [None, *Scope]):
        key = f"the-key-for-{scope}-alone" if scope else "the-key-of-a-stranger"
        with caller.stream(method, path, headers={"Authorization": f"Bearer {key}"}) as answer:
            opened = scope is not None and scope.value in OPEN_TO[keyed.method, keyed.path].split()
            assert (answer.status_code not in (401, 403)) is opened, (method, scope, answer.status_code)
            assert (answer.status_code == 401) is (scope is None)
            assert answer.status_code < 500
            assert ("ratelimit" in answer.headers) is opened
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in answer.headers


def test_nothing_but_health_documents_and_pages_is_open_without_a_key(caller: httpx2.Client) -> None:
    opened = {call.path for call in CALLS if not call.keyed}
    assert opened == {"/livez", "/readyz", "/metrics", "/openapi.json"}
    for method, path in itertools.product(
        ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"], ["/x", "/orders/"]
    ):
        assert caller.request(method, path).status_code in (404, 405)


def test_an_admin_call_leaves_a_line_with_the_keys_name_and_never_the_key(scoped: SenderProcess) -> None:
    call(scoped, "the-key-for-admin-alone", "DELETE", "/customers/secret-name")
    call(scoped, "the-key-for-orders-alone", "DELETE", "/customers/secret-name")

    def lines() -> list[tuple[object, ...]]:
        records = [one for one in scoped.records("admin call") if one["method"] == "DELETE"]
        return [(one["key"], one["route"], one["status"]) for one in records]

    route = "/customers/{customer_id}"
    wait_until(lambda: lines() == [("admin", route, 200), ("orders", route, 403)])
    assert "the-key-for-" not in scoped.text()
    assert "secret-name" not in scoped.text()


def test_a_key_has_so_many_requests_a_minute_and_is_told_how_many_are_left(scoped: SenderProcess) -> None:
    key = f"all-of-it-{'x' * 16}"
    answers = [call(scoped, key, "GET", "/orders")]
    while answers[-1].status_code != 429:  # a slow machine earns some more meanwhile
        answers.append(call(scoped, key, "GET", "/orders"))
        assert len(answers) < 500
    assert answers[0].headers["ratelimit-policy"] == '"key";q=30;w=60'
    assert answers[0].headers["ratelimit"] == '"key";r=29;t=2'
    assert answers[0].status_code == 200
    assert len(answers) > 30
    assert int(answers[-1].headers["retry-after"]) in (1, 2)
    assert call(scoped, "the-key-for-orders-alone", "GET", "/orders").status_code == 200
