"""The client that a proxy reports: always the same as in uvicorn's middleware, whatever the headers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from websockets.exceptions import InvalidStatus

from shared.process.forwarded import Forwarded, Peer, Proxies
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes

pytestmark = pytest.mark.anyio

TRUSTED = ["127.0.0.1", "::1", "10.0.0.0/8"]
HOPS = st.sampled_from(
    [
        "1.2.3.4",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:5",
        "[2001:db8::1]",
        "::2",
        "lb",
        "unknown",
        "",
        "[x",
        "a:b",
        "192.0.2.9:" + "9" * 5000,
        "[2001:db8::1]:x",
        "[2001:db8::1]x",
        "fe80::1%eth0",
        "1.2.3.4 evil",
        "0127.0.0.1",
        "for=127.0.0.1",
    ]
)
SCHEMES = st.sampled_from(
    [b"http", b"https", b"ws", b"wss", b"ftp", b"", b" https ", b"HTTPS", b"https, http"]
)


def uvicorn_says(host: str, headers: list[tuple[bytes, bytes]]) -> tuple[Any, str]:
    found: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.update(scope)

    scope = {"type": "http", "scheme": "http", "client": (host, 1), "headers": headers}
    asyncio.run(ProxyHeadersMiddleware(app, TRUSTED)(scope, None, None))  # type: ignore[arg-type]
    return found["client"], found["scheme"]


@given(
    st.sampled_from(["127.0.0.1", "::1", "10.9.9.9", "192.0.2.1", "lb"]),
    st.lists(st.lists(HOPS, min_size=1, max_size=4).map(", ".join), max_size=3),
    st.lists(SCHEMES, max_size=2),
)
def test_peer_is_the_one_that_uvicorn_finds(host: str, chains: list[str], schemes: list[bytes]) -> None:
    headers = [(b"x-forwarded-for", chain.encode()) for chain in chains]
    headers += [(b"x-forwarded-proto", scheme) for scheme in schemes]
    client, scheme = uvicorn_says(host, headers)
    peer = Proxies(TRUSTED).peer(host, 1, headers)
    assert (peer.host, peer.port) == client
    assert peer.scheme == scheme.replace("ws", "http")


@pytest.mark.parametrize("hop", ["::ffff:10.1.2.3", "::FFFF:127.0.0.1", "[::ffff:10.1.2.3]:80"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_proxy_on_a_dual_stack_socket_is_the_same_proxy(host: str, hop: str) -> None:
    headers = [(b"x-forwarded-for", f"192.0.2.66, 192.0.2.7, {hop}".encode())]
    assert Proxies(TRUSTED).peer(host, 1, headers).host == "192.0.2.7"


@pytest.mark.parametrize("trusted", ["::ffff:10.0.0.0/104", "::ffff:a01:203", "::ffff:10.1.2.0/120"])
def test_proxy_that_the_setting_spells_as_mapped_is_trusted(trusted: str) -> None:
    proxies = Proxies([trusted])
    for host in ("10.1.2.3", "::ffff:10.1.2.3"):
        assert proxies.peer(host, 1, [(b"x-forwarded-for", b"192.0.2.7")]).host == "192.0.2.7"
    assert not proxies.trust("11.1.2.3")
    assert not proxies.trust("::a01:203")


def test_network_that_holds_more_than_the_mapped_addresses_stays_as_it_is() -> None:
    proxies = Proxies(["::/0"])
    assert proxies.trust("2001:db8::1")
    assert not proxies.trust("10.1.2.3")


async def test_app_sees_the_client_and_the_scheme_that_a_trusted_proxy_reports() -> None:
    seen: list[tuple[Any, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"]))

    forwarded: Any = Forwarded(app, Proxies(TRUSTED))
    headers = [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")]
    for host in ("10.0.0.1", "192.0.2.1"):
        scope = {"type": "http", "client": (host, 5), "scheme": "http", "headers": headers}
        await forwarded(scope, None, None)
    assert seen == [(("192.0.2.7", 0), "https"), (("192.0.2.1", 5), "http")]


async def test_no_other_header_of_a_proxy_counts() -> None:
    """They would be a client's: no proxy that we describe removes them."""
    others = ("host", "port", "prefix", "server", "ssl", "scheme")
    headers = [(f"x-forwarded-{name}".encode(), b"https") for name in others]
    headers += [(b"forwarded", b"for=192.0.2.7;proto=https"), (b"x-real-ip", b"192.0.2.7")]
    assert Proxies(TRUSTED).peer("127.0.0.1", 5, headers) == Peer("127.0.0.1", 5, "http")


@pytest.mark.parametrize("proxied", [True, False])
async def test_websocket_has_the_peer_of_a_request(processes: Processes, *, proxied: bool) -> None:
    """Seen in what the operator's function is given, in a handshake that the edge hands over."""
    processes.start_sender()
    allowed = "127.0.0.1" if proxied else "192.0.2.1"
    gateway = processes.start_receiver(admit="tests.admission_hooks:by_header", forwarded_allow_ips=allowed)
    headers = {
        "X-How": "see",
        "X-Forwarded-For": "127.0.0.9, [2001:db8::7]:4711, 127.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
    }
    peer = "2001:db8::7 https" if proxied else "127.0.0.1 http"
    with pytest.raises(InvalidStatus) as refused:
        async with connected(gateway, processes.token("alice"), headers=headers):
            pass
    assert peer in json.loads(refused.value.response.body)["detail"]
    answer = httpx2.post(f"{gateway.url}/websocket/000/abcdefgh/xhr", headers=headers, trust_env=False)
    assert peer in answer.json()["detail"]


@pytest.mark.parametrize("host", ["", "x" * 300, "192.0.2.1"])
def test_forwarded_headers_of_untrusted_peers_are_ignored(host: str) -> None:
    headers = [(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"https")]
    assert Proxies(TRUSTED).peer(host, 5, headers) == Peer(host, 5, "http")
