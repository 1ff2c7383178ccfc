"""The command line, `orderbell`: a table of contents."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from shared import __version__
from shared.commands.local import DEFAULT, LocalDirectory
from shared.commands.numbers import Number
from shared.errors import OperatorError

PORT = click.IntRange(1, 65535)
_WITHOUT_CONTROLS = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*")
MOST_MINUTES = 10 * 366 * 24 * 60
DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DEFAULT,
    show_default=True,
    help="Directory in which `orderbell up` keeps its database and its keys.",
)


def _checked_url(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    from shared.commands.watch import is_http_url

    if given is not None and not is_http_url(given):
        raise click.BadParameter(f"{given!r} is not a URL; expected http://host:port")
    return given


def _checked_name(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """Of a customer or an order."""
    from shared.channels import MAX_NAME, is_name

    if given is not None and not is_name(given):
        raise click.BadParameter(
            f"{given[:160]!r} is not a name: 1 to {MAX_NAME} characters without control characters"
        )
    return given


def _checked_attribute(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """Of an event: its id or source."""
    from shared.commands.support import MAX_EVENT_ID

    if given is not None and not (0 < len(given) <= MAX_EVENT_ID and _WITHOUT_CONTROLS.fullmatch(given)):
        raise click.BadParameter(
            f"{given[:160]!r} is not 1 to {MAX_EVENT_ID} characters without control characters"
        )
    return given


SENDER = click.option(
    "--sender", metavar="URL", help="[default: ORDERBELL_SENDER_URL]", callback=_checked_url
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the sender's answer as it is.")


class _Commands(click.Group):
    """A file that can't be read or written is a fault of what was given, and one line."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            why = f"{where}{error.strerror or error}"
        except OperatorError as error:
            why = str(error)
        print(f"orderbell: {why}", file=sys.stderr)
        sys.exit(2)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="orderbell")
@click.pass_context
def main(context: click.Context) -> None:
    """When an order is completed, its customer gets one pop-up in the browser.

    Settings are environment variables that start with ORDERBELL_. In production run `python -m sender`
    and `python -m receiver`; these commands are for trying, testing and maintaining them.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False


@main.command()
@click.option(
    "--gateways", type=click.IntRange(1, 16), default=2, show_default=True, help="How many gateways."
)
@click.option("--sender-port", type=PORT, default=8090, show_default=True)
@click.option(
    "--receiver-port",
    type=PORT,
    default=8091,
    show_default=True,
    help="Port of the first gateway; the others follow.",
)
@DATA
@click.option("--by-make", is_flag=True, hidden=True)  # so that what we advise is what is to be typed
def up(gateways: int, sender_port: int, receiver_port: int, data: Path, *, by_make: bool) -> None:
    """Run everything on this machine, to try it.

    An embedded Valkey (unless ORDERBELL_REDIS_URL is set), a SQLite file, one sender and some gateways,
    in development mode: anybody on this machine may sign in by name alone. Ctrl-C ends everything.

    Exit codes: 0 when asked to end, 1 when one of the processes ended by itself, 2 for a fault in the
    settings, a port in use or a Redis that can't be reached.
    """
    from shared.commands.up import Plan
    from shared.commands.up import up as run

    ports = tuple(range(receiver_port, receiver_port + gateways))
    if sender_port in ports or ports[-1] > 65535:
        needs = f"ports {ports[0]} to {ports[-1]}" if gateways > 1 else f"port {ports[0]}"
        taken = f", and the sender has {sender_port}" if sender_port in ports else ""
        raise click.BadParameter(f"the gateways would need {needs}{taken}", param_hint="--receiver-port")
    sys.exit(run(Plan(data, sender_port, ports, by_make)))


@main.command()
@click.argument("customer")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME",
    help="A topic that the customer may read; may be repeated.",
)
@click.option(
    "--minutes",
    type=Number(0, MOST_MINUTES, above=True),
    default=60,
    show_default=True,
    help="How long it is valid.",
)
@DATA
def token(customer: str, topics: tuple[str, ...], minutes: float, data: Path) -> None:
    """Print a customer's token.

    A JWT for CUSTOMER, signed with ORDERBELL_JWT_SECRET; without that setting, with the secret of
    `orderbell up`.
    """
    from shared.commands.token import mint

    click.echo(mint(LocalDirectory(data), customer, topics, minutes * 60))


@main.command()
@click.argument("customer")
@click.option("--gateway", default="http://127.0.0.1:8091", show_default=True, metavar="URL")
@click.option(
    "--topic", "topics", multiple=True, metavar="NAME", help="A topic to read as well; may be repeated."
)
@click.option(
    "--after",
    default="",
    metavar="CURSOR",
    help="Where to begin; by default after what the customer has seen.",
)
@click.option(
    "--transport",
    type=click.Choice(["websocket", "sse", "stomp", "poll"]),
    default="websocket",
    show_default=True,
    help="How to listen; poll is long polling.",
)
@click.option(
    "--handshake",
    is_flag=True,
    help="Show requests, answers, headers, frames and close codes, without the token.",
)
@DATA
def watch(
    customer: str,
    gateway: str,
    topics: tuple[str, ...],
    after: str,
    transport: str,
    handshake: bool,
    data: Path,
) -> None:
    """Print a customer's events as they come.

    As CUSTOMER's browser would get them: one event a line on standard output, everything else on standard
    error. Reconnects after every interruption and resumes where it was. Nothing is reported as seen. Ctrl-C
    ends it.
    """
    from shared.commands.watch import watch as run

    sys.exit(
        run(
            LocalDirectory(data),
            customer,
            topics,
            gateway,
            after,
            way=transport,
            shows_handshake=handshake,
        )
    )


@main.command()
@click.argument("asked", metavar="ORDER|EVENT|CUSTOMER", required=False)
@click.option("--order", "order_id", metavar="ID", help="An order, by its id.", callback=_checked_name)
@click.option(
    "--event", "event_id", metavar="ID", help="An event, by its CloudEvents id.", callback=_checked_attribute
)
@click.option(
    "--source",
    metavar="URI",
    help="The event's source, if it is not an order's.",
    callback=_checked_attribute,
)
@click.option(
    "--customer",
    "customer_id",
    metavar="ID",
    callback=_checked_name,
    help="A customer: their newest events, or the given event for them.",
)
@JSON
@SENDER
@DATA
def trace(
    asked: str | None,
    order_id: str | None,
    event_id: str | None,
    source: str | None,
    customer_id: str | None,
    as_json: bool,
    sender: str | None,
    data: Path,
) -> None:
    """Explain what became of an alert.

    The argument is looked up as an order's id, then as an event's, then as a customer's, whose newest
    events are shown; use an option to say which it is. For each event: whether it was recorded, published,
    handed over to a device and shown, and if not, why.

    Exit code 0 if something was found, 1 if not, 3 if the sender does not answer.
    """
    from shared.commands.support import trace as run

    named = {"order_id": order_id, "event_id": event_id, "source": source, "customer_id": customer_id}
    given = {name: value for name, value in named.items() if value is not None}
    if asked is None and not given:
        raise click.UsageError("name an order, an event or a customer")
    if source is not None and event_id is None and (asked is None or order_id is not None):
        raise click.UsageError("--source is that of an event: give --event, too")
    if asked is not None and (order_id is not None or event_id is not None):
        raise click.UsageError("give the argument or --order or --event, not both")
    sys.exit(run(LocalDirectory(data), asked, given, sender, as_json=as_json))


@main.command()
@click.option(
    "--customers", type=click.IntRange(1, 10**9), default=10_000, show_default=True, help="How many."
)
@click.option(
    "--events-a-day",
    type=Number(0, 1_000_000, above=True),
    default=1,
    show_default=True,
    help="Of one customer, on average.",
)
@click.option(
    "--connected",
    type=Number(0, 1),
    default=0.05,
    show_default=True,
    help="Share of customers who have a page open at the busiest moment.",
)
@click.option(
    "--peak",
    type=Number(1, 1_000_000),
    default=5,
    show_default=True,
    help="Events in the busiest second, as a multiple of an average one.",
)
@click.option("--history-days", type=Number(0, 36_500, above=True), default=7, show_default=True)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 10**6),
    default=10_000,
    show_default=True,
    help="Of a gateway.",
)
def size(
    customers: int,
    events_a_day: float,
    connected: float,
    peak: float,
    history_days: float,
    max_connections: int,
) -> None:
    """Estimate what an installation needs.

    Gateways, senders, memory of Redis, rows and writes of the database, computed from measurements on a small
    shared machine (README, docs/redis.md, docs/postgresql.md).
    """
    from shared.commands.size import Load, show

    show(Load(customers, events_a_day, connected, peak, history_days, max_connections))


@main.command()
@click.argument("customer", required=False, callback=_checked_name)
@JSON
@SENDER
@DATA
def who(customer: str | None, as_json: bool, sender: str | None, data: Path) -> None:
    """Show who is connected, gateway by gateway.

    With CUSTOMER, only their connections, including those that have ended. Exit code 0 if somebody is
    connected, 1 if not, 3 if the sender does not answer.
    """
    from shared.commands.support import who as run

    sys.exit(run(LocalDirectory(data), customer, sender, as_json=as_json))


@main.command()
@click.argument("customer")
@SENDER
@click.option("--yes", is_flag=True, help="Don't ask.")
@DATA
def erase(customer: str, sender: str | None, yes: bool, data: Path) -> None:
    """Erase everything about a customer.

    CUSTOMER's orders, events, seen cursors, dead letters, kept answers and keys in Redis are deleted,
    and the connections of their devices are ended. This cannot be undone. Issue no new token for them.

    Exit code 0 if everything was erased, else 1.
    """
    from shared.commands.erase import erase as run

    if not yes:
        click.confirm(f"Erase everything about {customer!r}?", abort=True)
    sys.exit(run(LocalDirectory(data), customer, sender))


@main.command()
@click.argument("order", required=False, callback=_checked_name)
@click.option(
    "--event",
    "event_id",
    metavar="ID",
    help="An event instead of an order, by its CloudEvents id.",
    callback=_checked_attribute,
)
@click.option("--source", metavar="URI", help="The event's source.", callback=_checked_attribute)
@SENDER
@DATA
def resend(
    order: str | None, event_id: str | None, source: str | None, sender: str | None, data: Path
) -> None:
    """Send the alert of ORDER, or an event, once more.

    It is recorded as a new event that replaces the first, so it pops up on every device of its customer,
    even where the first was shown. An alert that was taken back is not sent again.

    Exit code 0 if it was recorded, 1 if there is no such alert, 3 if the sender does not answer.
    """
    from shared.commands.support import resend as run

    if order is not None and event_id is None and source is None:
        asked = {"order_id": order}
    elif order is None and event_id is not None and source is not None:
        asked = {"id": event_id, "source": source}
    else:
        raise click.UsageError("name an order, or give --event and --source")
    sys.exit(run(LocalDirectory(data), asked, sender))


@main.command()
@click.argument("customer", callback=_checked_name)
@click.option("--test", "is_test", is_flag=True, help="Required: the event changes nothing.")
@click.option(
    "--seconds",
    type=Number(0, 3_600),
    default=5,
    show_default=True,
    help="How long to wait until a device has it.",
)
@SENDER
@DATA
def send(customer: str, *, is_test: bool, seconds: float, sender: str | None, data: Path) -> None:
    """Send a test event to a customer's devices.

    With --test, CUSTOMER is sent an event that is marked as a test, and whether a device got it is reported.
    It goes the whole way that an alert takes, but pops up nowhere and is in no list and no count. (Your own
    orders and events are sent through the sender's API.)

    Exit code 0 if a device has it, 1 if none has, 3 if the sender does not answer.
    """
    from shared.commands.support import send_test as run

    if not is_test:
        raise click.UsageError("only test events are sent from here: give --test")
    sys.exit(run(LocalDirectory(data), customer, sender, seconds))


@main.command()
@click.argument("customer")
@SENDER
@DATA
def kick(customer: str, sender: str | None, data: Path) -> None:
    """End a customer's sessions.

    All of CUSTOMER's tokens issued until now are revoked: every gateway ends their connections within a
    second and no longer accepts those tokens. Tokens issued from now on are good. The command reports how
    many connections end, and warns if nobody is connected under this name: the sender does not know your
    customers, so a mistyped name is revoked like any other.

    Exit code 0 if they were revoked, else 1.
    """
    from shared.commands.kick import kick as run

    sys.exit(run(LocalDirectory(data), customer, sender))


@main.command()
@SENDER
@click.option(
    "--gateway", "gateways", multiple=True, metavar="URL", help="A gateway to ask; may be repeated."
)
@click.option("--url", metavar="URL", help="Your customers' address: a WebSocket is opened through it.")
@click.option("--token", metavar="JWT", help="A customer's token to try; - reads it from standard input.")
@DATA
def doctor(
    sender: str | None, gateways: tuple[str, ...], url: str | None, token: str | None, data: Path
) -> None:
    """Check this installation and report what is wrong.

    Checks the settings, the issuer of tokens, the database if its URL is set, Redis, the sender, the
    gateways given, the public address and the clocks, and shows for each fault the line to change. It finds
    the settings and the gateways of a running `orderbell up`. Exit code 0 if nothing fails, else 1; warnings
    don't count.
    """
    import structlog

    from shared.commands.doctor import Asked, examine
    from shared.commands.watch import is_http_url

    for name, given in (("--sender", sender), ("--url", url), *(("--gateway", one) for one in gateways)):
        if given is not None and not is_http_url(given):
            raise click.BadParameter(f"{given!r} is not a URL; expected http://host:port", param_hint=name)
    if token == "-":
        token = sys.stdin.readline().strip()
    # The doctor reports by itself what the services' code would log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(examine(LocalDirectory(data), Asked(sender, gateways, url, token or None)))


@main.command()
@click.option("--sql", is_flag=True, help="Print the SQL for psql and change nothing.")
@click.option("--role", metavar="NAME", help="Grant the role that the service runs as the rights it needs.")
def migrate(sql: bool, role: str | None) -> None:
    """Bring the database's schema to this release.

    The sender does so at every start. Use this where the sender may not change tables: run it with an
    owner's ORDERBELL_DATABASE_URL before a new release starts. PostgreSQL's tables are in the schema that
    ORDERBELL_DATABASE_SCHEMA names (default: orderbell).

    Exit code 0, or 2 for a fault in the settings or the database.
    """
    from shared.commands.migrate import run

    if role is not None and not role.strip():
        raise click.BadParameter("the name of a role is missing", param_hint="--role")
    sys.exit(run(sql=sql, role=role))


if __name__ == "__main__":
    main(prog_name="orderbell")
