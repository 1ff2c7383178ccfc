"""`orderbell kick`: asks the sender to revoke a customer's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import httpx2

from shared.channels import MAX_NAME, is_name
from shared.commands.erase import CallerSettings, fail, refusal_of

if TYPE_CHECKING:
    from shared.commands.local import LocalDirectory

TIMEOUT_SECONDS = 30.0


def kick(local: LocalDirectory, customer: str, sender: str | None) -> int:
    """The exit code: 0 when revoked, 1 when the sender did not do it."""
    if not is_name(customer):
        raise click.BadParameter(
            f"{customer[:160]!r} is not 1 to {MAX_NAME} characters without control characters"
        )
    settings = local.load(CallerSettings)
    url = (sender or str(settings.sender_url)).rstrip("/")
    headers = {"Authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"}
    try:
        with httpx2.Client(trust_env=False, timeout=TIMEOUT_SECONDS, verify=settings.tls) as client:
            answer = client.post(f"{url}/revocations", headers=headers, json={"customer_id": customer})
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return fail(f"{url} does not answer: {error}")
    if answer.status_code != 200:
        return fail(refusal_of(url, answer, settings))
    click.echo("revoked: the customer's connections end within a second; tokens issued from now on are good")
    return 0
