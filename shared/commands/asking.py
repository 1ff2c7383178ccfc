"""The commands that ask a sender something, or have it do something."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from shared.commands.local import LocalDirectory
from shared.commands.numbers import Number
from shared.commands.options import DATA, JSON, SENDER, checked_attribute, checked_name

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("asked", metavar="ORDER|EVENT|CUSTOMER", required=False)
@click.option("--order", "order_id", metavar="ID", help="An order, by its id.", callback=checked_name)
@click.option(
    "--event", "event_id", metavar="ID", help="An event, by its CloudEvents id.", callback=checked_attribute
)
@click.option(
    "--source",
    metavar="URI",
    help="The event's source, if it is not an order's.",
    callback=checked_attribute,
)
@click.option(
    "--customer",
    "customer_id",
    metavar="ID",
    callback=checked_name,
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

    Exit code 0 if something was found, 1 if not, 3 if the sender does not answer or refuses.
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


@click.command()
@click.argument("customer", required=False, callback=checked_name)
@JSON
@SENDER
@DATA
def who(customer: str | None, as_json: bool, sender: str | None, data: Path) -> None:
    """Show who is connected, gateway by gateway.

    With CUSTOMER, only their connections, including those that have ended. Exit code 0 if somebody is
    connected, 1 if not, 3 if the sender does not answer or refuses.
    """
    from shared.commands.support import who as run

    sys.exit(run(LocalDirectory(data), customer, sender, as_json=as_json))


@click.command()
@click.argument("order", required=False, callback=checked_name)
@click.option(
    "--event",
    "event_id",
    metavar="ID",
    help="An event instead of an order, by its CloudEvents id.",
    callback=checked_attribute,
)
@click.option("--source", metavar="URI", help="The event's source.", callback=checked_attribute)
@SENDER
@DATA
def resend(
    order: str | None, event_id: str | None, source: str | None, sender: str | None, data: Path
) -> None:
    """Send the alert of ORDER, or an event, once more.

    It is recorded as a new event that replaces the first, so it pops up on every device of its customer,
    even where the first was shown. An alert that was taken back is not sent again.

    Exit code 0 if it was recorded, 1 if there is no such alert, 3 if the sender does not answer or refuses.
    """
    from shared.commands.support import resend as run

    if order is not None and event_id is None and source is None:
        asked = {"order_id": order}
    elif order is None and event_id is not None and source is not None:
        asked = {"id": event_id, "source": source}
    else:
        raise click.UsageError("name an order, or give --event and --source")
    sys.exit(run(LocalDirectory(data), asked, sender))


@click.command()
@click.argument("customer", callback=checked_name)
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

    With --test, send CUSTOMER an event that is marked as a test, and report whether a device got it.
    It goes the whole way that an alert takes, but pops up nowhere and is in no list and no count. (Your own
    orders and events are sent through the sender's API.)

    Exit code 0 if a device has it, 1 if none has, 3 if the sender does not answer or refuses.
    """
    from shared.commands.support import send_test as run

    if not is_test:
        raise click.UsageError("only test events are sent from here: give --test")
    sys.exit(run(LocalDirectory(data), customer, sender, seconds))


@click.command()
@click.argument("customer")
@SENDER
@DATA
def kick(customer: str, sender: str | None, data: Path) -> None:
    """End a customer's sessions.

    All of CUSTOMER's tokens issued until now are revoked: every gateway ends their connections within a
    second and no longer accepts those tokens. Tokens issued from now on are good. The command reports how
    many connections end, and warns if nobody is connected under this name: the sender does not know your
    customers, so a mistyped name is revoked like any other.

    Exit code 0 if they were revoked, 3 if the sender does not answer or refuses.
    """
    from shared.commands.kick import kick as run

    sys.exit(run(LocalDirectory(data), customer, sender))


@click.command()
@click.argument("customer")
@SENDER
@click.option("--yes", is_flag=True, help="Don't ask.")
@DATA
def erase(customer: str, sender: str | None, yes: bool, data: Path) -> None:
    """Erase everything about a customer.

    CUSTOMER's orders, events, seen cursors, dead letters, kept answers and keys in Redis are deleted,
    and the connections of their devices are ended. This cannot be undone. Issue no new token for them.

    Exit code 0 if it was erased, 3 if the sender does not answer or refuses. While Redis is away, what it
    holds is erased later, and the output says so.
    """
    from shared.commands.erase import erase as run

    if not yes:
        click.confirm(f"Erase everything about {customer!r}?", abort=True)
    sys.exit(run(LocalDirectory(data), customer, sender))


COMMANDS = (trace, who, resend, send, kick, erase)
