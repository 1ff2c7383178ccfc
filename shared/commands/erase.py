"""`orderbell erase`: asks the sender to erase a customer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import httpx2
import msgspec

from shared.channels import MAX_NAME, is_name
from shared.commands.service import GATEWAY_THERE, service_at
from shared.settings import SenderAddress, Settings

if TYPE_CHECKING:
    from shared.commands.local import LocalDirectory

NO_ANSWER = 3  # the exit code
TIMEOUT_SECONDS = 120.0  # the sender searches all answers kept for repeated requests


class CallerSettings(SenderAddress, Settings):
    """The settings of a caller of the sender."""


class _Report(msgspec.Struct):
    orders: int
    events: int
    dead_letters: int
    answers: int
    redis: str


class _Problem(msgspec.Struct):
    detail: str = ""


def erase(local: LocalDirectory, customer: str, sender: str | None) -> int:
    """The exit code: 0 when erased, 3 when the sender does not answer or refuses."""
    if not is_name(customer):
        raise click.BadParameter(
            f"{customer[:160]!r} is not 1 to {MAX_NAME} characters without control characters"
        )
    settings = local.load(CallerSettings)
    url = (sender or str(settings.sender_url)).rstrip("/")
    headers = {"Authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"}
    # A dot is encoded, too: clients take a segment that is only dots out of the path.
    path = quote(customer, safe="").replace(".", "%2E")
    try:
        with httpx2.Client(trust_env=False, timeout=TIMEOUT_SECONDS, verify=settings.tls) as client:
            answer = client.delete(f"{url}/customers/{path}", headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return fail(f"{url} does not answer: {error}")
    if answer.status_code != 200:
        return fail(refusal_of(url, answer, settings))
    report = msgspec.json.decode(answer.content, type=_Report)
    counts = (
        (report.orders, "order"),
        (report.events, "event"),
        (report.dead_letters, "dead letter"),
        (report.answers, "kept answer"),
    )
    click.echo("erased: " + ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts))
    if report.redis != "erased":
        click.echo("Redis does not answer; the sender keeps trying to erase there", err=True)
    return 0


def refusal_of(url: str, answer: httpx2.Response, settings: CallerSettings) -> str:
    if answer.status_code in (404, 405) and service_at(url, settings.tls) == "gateway":
        return GATEWAY_THERE.format(url)
    return f"{url} refuses with {answer.status_code}: {_detail_of(answer.content)}"


def _detail_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Problem).detail[:200]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "what answers is not an Orderbell sender"


def fail(reason: str) -> int:
    click.echo(f"orderbell: {reason}", err=True)
    return NO_ANSWER
