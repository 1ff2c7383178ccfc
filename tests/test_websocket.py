"""The WebSocket transport's door: which clients come in, and how the others are refused."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from receiver.access.claims import MAX_TOKEN_BYTES
from shared.settings import ReceiverSettings
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def gateway(module_processes: Processes) -> ReceiverProcess:
    module_processes.start_sender()
    return module_processes.start_receiver(allowed_origins="https://shop.example")


@pytest.fixture
def token(module_processes: Processes) -> str:
    return module_processes.token("alice")


def unsigned(claims: dict[str, object]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."
    )


async def test_hello_says_where_the_connection_starts(gateway: ReceiverProcess, token: str) -> None:
    async with connected(gateway, token) as client:
        hello = client.notices[0]
        assert hello["source"] == "/orderbell/receiver"
        assert hello["data"]["cursor"] == "customer:alice=1.0"
        assert hello["data"]["channels"] == ["customer:alice"]
        assert hello["data"]["heartbeat_seconds"] == 20
        assert client.websocket.subprotocol == "cloudevents.json"


async def test_ping_of_a_page_is_answered(gateway: ReceiverProcess, token: str) -> None:
    async with connected(gateway, token) as client:
        assert "orderbell.ping" in client.notices[0]["data"]["accepts"]
        ping = {"type": "orderbell.ping", "data": {"visible": True, "shows": False}}
        await client.websocket.send(json.dumps(ping))
        pong = json.loads(await asyncio.wait_for(client.websocket.recv(), 20))
        assert pong["type"] == "orderbell.pong"


async def test_token_may_come_as_header_cookie_ticket_or_first_message(
    gateway: ReceiverProcess, token: str
) -> None:
    own = {"Origin": gateway.url}
    async with connected(gateway, None, headers={"Cookie": f"orderbell_token={token}", **own}):
        pass
    for where in ("url", "message"):
        answer = httpx2.post(
            f"{gateway.url}/tickets", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )
        assert answer.status_code == 201
        assert answer.json()["expires_in"] == 60
        ticket = answer.json()["ticket"]
        query = f"ticket={ticket}" if where == "url" else ""
        async with connected(gateway, None, query=query, hello=False) as client:
            if where == "message":
                await client.send("orderbell.auth", {"ticket": ticket})
            assert (await client.receive())["type"] == "orderbell.hello"
        async with connected(gateway, None, query=f"ticket={ticket}", hello=False) as client:
            assert (await client.receive_close())[0] == 4401  # used up
    async with connected(gateway, None, hello=False) as client:
        await client.send("orderbell.auth", {"token": token})
        assert (await client.receive())["type"] == "orderbell.hello"


@pytest.mark.parametrize("where", ["url", "message"])
async def test_ticket_is_of_no_use_to_a_page_of_another_origin(
    gateway: ReceiverProcess, token: str, where: str
) -> None:
    """Bound to nothing: tickets of shops' servers, which name no origin."""
    ours, theirs = gateway.url, "https://shop.example"
    for asked_by, used_by, good in (
        (ours, ours, True),
        (theirs, theirs.upper(), True),
        ("", theirs, True),
        ("", "", True),
        (ours, theirs, False),
        (theirs, ours, False),
        (ours, "", False),
    ):
        asking = {"Authorization": f"Bearer {token}", **({"Origin": asked_by} if asked_by else {})}
        ticket = httpx2.post(f"{gateway.url}/tickets", headers=asking, trust_env=False).json()["ticket"]
        query = f"ticket={ticket}" if where == "url" else ""
        headers = {"Origin": used_by} if used_by else {}
        async with connected(gateway, None, query=query, headers=headers, hello=False) as client:
            if where == "message":
                await client.send("orderbell.auth", {"ticket": ticket})
            if good:
                assert (await client.receive())["type"] == "orderbell.hello", (asked_by, used_by)
            else:
                expected = (4401, "the ticket belongs to a page of another origin")
                assert await client.receive_close() == expected, (asked_by, used_by)


def test_ticket_serves_a_plain_request_of_its_own_page_which_names_no_origin(
    gateway: ReceiverProcess, token: str
) -> None:
    for asked_by, used_by, status in (
        (gateway.url, "", 200),
        (gateway.url, gateway.url, 200),
        ("https://shop.example", "https://shop.example", 200),
        ("https://shop.example", "", 401),
        (gateway.url, "https://shop.example", 401),
    ):
        headers = {"Authorization": f"Bearer {token}", "Origin": asked_by}
        ticket = httpx2.post(f"{gateway.url}/tickets", headers=headers, trust_env=False).json()["ticket"]
        answer = httpx2.get(
            f"{gateway.url}/events?wait=0&ticket={ticket}",
            headers={"Origin": used_by} if used_by else {},
            trust_env=False,
        )
        assert answer.status_code == status, (asked_by, used_by, answer.text)


async def test_token_that_another_may_replace_is_4401_and_one_that_will_never_do_is_4403(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    secret = module_processes.jwt_secret
    good = {"sub": "alice", "aud": "orderbell", "exp": 4_000_000_000}
    tokens = {
        "not-a-token": 4401,
        jwt.encode(good, "another-secret-of-32-bytes-or-more", "HS256"): 4401,
        jwt.encode({**good, "exp": 1_000_000_000}, secret, "HS256"): 4401,
        jwt.encode({**good, "iat": 3_900_000_000}, secret, "HS256"): 4401,
        unsigned(good): 4403,
        jwt.encode({**good, "aud": "another"}, secret, "HS256"): 4403,
        jwt.encode({"sub": "alice", "aud": "orderbell"}, secret, "HS256"): 4403,
        jwt.encode({**good, "sub": "al\nice"}, secret, "HS256"): 4403,
        jwt.encode({**good, "topics": ["a\nb"]}, secret, "HS256"): 4403,
        jwt.encode({**good, "exp": int("9" * 2_500)}, secret, "HS256"): 4403,
        jwt.encode({**good, "pad": "x" * 5_000}, secret, "HS256"): 4403,
    }
    for token, expected in tokens.items():
        async with connected(gateway, token, hello=False) as client:
            code, reason = await client.receive_close()
            assert code == expected, reason
            assert token not in reason
        async with connected(gateway, None, hello=False) as client:
            await client.send("orderbell.auth", {"token": token})
            assert await client.receive_close() == (code, reason)
    # The log says what is wrong, and not with each of them.
    assert len(gateway.records("the token is for another audience")) == 1


async def test_no_token_within_five_seconds_is_4401(gateway: ReceiverProcess) -> None:
    async with connected(gateway, None, hello=False) as client:
        assert await client.receive_close() == (4401, "no token within 5 s")


async def test_token_in_the_url_is_refused_though_it_is_good(gateway: ReceiverProcess, token: str) -> None:
    for name in ("token", "Access_Token", "bearer", "whatever"):
        async with connected(gateway, None, query=f"{name}={token}", hello=False) as client:
            assert (await client.receive_close())[0] == 4400
    answer = httpx2.post(f"{gateway.url}/tickets?token={token}", trust_env=False)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:orderbell:problem:token-in-url")
    assert token not in gateway.text()


@pytest.mark.parametrize(
    "cursor",
    [
        "garbage",
        "customer:alice",
        "customer:alice=",
        "customer:alice=1",
        "customer:alice=1.-1",
        "customer:alice=0.1",
        "customer:alice=1.01",
        "customer:alice=1.99999999999999999999",
        "customer:alice=1.1,customer:alice=1.2",
        "customer:al%2ice=1.1",
        "order:alice=1.1",
        "customer:alice=1.1,",
    ],
)
async def test_cursor_that_no_event_ever_had_is_4400(
    gateway: ReceiverProcess, token: str, cursor: str
) -> None:
    async with connected(gateway, token, query=f"after={cursor}", hello=False) as client:
        assert (await client.receive_close())[0] == 4400


async def test_cursor_of_a_channel_that_the_token_does_not_name_is_4403(
    gateway: ReceiverProcess, token: str
) -> None:
    for cursor in ("customer:bob=1.1", "topic:menu=1.1"):
        async with connected(gateway, token, query=f"after={cursor}", hello=False) as client:
            assert (await client.receive_close())[0] == 4403


@pytest.mark.parametrize(("cursor", "reason"), [("1.900", "future"), ("7.1", "epoch")])
async def test_cursor_that_cannot_be_honoured_gets_a_reset_with_where_to_refetch(
    gateway: ReceiverProcess, token: str, cursor: str, reason: str
) -> None:
    async with connected(gateway, token, query=f"after=customer:alice={cursor}") as client:
        reset = await client.receive()
        assert reset["type"] == "orderbell.reset"
        assert reset["data"] == {
            "channel": "customer:alice",
            "reason": reason,
            "cursor": "customer:alice=1.0",
            "refetch": "/orders?customer_id=alice",
        }


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', "{}", '{"type":1}', '{"type":"order.completed"}', "[" * 9_000, "\x00"],
)
async def test_message_that_no_client_of_ours_sends_is_4400(
    gateway: ReceiverProcess, token: str, text: str
) -> None:
    async with connected(gateway, token) as client:
        await client.websocket.send(text)
        assert (await client.receive_close())[0] == 4400


async def test_seen_before_authentication_is_4401(gateway: ReceiverProcess) -> None:
    async with connected(gateway, None, hello=False) as client:
        await client.report_seen("customer:alice=1.1")
        assert (await client.receive_close())[0] == 4401


async def test_seen_of_another_channel_or_of_the_future_moves_nothing(
    gateway: ReceiverProcess, token: str
) -> None:
    async with connected(gateway, token) as client:
        await client.report_seen("customer:bob=1.1")
        await client.report_seen("customer:alice=1.900")
        await client.report_seen("garbage")
        assert (await client.receive_close())[0] == 4400
    async with connected(gateway, token) as client:
        assert client.notices[0]["data"]["cursor"] == "customer:alice=1.0"


async def test_49_token_renewed_in_band_must_name_the_same_channels(
    gateway: ReceiverProcess, token: str, module_processes: Processes
) -> None:
    async with connected(gateway, token) as client:
        await client.send("orderbell.auth", {"token": module_processes.token("alice", lifetime_seconds=900)})
        await client.send("orderbell.auth", {"token": module_processes.token("bob")})
        assert (await client.receive_close())[0] == 4403


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://shop.example",
        "https://shop.example.evil.example",
        "https://evil-shop.example",
        "https://shop.example:8443",
        "https://SHOP.example.",
        "file://",
    ],
)
async def test_foreign_origin_is_refused_before_accepting(
    gateway: ReceiverProcess, token: str, origin: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connected(gateway, token, headers={"Origin": origin}):
            pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert httpx2.post(
        f"{gateway.url}/tickets",
        headers={"Authorization": f"Bearer {token}", "Origin": origin},
        trust_env=False,
    ).status_code == 403  # fmt: skip


async def test_allowed_and_own_origin_come_in(gateway: ReceiverProcess, token: str) -> None:
    for origin in ("https://shop.example", gateway.url):
        async with connected(gateway, token, headers={"Origin": origin}):
            pass


async def test_cookie_without_an_origin_proves_nothing(gateway: ReceiverProcess, token: str) -> None:
    cookie = {"Cookie": f"orderbell_token={token}"}
    assert httpx2.post(f"{gateway.url}/tickets", headers=cookie, trust_env=False).status_code == 401


@pytest.mark.parametrize("offered", [(), ("v12.stomp",), ("cloudevents.avro", "mqtt")])
async def test_client_without_a_known_subprotocol_is_refused(
    gateway: ReceiverProcess, token: str, offered: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connected(gateway, token, subprotocols=offered):
            pass
    assert refused.value.response.status_code == 400


async def test_connection_beyond_a_customers_limit_is_4409_and_leaves_the_others(
    module_processes: Processes,
) -> None:
    gateway = module_processes.start_receiver(max_connections_per_customer="2")
    token = module_processes.token("carol")
    async with connected(gateway, token), connected(gateway, token) as second:
        async with connected(gateway, token, hello=False) as third:
            assert (await third.receive_close())[0] == 4409
        assert await (await second.websocket.ping()) >= 0
    async with connected(gateway, token):
        pass


async def test_gateway_that_is_full_says_503_before_accepting(module_processes: Processes) -> None:
    gateway = module_processes.start_receiver(max_connections="1")
    token = module_processes.token("carol")
    async with connected(gateway, token):
        for _ in range(3):
            with pytest.raises(InvalidStatus) as refused:
                async with connected(gateway, token):
                    pass
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["retry-after"]
    # Of many refusals the log has a line, for the operator who looks for the reason there.
    [line] = gateway.records("handshake refused")
    assert (line["transport"], line["refusal"]) == ("websocket", "overloaded")


async def test_request_that_is_not_a_handshake_is_counted_and_logged_without_what_it_says(
    gateway: ReceiverProcess,
) -> None:
    counter = 'orderbell_handshakes_refused_total{reason="bad-handshake"}'
    assert f"{counter} 0.0" in httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    wanted = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "s3cret"}
    answer = httpx2.get(f"{gateway.url}/events", headers=wanted, trust_env=False)
    assert answer.status_code == 426
    assert f"{counter} 1.0" in httpx2.get(f"{gateway.url}/metrics", trust_env=False).text

    def refusals() -> list[str]:
        return [line["refusal"] for line in gateway.records("handshake refused")]

    await await_until(lambda: "bad-handshake" in refusals())
    assert refusals().count("bad-handshake") == 1
    assert "s3cret" not in gateway.text()


async def test_each_connection_logs_one_line_about_its_life(
    module_processes: Processes,
) -> None:
    gateway = module_processes.start_receiver()
    token = module_processes.token("dora")
    async with connected(gateway, token):
        pass
    assert gateway.terminate() == 0
    [closed] = gateway.records("connection closed")
    assert (closed["transport"], closed["code"], closed["topics"]) == ("websocket", 1000, 0)
    assert 0 <= closed["seconds"] < 60
    assert token not in gateway.text()
    assert "dora" not in gateway.text()


async def test_longest_token_renews_under_the_least_limits_that_can_be_set(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    least: dict[str, Any] = {
        name: str(next(one.ge for one in ReceiverSettings.model_fields[name].metadata if hasattr(one, "ge")))
        for name in LEAST
    }
    strict = module_processes.start_receiver(**least)
    token = module_processes.token("alice")
    claims = jwt.decode(token, options={"verify_signature": False})
    longest = jwt.encode({**claims, "x": "x" * 2_800}, module_processes.jwt_secret, algorithm="HS256")
    assert 3_900 < len(longest) <= MAX_TOKEN_BYTES
    async with connected(strict, longest) as client:
        await client.send("orderbell.auth", {"token": longest})
        await client.send("orderbell.ping", {})
        while (await client.receive())["type"] != "orderbell.pong":
            pass  # notices of what is unread
    strict.kill()


LEAST = ("max_head_bytes", "max_message_bytes", "frames_per_second", "bytes_per_second", "max_topics")
