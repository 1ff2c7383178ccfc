"""The sender and the gateways, as they answer over HTTP."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2

from shared.commands.doctor.clocks import clock
from shared.commands.doctor.findings import Finding, fail, ok, warn
from shared.commands.service import service_of
from shared.reasons import reason_of
from shared.tls import tls_to_sender

if TYPE_CHECKING:
    from shared.settings import ReceiverSettings

SECONDS = 5
FEW_FILES = 1_000
REMOVED = "removed or replaced"  # the sender's words for a file of SQLite that is away
_BESIDE = 100  # files beside connections: the listening socket, Redis, the sender, logs


class Sender(NamedTuple):
    """The sender's own report. Position 0: it has published nothing yet."""

    epoch: int
    position: int
    installation: str
    reaches_redis: bool


def client(authority: str | None) -> httpx2.AsyncClient:
    # Directly, whatever proxies the environment names: as gateways do, see shared/outbound.py.
    tls = tls_to_sender(authority, beside_public=True)  # gateways are asked, too
    return httpx2.AsyncClient(timeout=SECONDS, trust_env=False, verify=tls)


async def look_at_sender(http: httpx2.AsyncClient, url: str, key: str) -> tuple[list[Finding], Sender | None]:
    findings, body = await _ready(http, "sender", url, "ORDERBELL_SENDER_URL: the sender's address, as {}")
    if body is None:
        return findings, None
    try:
        headers = {"authorization": f"Bearer {key}"}
        answer = await http.post(f"{url}/history", json={"after": []}, headers=headers)
    except httpx2.HTTPError as error:
        return [*findings, fail("sender key", f"{url}/history: {reason_of(error)}")], None
    if answer.status_code in (401, 403):
        says = f"{url} refuses the API key that gateways call it with ({answer.status_code})"
        fix = "the gateways' ORDERBELL_API_KEYS: put one of the sender's ORDERBELL_API_KEYS first"
        return [*findings, fail("sender key", says, fix)], None
    if answer.status_code >= 500:
        return [
            *findings,
            fail("sender key", f"{url}/history answers {answer.status_code}; see its log"),
        ], None
    if (sender := _sender(answer, body)) is None:
        which = "a gateway, not a sender" if service_of(body) == "gateway" else "not a sender"
        says = f"what answers at {url} is {which} ({answer.status_code})"
        return [*findings, fail("sender key", says, "ORDERBELL_SENDER_URL: where the sender listens")], None
    try:
        findings += _agreement("sender", url, (await http.get(f"{url}/metrics")).text)
    except httpx2.HTTPError:
        pass  # what is wrong with it is among the findings already, or will be
    return [*findings, ok("sender key", "the sender accepts our API key")], sender


def _sender(answer: httpx2.Response, readiness: dict[str, Any]) -> Sender | None:
    try:
        body = answer.json()
        epoch, position = map(int, body["newest"].split("."))
        installation = str(body.get("installation", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Sender(epoch, position, installation, readiness.get("redis") == "ok")


async def gateways_heard(http: httpx2.AsyncClient, sender: str, key: str) -> frozenset[str] | None:
    """The gateways that answer the sender through Redis; None if it can't be asked with this key."""
    try:
        answer = await http.get(f"{sender}/connections", headers={"authorization": f"Bearer {key}"})
        return frozenset(str(report["gateway"]) for report in answer.json()["gateways"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return None


async def look_at_gateway(http: httpx2.AsyncClient, url: str, settings: ReceiverSettings) -> list[Finding]:
    findings, body = await _ready(http, "gateway", url, "--gateway: where a gateway listens, as {}")
    return findings if body is None else [*findings, *await _figures(http, url, settings)]


async def _ready(
    http: httpx2.AsyncClient, what: str, url: str, fix: str
) -> tuple[list[Finding], dict[str, Any] | None]:
    """The body of /readyz; None if no service of ours answers."""
    fix = fix.format("http://127.0.0.1:8090" if what == "sender" else "http://127.0.0.1:8091")
    try:
        response = await http.get(f"{url}/readyz")
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        return [fail(what, f"{url}: {reason_of(error)}", fix)], None
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "ready" not in body:
        return [fail(what, f"what answers at {url} is not a {what} ({response.status_code})", fix)], None
    if what == "gateway" and service_of(body) == "sender":
        return [fail(what, f"what answers at {url} is a sender, not a gateway", fix)], None
    if body["ready"]:
        findings = [ok(what, f"{url} is ready")]
    else:
        why = reasons(body)
        findings = [fail(what, f"{url} is not ready: {why}", _change_for(what, why))]
    if date := response.headers.get("date"):
        findings.append(clock(f"{what} clock", parsedate_to_datetime(date).timestamp() - time.time()))
    return findings, body


def _change_for(what: str, why: str) -> str:
    """Both services' bodies name the fault, but not always what to change."""
    if "another installation" in why:
        return "another ORDERBELL_KEY_PREFIX, or another database number, for one of the two"
    return next((change for words, change in _CHANGES.items() if what == "sender" and words in why), "")


_CHANGES = {
    "disk is full": "free or add space on the database's disk; the sender goes on by itself",
    "keeps the database locked": "end the process that holds the lock (`fuser FILE` lists candidates)",
    REMOVED: "move the file back; or restart the sender, which then begins with an empty database",
    "damaged": "restore a backup of the database",
    "database": "its log has the reason; see OrderbellDatabaseDown in docs/operations.md",
}


def reasons(body: dict[str, Any]) -> str:
    """Why it is not ready, as far as its answer shows."""
    given = body.get("reasons")
    if isinstance(given, dict) and given:
        return "; ".join(map(str, given.values()))
    return ", ".join(f"{name} {_word(value)}" for name, value in body.items() if name != "ready")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


async def _figures(http: httpx2.AsyncClient, url: str, settings: ReceiverSettings) -> list[Finding]:
    """The figures of its metrics, if they can be read."""
    try:
        metrics = (await http.get(f"{url}/metrics")).text
    except httpx2.HTTPError:
        return []
    findings = []
    if found := re.search(r"^process_max_fds (\S+)$", metrics, re.MULTILINE):
        findings.append(open_files("gateway files", int(float(found[1])), settings.max_connections))
    findings += _agreement("gateway", url, metrics)
    dropped = sum(map(float, re.findall(r"^orderbell_unauthentic_total\S* (\S+)$", metrics, re.MULTILINE)))
    if dropped:
        says = f"{url} has dropped {dropped:,.0f} values that none of its ORDERBELL_LIVE_KEYS has signed"
        findings.append(
            warn("gateway live keys", says, "ORDERBELL_LIVE_KEYS: the same for sender and gateways")
        )
    return findings


def _agreement(what: str, url: str, metrics: str) -> list[Finding]:
    """Of services that this one hears of; nothing where its metrics are elsewhere."""
    found = re.findall(r'^orderbell_settings_differ\{setting="(\w+)"\} 1\.0$', metrics, re.MULTILINE)
    names = ", ".join(f"ORDERBELL_{setting.upper()}" for setting in found)
    if not found:
        return []
    says = f"{url} hears of services of this installation that run with different settings"
    return [warn(f"{what} settings", says, f"{names}: the same for all of them")]


def open_files(what: str, limit: int, connections: int) -> Finding:
    needed = connections + _BESIDE
    if limit >= needed:
        return ok(what, f"{limit:,} may be open")
    says = f"only {limit:,} may be open; {connections:,} connections need {needed:,}"
    fewer = max(1, limit - _BESIDE)
    fix = f"ulimit -n {needed} (systemd: LimitNOFILE={needed}), or ORDERBELL_MAX_CONNECTIONS={fewer}"
    return (fail if limit < FEW_FILES else warn)(what, says, fix)
