"""The HTTP side as a whole: keys, problems, health, metrics, pages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from sender.database.errors import DatabaseFull, DatabaseUnavailable
from sender.database.protocol import Pool
from sender.http.api import Api
from sender.http.api_keys import ApiKeys
from sender.http.app import create_app
from sender.http.pages import OfficePage
from sender.publishing.forgetting import Forgetting
from sender.publishing.pace import Pace
from sender.publishing.relay import Relay
from sender.seen import SeenNotifier
from shared.redis.channel_log import LogWriter
from shared.redis.inquiries import Inquirer
from shared.redis.keys import Names
from shared.redis.wire import Pipelines
from tests.senders import API_KEY, PAGE, Clock, run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from redis.asyncio import Redis
    from sqlalchemy import Connection

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

KEYED = [
    ("POST", "/orders"),
    ("GET", "/orders"),
    ("POST", "/orders/1042/complete"),
    ("POST", "/events"),
    ("GET", "/channels/customer:alice/events"),
    ("POST", "/history"),
    ("POST", "/seen"),
    ("DELETE", "/customers/alice"),
    ("GET", "/dead-letters"),
]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'orderbell.db'}"


@pytest.fixture
async def sender(
    sqlite_url: str, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    async with run_sender(sqlite_url, redis_url, key_prefix) as sender:
        yield sender


def kind(response: Any) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return str(response.json()["type"].removeprefix("urn:orderbell:problem:"))


@pytest.mark.parametrize(("method", "path"), KEYED)
@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {API_KEY}", f"Bearer {API_KEY}x"],
)
async def test_without_a_right_key_nothing_is_revealed(
    sender: RunningSender, method: str, path: str, authorization: str
) -> None:
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    response = await sender.client.request(method, path, headers=headers, content=b"{}")
    assert (response.status_code, kind(response)) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_every_route_has_a_key_or_is_known_to_need_none(sender: RunningSender) -> None:
    app = sender.client._transport.app  # type: ignore[attr-defined]
    assert isinstance(app, Starlette)
    free = {"/livez", "/readyz", "/metrics", "/openapi.json", "/", "/development/api-key", "/static"}
    routes = [route for route in app.routes if isinstance(route, Route | Mount) and route.path not in free]
    assert len(routes) > 10
    for route in routes:
        assert isinstance(route, Route)
        for method in route.methods or ():
            answer = await sender.client.request(method, route.path, headers={"Authorization": ""})
            assert answer.status_code == 401, (method, route.path)


async def test_second_key_opens_too_so_that_keys_can_be_replaced() -> None:
    keys = ApiKeys([SecretStr("the-old-key-0000"), SecretStr("the-new-key-0000")])
    assert keys.accept("the-old-key-0000")
    assert keys.accept("the-new-key-0000")


async def test_unknown_path_is_a_problem(sender: RunningSender) -> None:
    response = await sender.client.get("/nowhere")
    assert (response.status_code, kind(response)) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/orders", "GET, HEAD, POST"), ("GET", "/events", "POST"), ("POST", "/livez", "GET, HEAD")],
)
async def test_other_methods_are_a_problem_that_names_the_right_ones(
    sender: RunningSender, method: str, path: str, allowed: str
) -> None:
    response = await sender.client.request(method, path)
    assert (response.status_code, kind(response)) == (405, "method-not-allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/orders", "/orders/1042/complete", "/history", "/seen"])
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"unknown": 1}', "application/json", 400),
        (b'{"data": NaN}', "application/json", 400),
        (b'{"data": {"a": "\xff"}}', "application/json", 400),
        (b'{"data": ' + b'{"a":' * 50 + b"1" + b"}" * 51, "application/json", 400),
        (b'{"data": {"a": "' + b"x" * 2_000_000 + b'"}}', "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_bad_bodies_are_problems_and_nothing_is_stored(
    sender: RunningSender, path: str, body: bytes, content_type: str, status: int
) -> None:
    await sender.place("1042")
    response = await sender.client.post(path, content=body, headers={"Content-Type": content_type})
    assert response.status_code == status
    kind(response)
    (order,) = (await sender.client.get("/orders")).json()["orders"]
    assert (order["order_id"], order["status"]) == ("1042", "open")


@pytest.mark.parametrize(
    "body",
    [
        {"customer_id": "alice"},
        {"order_id": "1"},
        {"order_id": 1, "customer_id": "alice"},
        {"order_id": "", "customer_id": "alice"},
        {"order_id": ".", "customer_id": "alice"},
        {"order_id": "..", "customer_id": "alice"},
        {"order_id": "a\tb", "customer_id": "alice"},
        {"order_id": "1\n", "customer_id": "alice"},
        {"order_id": "1", "customer_id": "al\x85ice"},
        {"order_id": "1", "customer_id": "alice\n"},
        {"order_id": "1", "customer_id": "x" * 129},
        {"order_id": "1", "customer_id": "alice", "data": []},
        {"order_id": "1", "customer_id": "alice", "data": None},
        {"order_id": "1", "customer_id": "alice", "status": "completed"},
    ],
)
async def test_order_against_the_rules_is_refused(sender: RunningSender, body: dict[str, Any]) -> None:
    response = await sender.client.post("/orders", json=body)
    assert (response.status_code, kind(response)) == (400, "invalid-body")
    assert (await sender.client.get("/orders")).json()["orders"] == []


async def test_refusals_are_in_words(sender: RunningSender) -> None:
    name = "is not a name: 1 to 128 characters without control characters"

    async def detail(method: str, path: str, **arguments: Any) -> str:
        return str((await sender.client.request(method, path, **arguments)).json()["detail"])

    assert name in await detail("POST", "/orders", json={"order_id": "", "customer_id": "alice"})
    assert name in await detail("POST", "/orders", json={"order_id": "1", "customer_id": "x" * 129})
    for asked in ({"order_id": "a\tb"}, {"customer_id": ""}):
        assert name in await detail("GET", "/trace", params=asked)
    assert name in await detail("GET", "/connections", params={"customer_id": "x" * 129})
    assert "regex" not in await detail("POST", "/revocations", json={"jti": "\0"})
    assert "not known here" in await detail("GET", "/orders", headers={"Authorization": "Bearer other"})
    assert "is required" in await detail("GET", "/orders", headers={"Authorization": "Bearer "})


class BrokenDatabase:
    def __init__(self, error: Exception) -> None:
        self.error = error

    pool = Pool(0, 0)

    async def write(self, work: Callable[[Connection], object]) -> object:
        raise self.error

    async def write_together(self, work: object, item: object, *, size: int = 1) -> object:
        raise self.error

    async def read(self, work: Callable[[Connection], object]) -> object:
        raise self.error

    async def check(self) -> None:
        raise self.error


@pytest.fixture
def broken(redis: Redis) -> Callable[[Exception], httpx2.AsyncClient]:
    def client(error: Exception) -> httpx2.AsyncClient:
        database: Any = BrokenDatabase(error)
        names = Names("ob-unused")
        log = LogWriter(Pipelines(redis), names)
        relay = Relay(database, log, Clock())
        api = Api(
            database,
            relay,
            SeenNotifier(log),
            Clock(),
            Forgetting(log),
            Inquirer(Pipelines(redis), names),
        )
        app = create_app(api, OfficePage(PAGE, None), ApiKeys([SecretStr(API_KEY)]))
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {API_KEY}"},
        )

    return client


@pytest.mark.parametrize(
    ("error", "status"),
    [(DatabaseUnavailable("locked"), 503), (DatabaseFull("full"), 507), (ZeroDivisionError("secret"), 500)],
)
async def test_failing_database_is_a_problem_that_says_when_to_come_back(
    broken: Callable[[Exception], httpx2.AsyncClient], error: Exception, status: int
) -> None:
    async with broken(error) as client:
        for response in (
            await client.post("/orders", json={"order_id": "1", "customer_id": "alice"}),
            await client.post("/orders/1/complete"),
            await client.get("/orders"),
        ):
            assert response.status_code == status
            kind(response)
            assert "secret" not in response.text
            assert (status == 500) or response.headers["retry-after"] == "2"
        ready = await client.get("/livez")
        assert ready.status_code == 200


async def test_not_ready_without_its_database(
    broken: Callable[[Exception], httpx2.AsyncClient],
) -> None:
    async with broken(DatabaseUnavailable("locked")) as client:
        response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "ready": False,
        "database": "failed",
        "relay": "ok",
        "redis": "unknown",
        "reasons": {"database": "locked"},
    }


async def test_metrics_answer_while_the_database_is_away(
    broken: Callable[[Exception], httpx2.AsyncClient],
) -> None:
    async with broken(DatabaseUnavailable("locked")) as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    assert "orderbell_database_up 0.0" in response.text
    assert "orderbell_relay_published" in response.text


async def test_metrics_do_not_wait_for_a_database_that_hangs(
    sender: RunningSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(work: object) -> object:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(sender.database, "read", read)
    async with asyncio.timeout(20):
        response = await sender.client.get("/metrics")
    assert (response.status_code, "orderbell_database_up 0.0" in response.text) == (200, True)


async def test_ready_while_redis_is_away_and_says_so(sqlite_url: str, key_prefix: str) -> None:
    async with run_sender(sqlite_url, "redis://127.0.0.1:1/0", key_prefix) as sender:
        await sender.place("1")
        await sender.complete("1")
        await await_until(lambda: sender.relay.redis_up is not None)
        response = await sender.client.get("/readyz", headers={"Authorization": ""})
    assert response.status_code == 200
    assert response.json() == {"ready": True, "database": "ok", "relay": "ok", "redis": "away"}


async def test_not_ready_with_a_relay_that_hangs(sender: RunningSender) -> None:
    sender.relay._last_turn -= 60
    response = await sender.client.get("/readyz")
    assert (response.status_code, response.json()["relay"]) == (503, "failed")


async def test_metrics_count_and_name_no_customer_and_no_order(
    sqlite_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_sender(sqlite_url, redis_url, key_prefix, relaying=False) as sender:
        await sender.place("order-77", "customer-77")
        await sender.complete("order-77")
        await sender.complete("order-77")
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "channel": "topic:menu"}
        for _ in range(2):
            await sender.client.post(
                "/events", json=event, headers={"Content-Type": "application/cloudevents+json"}
            )
        await sender.client.get("/nowhere/order-77")
        await sender.client.request("BREW", "/orders")
        sender.clock.advance(seconds=90)
        response = await sender.client.get("/metrics", headers={"Authorization": ""})
        assert sender.counted("orderbell_completions_total") == 1
        assert sender.counted("orderbell_events_total", result="accepted") == 1
        assert sender.counted("orderbell_events_total", result="duplicate") == 1
    text = response.text
    assert "orderbell_outbox_events 2.0" in text
    assert "orderbell_database_up 1.0" in text
    assert "orderbell_outbox_oldest_seconds 90.0" in text
    assert 'route="/orders/{order_id}/complete"' in text
    assert "-77" not in text
    assert "BREW" not in text


async def test_page_is_served_with_a_strict_policy(sender: RunningSender) -> None:
    page = await sender.client.get("/", headers={"Authorization": ""})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert 'data-development="true"' in page.text


async def test_assets_are_served_and_nothing_above_them(sender: RunningSender) -> None:
    asset = await sender.client.get("/static/office.js", headers={"Authorization": ""})
    assert (asset.status_code, asset.headers["x-content-type-options"]) == (200, "nosniff")
    for path in ("/static/none.js", "/static/../app.py", "/static/%2e%2e/app.py", "/static/"):
        assert (await sender.client.get(path)).status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "localhost", "[::1]:8090"])
async def test_development_gives_the_page_its_key_on_loopback(sender: RunningSender, host: str) -> None:
    response = await sender.client.get("/development/api-key", headers={"Host": host})
    assert response.json() == {"api_key": API_KEY}
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:1"])
async def test_name_that_points_here_does_not_get_the_key(sender: RunningSender, host: str) -> None:
    response = await sender.client.get("/development/api-key", headers={"Host": host})
    assert response.status_code == 404


async def test_without_development_mode_there_is_no_key_to_get(
    broken: Callable[[Exception], httpx2.AsyncClient],
) -> None:
    async with broken(DatabaseFull()) as client:
        assert (await client.get("/development/api-key")).status_code == 404
        assert 'data-development="false"' in (await client.get("/")).text


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a-key"}])
async def test_completion_reaches_redis_without_waiting_for_the_next_poll(
    database_url: str, redis_url: str, key_prefix: str, headers: dict[str, str]
) -> None:
    async with run_sender(database_url, redis_url, key_prefix, pace=Pace(poll_seconds=60)) as sender:
        await await_until(lambda: sender.relay.redis_up)  # its first turn is over
        await complete_one(sender, headers)


async def complete_one(sender: RunningSender, headers: dict[str, str]) -> None:
    await sender.place("1042")
    event = (await sender.complete("1042", headers=headers)).json()["event"]
    key = sender.names.log(event["channel"])
    await await_until(lambda: log_has(sender, key, 1), timeout=5)


async def log_has(sender: RunningSender, key: str, count: int) -> bool:
    return await sender.redis.xlen(key) == count


async def test_two_senders_on_one_database_share_the_work(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with (
        run_sender(database_url, redis_url, key_prefix) as one,
        run_sender(database_url, redis_url, key_prefix) as two,
    ):
        for number in range(20):
            await one.place(str(number))
        ids = [str(number) for number in range(20)]
        answers = await asyncio.gather(*(s.complete(order_id) for order_id in ids for s in (one, two)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["event"]["seq"] for answer in answers}) == 20
        key = one.names.log(answers[0].json()["event"]["channel"])
        await await_until(lambda: log_has(one, key, 20))
        entries: Any = await one.redis.xrange(key)
        assert [entry_id for entry_id, _ in entries] == [f"{seq}-0".encode() for seq in range(1, 21)]
