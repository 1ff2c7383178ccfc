"""What each call does, by subject: parse the request, run a function of the domain in a transaction, answer.

sender/http/routes.py has each call's path and its description in the document, sender/http/app.py the answer
to each error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sender.board import Board
from sender.http.api.alerts import Alerts
from sender.http.api.customers import Customers
from sender.http.api.events import Events
from sender.http.api.histories import Histories
from sender.http.api.operations import Operations
from sender.http.api.orders import Orders
from sender.http.api.revocations import Revocations
from sender.http.api.spring import Spring
from sender.http.api.support import Support
from sender.lifetimes import Lifetimes
from sender.peers import Peers
from sender.roll import Roll
from shared.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sender.database.protocol import Database
    from sender.publishing.forgetting import Forgetting
    from sender.publishing.relay import Relay
    from sender.seen import SeenNotifier
    from sender.webhooks.deliveries import Reports
    from shared.redis.inquiries import Inquirer


class Api:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        notifier: SeenNotifier,
        clock: Callable[[], datetime],
        forgetting: Forgetting,
        inquirer: Inquirer,
        lifetimes: Lifetimes | None = None,
        *,
        revocation_days: float = 30.0,
        webhooks: Reports | None = None,
        agreement: Agreement | None = None,
        peers: Peers | None = None,
    ) -> None:
        """`agreement` compares what gateways announce; `peers` are the senders (shared/agreement.py)."""
        agreement = agreement or Agreement("gateways")
        peers = peers or Peers(database, relay.stops.sender)
        lifetimes = lifetimes or Lifetimes()
        self.board = Board(database)
        self.orders = Orders(database, relay, clock, lifetimes, self.board)
        self.alerts = Alerts(database, relay, clock, self.board, webhooks)
        self.events = Events(database, relay, clock, lifetimes)
        self.spring = Spring(self.events, clock)
        roll = Roll()
        self.histories = Histories(database, relay, notifier, clock, roll, agreement, peers)
        self.customers = Customers(database, notifier, forgetting, clock, webhooks)
        self.support = Support(database, relay, inquirer, clock, roll)
        self.revocations = Revocations(database, clock, kept_days=revocation_days)
        self.operations = Operations(
            database, relay, clock, (agreement, peers.agreement), webhooks=webhooks is not None
        )
