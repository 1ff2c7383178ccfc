"""`orderbell kick`: asks the sender to revoke a customer's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import httpx2
import msgspec

from shared.channels import MAX_NAME, is_name
from shared.commands.erase import CallerSettings, fail, refusal_of
from shared.redis.inquiries import GatewayReport

if TYPE_CHECKING:
    from shared.commands.local import LocalDirectory

TIMEOUT_SECONDS = 30.0
_ASK_SECONDS = 5.0  # for who is connected; the tokens are revoked in any case


class Connections(msgspec.Struct):
    connections: int
    gateways: list[GatewayReport] | None
    silent: list[str] = []


def kick(local: LocalDirectory, customer: str, sender: str | None) -> int:
    """The exit code: 0 when revoked, 3 when the sender does not answer or refuses."""
    if not is_name(customer):
        raise click.BadParameter(
            f"{customer[:160]!r} is not 1 to {MAX_NAME} characters without control characters"
        )
    settings = local.load(CallerSettings)
    url = (sender or str(settings.sender_url)).rstrip("/")
    headers = {"Authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"}
    try:
        with httpx2.Client(trust_env=False, timeout=TIMEOUT_SECONDS, verify=settings.tls) as client:
            found = _connected(client, url, headers, customer)
            answer = client.post(f"{url}/revocations", headers=headers, json={"customer_id": customer})
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return fail(f"{url} does not answer: {error}")
    if answer.status_code != 200:
        return fail(refusal_of(url, answer, settings))
    click.echo(f"revoked: {what_ends(customer, found)}; tokens issued from now on are good")
    return 0


def _connected(client: httpx2.Client, url: str, headers: dict[str, str], customer: str) -> Connections | None:
    """Who is connected now; None if that is not known."""
    try:
        answer = client.get(
            f"{url}/connections",
            headers=headers,
            params={"customer_id": customer},
            timeout=_ASK_SECONDS,
        )
        if answer.status_code != 200:
            return None
        return msgspec.json.decode(answer.content, type=Connections)
    except (httpx2.HTTPError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def what_ends(customer: str, found: Connections | None) -> str:
    """As far as it is known: the sender takes any name, and only gateways know who is connected."""
    if found is None or not found.gateways:
        return f"connections of {customer} end within a second; how many there are, no gateway could be asked"
    unasked = f", and those at {', '.join(found.silent)}, which does not answer" if found.silent else ""
    if found.connections:
        what = "connection ends" if found.connections == 1 else "connections end"
        return f"{found.connections:,} {what} within a second{unasked}"
    similar = sorted({name for report in found.gateways for name in report.similar})
    if similar:
        return f"nobody is connected as {customer}, but as {', '.join(similar)}{unasked}"
    if any(report.ended for report in found.gateways):
        return f"{customer} is not connected now, but was before{unasked}"
    return f"nobody is connected as {customer}, or was lately (is the name right?){unasked}"
