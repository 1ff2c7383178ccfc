"""What an operator would look at first: settings, Redis, the sender, the gateways, the clocks."""

from __future__ import annotations

import asyncio
import enum
import os
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import click
import httpx2
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

from shared.redis.cluster import Cluster
from shared.redis.connect import connect, greet
from shared.redis.url import shown
from shared.settings import InvalidSettings, ReceiverSettings, SenderSettings, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from shared.commands.local import LocalDirectory

CLOCK_WARN_SECONDS = 5
CLOCK_FAIL_SECONDS = 30  # the leeway that tokens are given
OLDEST_REDIS = (6, 2)


class Verdict(enum.Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    what: str
    verdict: Verdict
    says: str


class DoctorSettings(SenderSettings, ReceiverSettings):
    """Those of both."""


_COLORS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def examine(local: LocalDirectory, sender: str | None, gateways: Sequence[str]) -> int:
    """Print what is found; the exit code."""
    local.adopt(os.environ)
    findings, settings = _settings()
    if settings is not None:
        services = [("sender", sender or str(settings.sender_url))]
        services += [("gateway", gateway) for gateway in gateways]
        findings += asyncio.run(_look(settings.redis_url, services))
    width = max(len(finding.what) for finding in findings)
    for what, verdict, says in findings:
        click.echo(f"{click.style(f'{verdict.value:4}', fg=_COLORS[verdict])}  {what:{width}}  {says}")
    return 1 if any(finding.verdict is Verdict.FAIL for finding in findings) else 0


def _settings() -> tuple[list[Finding], DoctorSettings | None]:
    try:
        settings = read(DoctorSettings)
    except InvalidSettings as error:
        return [Finding("settings", Verdict.FAIL, fault) for fault in error.faults], None
    if settings.development:
        return [Finding("settings", Verdict.WARN, "development mode: anybody may sign in")], settings
    return [Finding("settings", Verdict.OK, "complete")], settings


async def _look(redis_url: str, services: Iterable[tuple[str, str]]) -> list[Finding]:
    findings = await _redis(redis_url)
    async with httpx2.AsyncClient(timeout=5) as client:
        for what, url in services:
            findings += await _service(client, what, url.rstrip("/"))
    return findings


async def _redis(url: str) -> list[Finding]:
    async with connect(url, retries=0) as redis:
        try:
            started = time.monotonic()
            await greet(redis)
            milliseconds = (time.monotonic() - started) * 1000
            findings = [
                Finding("redis", Verdict.OK, f"{shown(url)} answers in {milliseconds:.1f} ms{_behind(redis)}")
            ]
            for server in _servers(redis):
                findings += await _server(server)
        except (RedisError, OSError) as error:
            return [Finding("redis", Verdict.FAIL, f"{shown(url)}: {error}")]
    return findings


def _behind(redis: Redis | Cluster) -> str:
    """Who it is that serves us, where the URL doesn't say so."""
    if isinstance(redis, Cluster):
        primaries = ", ".join(map(str, sorted(redis.primaries)))
        return f"; a cluster of {len(redis.nodes)} nodes, its primaries {primaries}"
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool) and pool.master_address:
        host, port = pool.master_address
        return f"; the sentinels' primary is {host}:{port}"
    return ""


def _servers(redis: Redis | Cluster) -> list[Redis]:
    return [*map(redis.client, sorted(redis.primaries))] if isinstance(redis, Cluster) else [redis]


async def _server(redis: Redis) -> list[Finding]:
    info = await redis.info()
    seconds, microseconds = await redis.time()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    return [
        _version(name, version),
        _policy(str(info.get("maxmemory_policy"))),
        _clock("redis clock", seconds + microseconds / 1e6 - time.time()),
    ]


def _version(name: str, version: str) -> Finding:
    if name == "Redis" and tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        return Finding("redis version", Verdict.FAIL, f"{version} is too old; 6.2 or later, or any Valkey")
    return Finding("redis version", Verdict.OK, f"{name} {version}")


def _policy(policy: str) -> Finding:
    if policy == "noeviction":
        return Finding("redis memory", Verdict.OK, "maxmemory-policy is noeviction")
    return Finding(
        "redis memory",
        Verdict.WARN,
        f"maxmemory-policy is {policy}: events may be evicted and are then read from the database;"
        " noeviction is better",
    )


async def _service(client: httpx2.AsyncClient, what: str, url: str) -> list[Finding]:
    try:
        response = await client.get(f"{url}/readyz")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return [Finding(what, Verdict.FAIL, f"{url}: {error}")]
    if response.status_code != 200:
        return [Finding(what, Verdict.FAIL, f"{url} is not ready: {response.text[:200]}")]
    findings = [Finding(what, Verdict.OK, f"{url} is ready")]
    if date := response.headers.get("date"):
        findings.append(_clock(f"{what} clock", parsedate_to_datetime(date).timestamp() - time.time()))
    return findings


def _clock(what: str, ahead_seconds: float) -> Finding:
    off = abs(ahead_seconds)
    verdict = Verdict.OK if off < CLOCK_WARN_SECONDS else Verdict.WARN
    if off > CLOCK_FAIL_SECONDS:
        verdict = Verdict.FAIL
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return Finding(what, verdict, f"{off:.1f} s {direction} ours")
