"""Checks what an operator would look at first: settings, Redis, the sender, the database, the gateways,
clocks.

Every fault comes with the line to change. Nothing is changed except a ticket's key in Redis, which is deleted
again; services are reached directly, as they reach each other.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pydantic import model_validator

from shared.commands.doctor import database, door, redis, services, tokens
from shared.commands.doctor.findings import Finding, Verdict, fail, ok, show, warn
from shared.commands.local import is_set
from shared.settings import (
    PREFIX,
    TOGETHER,
    InvalidSettings,
    ReceiverSettings,
    SenderSettings,
    faults_together,
    read,
)
from shared.tokens import ClaimNames, mint_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from httpx2 import AsyncClient

    from shared.commands.local import LocalDirectory

_GATEWAYS = "run it with a gateway's settings: ORDERBELL_JWT_SECRET or ORDERBELL_JWKS_URL"
CUSTOMER = "orderbell.doctor"  # prefix of the customers that we connect as; nothing is ever published to them


class DoctorSettings(SenderSettings, ReceiverSettings):
    """The settings of both services; on a sender's machine, those of gateways may be missing."""

    @property
    def verifies(self) -> bool:
        return bool(self.secrets or self.jwks_url)

    @model_validator(mode="after")
    def _check_one_way_to_verify(self) -> DoctorSettings:
        faults = faults_together({name for name in TOGETHER if getattr(self, name)})
        if faults and not (_is_senders() and not self.verifies):
            raise ValueError(faults[0])
        return self


def _is_senders() -> bool:
    """Whether the settings here are a sender's."""
    return is_set(os.environ, PREFIX + "DATABASE_URL")


class Asked(NamedTuple):
    """What to check besides the settings."""

    sender: str | None = None
    gateways: Sequence[str] = ()
    url: str | None = None  # the public address
    token: str | None = None


def examine(local: LocalDirectory, asked: Asked) -> int:
    """Print the findings; returns the exit code."""
    local.adopt(os.environ)
    gateways = asked.gateways or (() if asked.sender or asked.url else local.gateways())
    findings = find(asked._replace(gateways=gateways))
    show(findings)
    return 1 if any(finding.verdict is Verdict.FAIL for finding in findings) else 0


def find(asked: Asked) -> list[Finding]:
    findings, settings = _settings()
    return findings + (asyncio.run(_look(settings, asked)) if settings else [])


def _settings() -> tuple[list[Finding], DoctorSettings | None]:
    try:
        settings = read(DoctorSettings)
    except InvalidSettings as error:
        return [fail("settings", fault) for fault in error.faults], None
    development = "; development mode, for this machine alone" if settings.development else ""
    return [ok("settings", f"complete{development}")], settings


async def _look(settings: DoctorSettings, asked: Asked) -> list[Finding]:
    findings = _limits(settings, local=not asked.gateways)
    if settings.verifies:
        findings += await tokens.look(settings, asked.token)
    elif asked.token:
        findings.append(warn("token", "no setting here says how tokens are verified", _GATEWAYS))
    of_sender = _is_senders()
    of_database = await database.look(settings.database_url) if of_sender else []
    where = redis.Where(settings.redis_url, settings.key_prefix)
    async with services.client(settings.sender_ca) as http:
        url = (asked.sender or str(settings.sender_url)).rstrip("/")
        of_sender_found, sender = await services.look_at_sender(http, url, _key(settings))
        lost = any(services.REMOVED in finding.says for finding in of_sender_found)
        if of_sender and lost:
            of_database = [database.lost(settings.database_url)]
        of_redis = await redis.look(where, sender, publishes=of_sender)
        findings += of_database + of_redis + of_sender_found
        to_hear = None if any(finding.verdict is Verdict.FAIL for finding in of_redis) else where
        for gateway in asked.gateways:
            found = await services.look_at_gateway(http, gateway.rstrip("/"), settings)
            findings += found
            if not any(finding.what == "gateway" and finding.verdict is Verdict.FAIL for finding in found):
                findings += await _doors(http, url, gateway, asked.token, settings, to_hear)
    if asked.url:
        token = asked.token or _token(settings)
        findings += await door.look("public door", asked.url, token, None, public=True)
    return findings


async def _doors(
    http: AsyncClient,
    sender: str,
    gateway: str,
    given: str | None,
    settings: DoctorSettings,
    where: redis.Where | None,
) -> list[Finding]:
    """Check one gateway by its WebSocket. Whether it hears Redis does not depend on the customer of the
    token.

    A channel that another gateway has also subscribed proves nothing. So we use a customer of our own; if
    only the issuer can sign tokens, the sender asks all gateways through Redis.
    """
    own = _token(settings)
    if given is None or own is None or where is None:
        hears = None if own is not None else partial(services.gateways_heard, http, sender, _key(settings))
        return await door.look("gateway door", gateway, given or own, where, public=False, hears=hears)
    found = await door.look("gateway door", gateway, given, None, public=False)
    of_own = await door.look("gateway door", gateway, own, where, public=False)
    return found + [finding for finding in of_own if finding.what == door.REDIS]


def _key(settings: DoctorSettings) -> str:
    return settings.api_keys[0].get_secret_value()


def _limits(settings: DoctorSettings, *, local: bool) -> list[Finding]:
    findings = []
    if settings.heartbeat_seconds > door.LONGEST_HEARTBEAT:
        findings.append(door.heartbeat("heartbeat", settings.heartbeat_seconds))
    if local:  # gateways report their own limits
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY:
            findings.append(services.open_files("open files", hard, settings.max_connections))
    return findings


def _token(settings: DoctorSettings) -> str | None:
    """A token for a customer of our own, if we can sign one.

    A new one each time: a gateway keeps a channel for a while after its last client has left, and would hide
    that the next one hears another Redis.
    """
    if not settings.secrets:
        return None
    return mint_token(
        settings.secrets[0],
        f"{CUSTOMER}.{secrets.token_hex(8)}",
        audience=settings.jwt_audiences[0],
        issuer=settings.jwt_issuer,
        names=ClaimNames.of(settings),
        lifetime_seconds=120,
    )
