"""What a gateway answers over plain HTTP."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Processes, ReceiverProcess


@pytest.fixture(scope="module")
def gateway(module_processes: Processes) -> ReceiverProcess:
    module_processes.start_sender()
    return module_processes.start_receiver(allowed_origins="https://shop.example")


@pytest.fixture
def client(gateway: ReceiverProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, trust_env=False) as client:
        yield client


def test_livez_and_readyz_need_no_token(client: httpx2.Client) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


@pytest.mark.anyio
async def test_metrics_count_connections_without_naming_anybody(
    gateway: ReceiverProcess, client: httpx2.Client, module_processes: Processes
) -> None:
    async with connected(gateway, module_processes.token("secret-customer")):
        text = client.get("/metrics").text
    assert "secret-customer" not in text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    counts = {s.labels["transport"]: s.value for s in samples if s.name == "orderbell_connections"}
    assert (counts["websocket"], sum(counts.values())) == (1, 1)
    assert [s.value >= 0 for s in samples if s.name == "orderbell_feeds"] == [True]


def test_plain_get_of_events_is_asked_to_upgrade(client: httpx2.Client) -> None:
    answer = client.get("/events")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/events?wait=0",
        "/seen",
        "/alerts",
        "/read",
        "/tickets",
        "/websocket/info",
        "/websocket/0/a/xhr",
        "/websocket/0/a/xhr_streaming",
        "/websocket/0/a/xhr_send",
        "/gs-guide-websocket/0/a/xhr",
    ],
)
def test_options_that_are_no_preflight_do_nothing(
    client: httpx2.Client, module_processes: Processes, path: str
) -> None:
    """They once issued tickets, opened streams and marked alerts as read."""
    given = {"Authorization": f"Bearer {module_processes.token('opal')}", "Accept": "text/event-stream"}
    for headers in ({}, given, given | {"Origin": "https://shop.example"}):
        answer = client.request("OPTIONS", path, headers=headers, content=b'{"all":true}')
        assert (answer.status_code, answer.content) == (204, b"")
        assert "OPTIONS" in answer.headers["allow"]


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_allow_names_every_method_of_the_address(client: httpx2.Client, method: str) -> None:
    """RFC 9110 10.2.1, 15.5.6. Those of /events come from several transports."""
    allowed = client.request(method, "/events").headers["allow"].split(", ")
    assert sorted(allowed) == ["DELETE", "GET", "HEAD", "OPTIONS"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/tickets", 405),
        ("POST", "/livez", 405),
        ("POST", "/tickets", 401),
        ("GET", "/stomp", 426),
        ("GET", "/websocket/websocket", 426),
    ],
)
def test_errors_are_problem_json(client: httpx2.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/events", "text/event-stream"),
        ("/events?wait=0", "application/json"),
        ("/events?wait=25", "application/json"),
        ("/alerts", "application/json"),
        ("/livez", "application/json"),
        ("/websocket/info", "application/json"),
    ],
)
def test_head_names_no_other_length_than_get(
    client: httpx2.Client, module_processes: Processes, path: str, kind: str
) -> None:
    """RFC 9110 8.6: none, or the GET's."""
    token = module_processes.token("hedda")
    headers = {"Authorization": f"Bearer {token}", "Accept": kind}
    answer = client.head(path, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.headers.get("content-length") != "0"
    assert client.get("/livez").status_code == 200  # and the connection goes on


def test_ticket_may_be_fetched_by_pages_of_allowed_origins_alone(
    client: httpx2.Client, module_processes: Processes
) -> None:
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    allowed = client.options("/tickets", headers={"origin": "https://shop.example", **preflight})
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    foreign = client.options("/tickets", headers={"origin": "https://evil.example", **preflight})
    assert "access-control-allow-origin" not in foreign.headers
    answer = client.post(
        "/tickets",
        headers={
            "origin": "https://shop.example",
            "authorization": f"Bearer {module_processes.token('alice')}",
        },
    )
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def test_pages_may_load_nothing_from_elsewhere(client: httpx2.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    script = client.get("/client/v1/orderbell.js")
    assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert script.headers["access-control-allow-origin"] == "*"  # for modules on other sites' pages
    assert client.get("/client/v1/../../settings.py").status_code == 404


@pytest.mark.parametrize("path", ["/client/v1/orderbell.js", "/client/v1/toast.css", "/static/shop/shop.js"])
def test_client_comes_compressed_once_and_not_again_while_it_is_the_same(
    client: httpx2.Client, path: str
) -> None:
    packed = client.get(path, headers={"accept-encoding": "gzip"})
    plain = client.get(path, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < len(plain.content) / 1.8
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert packed.headers["cross-origin-resource-policy"] == "cross-origin"
    for answer, encoding in ((packed, "gzip"), (plain, "identity")):
        same = {"accept-encoding": encoding, "if-none-match": answer.headers["etag"]}
        again = client.get(path, headers=same)
        assert (again.status_code, again.content) == (304, b"")
    assert packed.headers["etag"] != plain.headers["etag"]


def test_page_asks_for_all_its_modules_at_once(client: httpx2.Client) -> None:
    names = re.findall(r'<link rel="modulepreload" href="static/([^"]+)">', client.get("/").text)
    assert {"orderbell.js", "shop/shop.js"} <= set(names)
    assert len(names) == len(set(names))
    for name in names:
        text = client.get(f"/static/{name}").raise_for_status().text
        imported = re.findall(r'^(?:import|export) .*from "(.+)";$', text, re.MULTILINE)
        assert {
            posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in imported
        } <= set(names)


def test_tickets_wait_for_redis_and_say_so(module_processes: Processes, redis_server: EmbeddedServer) -> None:
    gateway = module_processes.start_receiver(redis_url=redis_server.url)
    redis_server.kill()
    answer = httpx2.post(
        f"{gateway.url}/tickets",
        headers={"Authorization": f"Bearer {module_processes.token('alice')}"},
        trust_env=False,
        timeout=20,
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


LISTS = (("GET", "/alerts"), ("POST", "/read"))


def test_lists_beyond_a_customers_quota_are_429_and_others_get_theirs(module_processes: Processes) -> None:
    """Each is a question to the database, which a customer could ask endlessly."""
    module_processes.start_sender()
    gateway = module_processes.start_receiver(lists_per_minute="3")

    def ask(method: str, path: str, customer: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {module_processes.token(customer)}"}
        body = {"all": True} if method == "POST" else None
        return httpx2.request(method, gateway.url + path, headers=headers, json=body, trust_env=False)

    # A tenth of a minute's may come at once, and one at least.
    statuses = [ask(method, path, "lister").status_code for method, path in LISTS]
    assert statuses == [200, 429]
    refused = ask("GET", "/alerts", "lister")
    assert refused.json()["type"].endswith("too-many-lists")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert ask("GET", "/alerts", "another").status_code == 200
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    assert 'orderbell_requests_refused_total{kind="too-many-lists"} 2' in text.replace(".0\n", "\n")


def test_tickets_beyond_a_customers_quota_are_429(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(tickets_per_minute="2", wait_ready=False)
    wait_until(lambda: gateway.answers("/livez"))
    headers = {"Authorization": f"Bearer {module_processes.token('alice')}"}
    answers = [httpx2.post(f"{gateway.url}/tickets", headers=headers, trust_env=False) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].json()["type"].endswith("too-many-tickets")
    gateway.kill()
