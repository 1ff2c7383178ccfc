"""A real WebSocket, as a customer's browser opens it: to a gateway, and through the public address."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from redis.exceptions import RedisError
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Origin, Subprotocol

from shared.channels import Channel
from shared.commands.doctor.findings import Finding, fail, ok, warn
from shared.commands.doctor.redis import SAME_REDIS
from shared.reasons import reason_of
from shared.redis.cluster import Cluster
from shared.redis.connect import connect as connect_redis
from shared.redis.keys import Names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.asyncio.client import ClientConnection

    from shared.commands.doctor.redis import Where

    Hears = Callable[[], Awaitable[frozenset[str] | None]]

SECONDS = 5
REDIS = "gateway door redis"
LONGEST_HEARTBEAT = 45.0  # HAProxy on Debian cuts connections that are idle for 50 s, nginx and ALB after 60
_HEAR_SECONDS = 3.0  # for a gateway to subscribe to a channel that was just entered
_UPGRADE = (
    "let the proxy pass WebSockets; nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
    " proxy_set_header Connection upgrade; (docs/proxies.md)"
)


class Hello(NamedTuple):
    heartbeat_seconds: float
    channels: list[Channel]
    gateway: str


async def look(
    what: str,
    url: str,
    token: str | None,
    where: Where | None,
    *,
    public: bool,
    hears: Hears | None = None,
) -> list[Finding]:
    """With `where`, also check that the gateway hears that Redis. `public`: with that address as the page's
    origin.

    `hears` returns the gateways that hear it; without it, the channel of the token's customer must be
    subscribed there, which proves something only if no other gateway has that customer.
    """
    parts = urlsplit(url)
    address = parts._replace(
        scheme=parts.scheme.replace("http", "ws", 1), path=parts.path.rstrip("/") + "/events", query=""
    ).geturl()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    origin = Origin(f"{parts.scheme}://{parts.netloc}") if public else None
    try:
        async with connect_websocket(
            address,
            subprotocols=[Subprotocol("cloudevents.json")],
            additional_headers=headers,
            origin=origin,
            open_timeout=SECONDS,
            close_timeout=1,
            proxy=None,
        ) as websocket:
            if token is None:
                return [ok(what, f"{address} opens a WebSocket; pass --token to try more")]
            return await _inside(what, address, websocket, where, hears)
    except InvalidStatus as error:
        return [_refused(what, address, error.response.status_code, origin, public=public)]
    except ssl.SSLError as error:
        return [
            fail(
                what,
                f"{address}: {error.reason or error}",
                "a certificate that browsers trust, for this name",
            )
        ]
    except TimeoutError:
        return [fail(what, f"{address}: no WebSocket within {SECONDS} s", _UPGRADE if public else "")]
    except OSError as error:  # no proxy has answered
        fix = "--url: the address that customers use, where your proxy listens" if public else ""
        return [fail(what, f"{address}: {reason_of(error)}", fix)]
    except (InvalidHandshake, InvalidURI, EOFError) as error:
        return [fail(what, f"{address}: {reason_of(error)}", _UPGRADE if public else "")]


def _refused(what: str, address: str, status: int, origin: str | None, *, public: bool) -> Finding:
    if status == 426 or (public and status in (200, 301, 302, 307, 308, 400, 404, 501)):
        says = f"{address} answers {status}: the proxy in front passes no WebSocket upgrade"
        if status in (301, 302, 307, 308):
            return fail(
                what, f"{address} answers {status}, a redirect", "--url: the address that it leads to"
            )
        return fail(what, says, _UPGRADE)
    if status == 403 and origin:
        fix = f"ORDERBELL_ALLOWED_ORIGINS: add {origin}; or let the proxy pass the Host that the client sent"
        return fail(what, f"{address} refuses pages of {origin} (403)", fix)
    if status in (502, 503, 504):
        return fail(what, f"{address} answers {status}: no gateway is behind it, or none is ready")
    return fail(
        what, f"{address} answers {status} instead of opening a WebSocket", _UPGRADE if public else ""
    )


async def _inside(
    what: str, address: str, websocket: ClientConnection, where: Where | None, hears: Hears | None
) -> list[Finding]:
    try:
        message: Any = json.loads(await asyncio.wait_for(websocket.recv(), SECONDS))
        data = message["data"]
        hello = Hello(
            float(data["heartbeat_seconds"]), list(map(Channel, data["channels"])), str(data["gateway"])
        )
    except ConnectionClosed:
        says = f"{address} closes with {websocket.close_code} {websocket.close_reason}"
        return [fail(what, says, _meaning(websocket.close_code or 0))]
    except TimeoutError:
        return [fail(what, f"{address} opens, but sends nothing for {SECONDS} s", _meaning(1013))]
    except (ValueError, KeyError, TypeError):
        return [fail(what, f"{address} does not behave like a gateway")]
    findings = [ok(what, f"{address} greets its customer")]
    if hello.heartbeat_seconds > LONGEST_HEARTBEAT:
        findings.append(heartbeat(f"{what} heartbeat", hello.heartbeat_seconds))
    if where is not None:
        try:
            heard = await (
                _is_subscribed(where, hello.channels[0]) if hears is None else _answers(hears, hello.gateway)
            )
        except (RedisError, OSError, TimeoutError):
            heard = True  # our user may not ask, or `redis` reports what is wrong
        if not heard:
            findings.append(fail(REDIS, f"{address} does not hear this Redis ({where})", SAME_REDIS))
    return findings


def _meaning(code: int) -> str:
    return {
        4401: "the gateway's ORDERBELL_JWT_SECRET or ORDERBELL_JWKS_URL: they differ from the settings here",
        4403: "the gateway's ORDERBELL_JWT_… settings: its log shows what the token has and what they expect",
        1013: "see the gateway's log: it can't reach its issuer, its sender or Redis",
    }.get(code, "see the gateway's log")


def heartbeat(what: str, seconds: float) -> Finding:
    says = f"one in {seconds:g} s: common proxies cut connections that are idle for 50 to 60 s"
    return (fail if seconds >= 60 else warn)(what, says, "ORDERBELL_HEARTBEAT_SECONDS=20")


async def _answers(hears: Hears, gateway: str) -> bool:
    """True if the sender can't be asked: another finding reports that."""
    deadline = time.monotonic() + _HEAR_SECONDS
    while (names := await hears()) is not None and gateway not in names:
        if time.monotonic() > deadline:
            return False
    return True


async def _is_subscribed(where: Where, channel: Channel) -> bool:
    live = Names.of(where.url, where.prefix).live(channel)
    async with connect_redis(where.url, retries=0) as redis:
        if isinstance(redis, Cluster):
            return True  # the node would have to be found; `redis sender` has compared what is published
        deadline = time.monotonic() + _HEAR_SECONDS
        while not await _subscribers(redis, live):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
    return True


async def _subscribers(redis: Any, live: str) -> int:
    [(_, count)] = await redis.pubsub_numsub(live)
    return int(count)
