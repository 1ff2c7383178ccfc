"""Options that several commands have."""

from __future__ import annotations

import re
from pathlib import Path

import click

from shared.commands.local import DEFAULT

_WITHOUT_CONTROLS = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*")


def checked_url(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    from shared.commands.watch import is_http_url

    if given is not None and not is_http_url(given):
        raise click.BadParameter(f"{given!r} is not a URL; expected http://host:port")
    return given


def checked_name(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """Of a customer or an order."""
    from shared.channels import MAX_NAME, is_name

    if given is not None and not is_name(given):
        raise click.BadParameter(
            f"{given[:160]!r} is not a name: 1 to {MAX_NAME} characters without control characters"
        )
    return given


def checked_attribute(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """Of an event: its id or source."""
    from shared.commands.support import MAX_EVENT_ID

    if given is not None and not (0 < len(given) <= MAX_EVENT_ID and _WITHOUT_CONTROLS.fullmatch(given)):
        raise click.BadParameter(
            f"{given[:160]!r} is not 1 to {MAX_EVENT_ID} characters without control characters"
        )
    return given


DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DEFAULT,
    show_default=True,
    help="Where `orderbell up` keeps its database, keys and settings; used where the environment has none.",
)
SENDER = click.option(
    "--sender",
    metavar="URL",
    help="Address of the sender, which is called with ORDERBELL_API_KEY.  [default: ORDERBELL_SENDER_URL]",
    callback=checked_url,
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the sender's answer as it is.")
