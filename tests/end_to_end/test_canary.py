"""Nothing secret and nothing that was posted is in any log line, metric, error or process title."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import pytest

from shared.commands.embedded import free_port
from tests.waiting import await_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ServiceProcess

pytestmark = pytest.mark.anyio

CANARY = "canary7f3a"  # within each secret and each payload


def titles_of(pid: int) -> str:
    """What any user of the machine sees of a process, if there is a /proc."""
    paths = [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "comm")]
    return "".join(path.read_text() for path in paths if path.exists())


async def test_nothing_secret_is_in_any_log_metric_error_or_title(processes: Processes) -> None:
    key, secret = f"api-key-{CANARY}-of-shop", f"jwt-secret-{CANARY}-of-thirty-two-bytes"
    live = f"one:live-key-{CANARY}-of-thirty-two-bytes"
    sender = processes.start_sender(api_keys=f"{key},shop:orders:{key}-2", live_keys=live, log_level="DEBUG")
    gateway = processes.start_receiver(api_keys=key, jwt_secret=secret, live_keys=live, log_level="DEBUG")
    answers: list[httpx2.Response] = []

    def ask(service: ServiceProcess, method: str, path: str, **arguments: object) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}", **arguments.pop("headers", {})}  # type: ignore[dict-item]
        answer = httpx2.request(
            method,
            service.url + path,
            headers=headers,
            trust_env=False,
            **arguments,  # type: ignore[arg-type] # httpx's own
        )
        answers.append(answer)
        return answer

    def token(**claims: object) -> str:
        now = int(time.time())
        of = {"sub": "alice", "aud": "orderbell", "iat": now, "exp": now + 600, "jti": CANARY, **claims}
        return jwt.encode(of, secret, algorithm="HS256")

    good, expired = token(), token(exp=int(time.time()) - 600)
    ask(sender, "POST", "/orders", json={"order_id": "1", "customer_id": "alice", "data": {"x": CANARY}})
    async with connected(gateway, good) as client:
        assert ask(sender, "POST", "/orders/1/complete", json={"data": {"y": CANARY}}).status_code == 200
        [event] = await client.receive_events(1)
        assert CANARY in json.dumps(event)  # it did come
        await client.send("orderbell.auth", {"token": good})
        await client.send("orderbell.ping", {"x": CANARY})
        await client.websocket.send(f"{CANARY} is no message")
        assert (await client.receive_close())[0] == 4400
    answers.clear()  # callers may read what they posted; no other answer may contain it
    as_customer = {"Authorization": f"Bearer {good}"}
    ticket = httpx2.post(f"{gateway.url}/tickets", headers=as_customer, trust_env=False).json()["ticket"]
    for query, bearer in ((f"token={good}", None), (f"ticket={ticket}x", None), ("", expired), ("", CANARY)):
        async with connected(gateway, bearer, query=query, hello=False) as client:
            code, reason = await client.receive_close()
            assert code in (4400, 4401, 4403)
            assert CANARY not in reason
    for path in (f"/events?token={good}", f"/{CANARY}", f"/events?after={CANARY}"):
        ask(gateway, "GET", path, headers={**as_customer, "Accept": "text/event-stream"})
    for body in ({"order_id": "1", "customer_id": "bob", "data": {"x": CANARY}}, {"x": CANARY}, [CANARY]):
        ask(sender, "POST", "/orders", json=body)
    ask(sender, "POST", "/orders", content=f'{{"{CANARY}'.encode())
    ask(sender, "POST", "/revocations", json={"jti": CANARY, "customer_id": CANARY})
    ask(sender, "GET", "/orders", headers={"Authorization": f"Bearer {key}-wrong"})
    ask(sender, "DELETE", "/customers/alice", headers={"Authorization": f"Bearer {key}-2"})
    for service in (sender, gateway):
        assert CANARY not in titles_of(service.pid)
        assert CANARY not in ask(service, "GET", "/metrics").text
        assert service.terminate() == 0
        assert service.text().count("\n") > 3
        for line in service.text().splitlines():
            assert CANARY not in line
            assert ticket not in line
            assert good.rpartition(".")[2] not in line
    for answer in answers:
        assert secret not in answer.text
        assert key not in answer.text
        assert good not in answer.text


@pytest.mark.long
async def test_nothing_secret_is_shown_of_neighbours_that_refuse_us(
    processes: Processes, redis_url: str
) -> None:
    """Wrong passwords, no TLS, no such name, another protocol, nobody there."""
    place = redis_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    nobody = f"127.0.0.1:{free_port()}"
    user = f"u:{CANARY}"
    redis_urls = (
        f"redis://{user}@{place}/0",
        f"redis://{user}%40%3F%23%25@{place}/0",
        f"rediss://{user}@{place}/0",
        f"redis://{user}@nowhere.invalid/0",
        f"redis://{user}@{nobody}/0",
    )
    database_urls = (
        f"postgresql://{user}@{place}/d",
        f"postgresql://{user}%40%3F@{place}/d?sslmode=require",
        f"postgresql://{user}@nowhere.invalid/d",
        f"postgresql://u@{nobody}/d?password={CANARY}",
    )
    common: dict[str, Any] = {"log_level": "DEBUG", "live_keys": f"one:{CANARY * 4}", "api_keys": CANARY * 2}
    webhooks: dict[str, Any] = {
        "webhook_url": f"http://{nobody}/?key={CANARY}",
        "webhook_secrets": "whsec_" + base64.b64encode(CANARY.encode() * 4).decode(),
    }
    common_of_gateways: dict[str, Any] = {**common, "sender_url": f"http://{nobody}"}
    services: list[ServiceProcess] = [
        processes.start_sender(wait_ready=False, **common, **webhooks, database_url=url)
        for url in database_urls
    ]
    for url in redis_urls:
        services.append(processes.start_sender(wait_ready=False, **common, redis_url=url))
        services.append(
            processes.start_receiver(
                wait_ready=False, **common_of_gateways, jwt_secret=CANARY * 4, redis_url=url
            )
        )
    key_url = f"http://{nobody}/keys?key={CANARY}"
    services.append(
        processes.start_receiver(wait_ready=False, **common_of_gateways, jwt_secret="", jwks_url=key_url)
    )
    for service in services:

        def complains(service: ServiceProcess = service) -> bool:
            ended = service.process.poll() is not None
            return ended or any(line["level"] in ("warning", "error") for line in service.records())

        await await_until(complains)
        if service.process.poll() is None:
            await await_until(lambda service=service: service.answers("/livez"))  # type: ignore[misc]
            for path in ("/readyz", "/metrics"):
                assert CANARY not in httpx2.get(f"{service.url}{path}", trust_env=False).text
            assert CANARY not in titles_of(service.pid)
            service.terminate()
        assert service.text()
        assert CANARY not in service.text()
