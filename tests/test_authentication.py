"""Several credentials in one request: the same one counts on every transport, none is passed over."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio

SHOP = "https://shop.example"
TRANSPORTS = ("websocket", "sse", "polling", "stomp")
_CUSTOMER = re.compile(r"(?:customer:|user-name:)(\w+)")


@pytest.fixture(scope="module")
def gateway(module_processes: Processes) -> ReceiverProcess:
    module_processes.start_sender()
    return module_processes.start_receiver(allowed_origins=SHOP)


@pytest.fixture(scope="module")
def tokens(module_processes: Processes) -> dict[str, str]:
    return {name: module_processes.token(name) for name in ("anna", "bert", "carl")} | {"nobody": "x.y.z"}


async def answers(
    gateway: ReceiverProcess, transport: str, headers: dict[str, str], query: str, connect_headers: str = ""
) -> AsyncGenerator[str]:
    """What the gateway sends, as text; nothing if it refuses."""
    headers = {"Origin": SHOP, **headers}
    if transport in ("websocket", "stomp"):
        path, protocol = (
            ("/events", "cloudevents.json") if transport == "websocket" else ("/stomp", "v12.stomp")
        )
        url = f"{gateway.url.replace('http', 'ws', 1)}{path}?{query}"
        async with connect(
            url, additional_headers=headers, subprotocols=[Subprotocol(protocol)], proxy=None
        ) as websocket:
            if transport == "stomp":
                await websocket.send(f"CONNECT\naccept-version:1.2\nhost:x\n{connect_headers}\n\0")
            yield str(await asyncio.wait_for(websocket.recv(), 10))
        return
    accept = "text/event-stream" if transport == "sse" else "application/json"
    url = f"{gateway.url}/events?{'wait=0&' if transport == 'polling' else ''}{query}"
    async with (
        httpx2.AsyncClient(trust_env=False) as http,
        http.stream("GET", url, headers={"Accept": accept, **headers}) as answer,
    ):
        assert answer.status_code in (200, 401)
        if answer.status_code == 200:
            async for line in answer.aiter_lines():
                yield line


async def served(
    gateway: ReceiverProcess,
    transport: str,
    headers: dict[str, str],
    query: str = "",
    connect_headers: str = "",
) -> str | None:
    """The customer that the gateway takes the client for; None if it is refused."""
    texts = answers(gateway, transport, headers, query, connect_headers)
    try:
        async for text in texts:
            if match := _CUSTOMER.search(text):
                return match[1]
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd is not None else None
    else:
        return None
    finally:
        await texts.aclose()
    assert code == 4401
    return None


async def ticket(gateway: ReceiverProcess, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}", "Origin": SHOP}
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        found: str = (await http.post("/tickets", headers=headers)).json()["ticket"]
        return found


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_header_counts_before_a_ticket_and_that_before_the_cookie(
    gateway: ReceiverProcess, tokens: dict[str, str], transport: str
) -> None:
    header = {"Authorization": f"Bearer {tokens['anna']}"}
    cookie = {"Cookie": f"orderbell_token={tokens['carl']}"}
    unused = f"ticket={await ticket(gateway, tokens['bert'])}"
    assert await served(gateway, transport, {**header, **cookie}, unused) == "anna"
    assert await served(gateway, transport, cookie, unused) == "bert"  # nobody has used it up
    assert await served(gateway, transport, cookie, unused) is None
    assert await served(gateway, transport, cookie) == "carl"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_bad_credential_is_not_passed_over_for_a_good_one(
    gateway: ReceiverProcess, tokens: dict[str, str], transport: str
) -> None:
    cookie = {"Cookie": f"orderbell_token={tokens['carl']}"}
    assert await served(gateway, transport, {**cookie, "Authorization": "Bearer x.y.z"}) is None
    assert await served(gateway, transport, cookie, f"ticket={'x' * 43}") is None


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("cookie", "customer"),
    [
        ("orderbell_token={carl}; orderbell_token={anna}", None),  # a page of a subdomain may set one of them
        ("orderbell_token={carl}; theme=a,b; orderbell_token={carl}", "carl"),
        ('a; orderbell_token = "{carl}"', "carl"),
        ("xorderbell_token={anna}; a=b orderbell_token={anna}; orderbell_token={carl}", "carl"),
        ("orderbell_token=; __Host-orderbell_token={carl}; orderbell_token={anna}", "carl"),
    ],
)
async def test_cookie_counts_where_it_is_the_only_one_of_its_name(
    gateway: ReceiverProcess, tokens: dict[str, str], transport: str, cookie: str, customer: str | None
) -> None:
    assert await served(gateway, transport, {"Cookie": cookie.format(**tokens)}) == customer


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_two_tickets_in_one_url_prove_nothing_and_are_not_used_up(
    gateway: ReceiverProcess, tokens: dict[str, str], transport: str
) -> None:
    good = f"ticket={await ticket(gateway, tokens['bert'])}"
    assert await served(gateway, transport, {}, f"ticket=x&{good}") is None
    assert await served(gateway, transport, {}, f"{good}&{good}") is None
    assert await served(gateway, transport, {}, good) == "bert"


async def test_token_of_connect_counts_before_those_of_the_handshake(
    gateway: ReceiverProcess, tokens: dict[str, str]
) -> None:
    header = {"Authorization": f"Bearer {tokens['anna']}"}
    for name, customer in (("bert", "bert"), ("nobody", None)):
        given = f"Authorization:Bearer {tokens[name]}\n"
        assert await served(gateway, "stomp", header, connect_headers=given) == customer


async def test_cookie_of_a_cross_site_request_proves_nothing(
    gateway: ReceiverProcess, tokens: dict[str, str]
) -> None:
    cookie = {"Cookie": f"orderbell_token={tokens['anna']}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=cookie, trust_env=False) as http:
        for site, status in (("same-origin", 200), ("none", 200), ("cross-site", 401)):
            headers = {"Sec-Fetch-Site": site}
            assert (await http.get("/events?wait=0", headers=headers)).status_code == status
            assert (await http.get("/alerts", headers=headers)).status_code == status
