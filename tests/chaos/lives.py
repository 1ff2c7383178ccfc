"""What became of alerts: the checker's part for retraction, expiry and reading.

Everything is compared with the database's own lists in the end. The lists that were read meanwhile show that
no state was followed by an earlier one, however often gateways, senders and Redis died.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from shared.events import RETRACTED
from tests.chaos.ledger import Change, Expiring, Heard, Listed, PopUp, Screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.chaos.checker import Verdict

CLOCK_SECONDS = 0.02  # between the ledger's clock and the moments in alerts, which have milliseconds
_RANKS = {"unseen": 0, "seen": 1, "read": 2, "expired": 3, "retracted": 4}  # no state follows a later one
_UNREAD = frozenset({"unseen", "seen"})
_OVER = frozenset({"expired", "retracted"})

LifeEntry = Change | Expiring | Heard | PopUp | Screen | Listed


class Lives:
    """Given all entries in the order in which each process wrote them."""

    def __init__(self) -> None:
        self._done: dict[str, set[str]] = {
            "retract": set(),
            "read": set(),
        }  # orders whose change was answered
        self._refused: list[Change] = []
        self._expires: dict[str, float] = {}
        self._taken_back: dict[str, set[str]] = defaultdict(set)  # orders, by device
        self._pop_ups: list[tuple[PopUp, bool]] = []  # and whether its retraction had been heard
        self._screens: list[Screen] = []
        self._lists: dict[str, list[Listed]] = defaultdict(list)  # by channel, of senders
        self._final: dict[str, Listed] = {}  # by channel
        self._gateways: list[Listed] = []

    def add(self, entry: LifeEntry) -> None:
        match entry:
            case Change(phase="ok"):
                self._done[entry.what].add(entry.order_id)
            case Change(phase="refused"):
                self._refused.append(entry)
            case Expiring():
                self._expires[entry.order_id] = entry.expires
            case Heard(kind=kind) if kind == RETRACTED:
                self._taken_back[entry.device].update(entry.orders)
            case PopUp():
                self._pop_ups.append((entry, entry.order_id in self._taken_back[entry.device]))
            case Screen():
                self._screens.append(entry)
            case Listed(server="sender"):
                self._lists[entry.channel].append(entry)
                if entry.final:
                    self._final[entry.channel] = entry
            case Listed():
                self._gateways.append(entry)

    def check(self, verdict: Verdict, devices: Mapping[str, str]) -> None:
        verdict.retracted, verdict.read = len(self._done["retract"]), len(self._done["read"])
        verdict.expired, verdict.popped_up = len(self._expires), len(self._pop_ups)
        verdict.lists = sum(map(len, self._lists.values())) + len(self._gateways)
        self._check_pop_ups(verdict)
        self._check_screens(verdict, devices)
        self._check_done(verdict)
        self._check_lists(verdict)

    def _check_pop_ups(self, verdict: Verdict) -> None:
        for pop_up, taken_back in self._pop_ups:
            late = pop_up.at - self._expires.get(pop_up.order_id, pop_up.at)
            if taken_back:
                verdict.reappeared += 1
                verdict.note(
                    f"reappeared: {pop_up.device} heard that {pop_up.order_id} was taken back before"
                )
            elif late > CLOCK_SECONDS:
                verdict.reappeared += 1
                verdict.note(f"reappeared: {pop_up.order_id} had expired {late:.2f} s ago on {pop_up.device}")

    def _check_screens(self, verdict: Verdict, devices: Mapping[str, str]) -> None:
        for screen in self._screens:
            right = self._final.get(f"customer:{devices.get(screen.device)}")
            if right is None:
                continue
            for order_id, state in screen.states.items():
                known = right.states.get(order_id, "nothing")
                if state == ("unread" if known in _UNREAD else known):
                    continue
                if known in _OVER:
                    verdict.left_standing += 1
                    verdict.note(f"left standing: {order_id} is {known}, and {state} on {screen.device}")
                else:
                    verdict.disagreeing += 1
                    verdict.note(f"disagreeing: {order_id} is {known}, and {state} on {screen.device}")
            if (screen.unread or 0) != right.unread:
                verdict.disagreeing += 1
                verdict.note(
                    f"disagreeing: {right.unread} are unread, and {screen.unread} on {screen.device}"
                )
        for listed in self._gateways:
            right = self._final.get(listed.channel)
            if right is not None and (listed.states, listed.unread) != (right.states, right.unread):
                verdict.disagreeing += 1
                verdict.note(f"disagreeing: a gateway's list of {listed.channel}")

    def _check_done(self, verdict: Verdict) -> None:
        if not self._final:
            return
        states = {order: state for listed in self._final.values() for order, state in listed.states.items()}
        for what, kept in (("retract", {"retracted"}), ("read", {"read", "retracted"})):
            for order_id in self._done[what]:
                if states.get(order_id) not in kept:
                    verdict.undone += 1
                    verdict.note(f"undone: {what} of {order_id} was answered; it is {states.get(order_id)}")
        for change in self._refused:
            verdict.undone += 1
            verdict.note(f"undone: {change.what} of {change.order_id} was refused")

    def _check_lists(self, verdict: Verdict) -> None:
        for channel, lists in self._lists.items():
            highest: dict[str, int] = {}
            for listed in sorted(lists, key=lambda one: one.at):
                for order_id, state in listed.states.items():
                    if _RANKS[state] < highest.get(order_id, 0):
                        verdict.went_back += 1
                        verdict.note(f"went back: {order_id} in the list of {channel} to {state}")
                    highest[order_id] = max(_RANKS[state], highest.get(order_id, 0))
        for listed in [*self._gateways, *(one for lists in self._lists.values() for one in lists)]:
            unread = sum(state in _UNREAD for state in listed.states.values())
            if listed.whole and unread != listed.unread:
                verdict.miscounted += 1
                counts = f"a {listed.server} counts {listed.unread} of {listed.channel}"
                verdict.note(f"miscounted: {counts}, its list has {unread}")
