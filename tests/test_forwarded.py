"""The client that a proxy reports: always the same as in uvicorn's middleware, whatever the headers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shared.process.forwarded import Forwarded, Peer, Proxies

pytestmark = pytest.mark.anyio

TRUSTED = ["127.0.0.1", "::1", "10.0.0.0/8", "lb"]
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
    ]
)
SCHEMES = st.sampled_from([b"http", b"https", b"ws", b"wss", b"ftp", b"", b" https "])


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


@pytest.mark.parametrize("host", ["", "x" * 300, "192.0.2.1"])
def test_forwarded_headers_of_untrusted_peers_are_ignored(host: str) -> None:
    headers = [(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"https")]
    assert Proxies(TRUSTED).peer(host, 5, headers) == Peer(host, 5, "http")
