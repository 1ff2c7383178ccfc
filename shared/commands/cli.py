"""The command line, `orderbell`: a table of contents."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from shared import __version__
from shared.commands import asking
from shared.commands.local import LocalDirectory
from shared.commands.numbers import Number
from shared.commands.options import DATA, SENDER
from shared.errors import OperatorError

if TYPE_CHECKING:
    from pathlib import Path

PORT = click.IntRange(1, 65535)
MOST_MINUTES = 10 * 366 * 24 * 60


class _Commands(click.Group):
    """What ends a command, for all of them.

    A file that can't be read or written is a fault of what was given, and one line. Ctrl-C ends with 130
    (`up` and `watch`, which are meant to be ended by it, with their own codes), a reader that has gone with
    141, as shells report them.
    """

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

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:  # as of `orderbell trace 1042 | head -1`; 1 would mean that nothing was found
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            sys.exit(141)


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
    for stream in (sys.stdout, sys.stderr):  # the locale may lack letters of a customer's id
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@main.command()
@click.option(
    "--gateways", type=click.IntRange(1, 16), default=2, show_default=True, help="How many gateways."
)
@click.option("--sender-port", type=PORT, default=8090, show_default=True, help="Port of the sender.")
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
@click.option(
    "--gateway",
    default="http://127.0.0.1:8091",
    show_default=True,
    metavar="URL",
    help="Address of a gateway, or of the balancer in front of it.",
)
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
@click.option(
    "--customers",
    type=click.IntRange(1, 10**9),
    default=10_000,
    show_default=True,
    help="How many customers there are.",
)
@click.option(
    "--events-a-day",
    type=Number(0, 1_000_000, above=True),
    default=1,
    show_default=True,
    help="Events a day for one customer, on average.",
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
@click.option(
    "--history-days",
    type=Number(0, 36_500, above=True),
    default=7,
    show_default=True,
    help="How long events are kept.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 10**6),
    default=10_000,
    show_default=True,
    help="How many connections one gateway takes.",
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


for _command in asking.COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="orderbell")
