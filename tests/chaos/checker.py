"""The checker: reads a ledger and reports what was lost, shown twice, out of order, or to the wrong customer.

It knows nothing of how Orderbell works; it compares. For each device that was there:

* lost: an event that is stored, or whose order's completion was answered, and that it did not show;
* twice: an event that it showed again;
* out of order: an event that it showed after a later one of the same channel;
* foreign: an event that it showed and that is another customer's;
* never posted: an event that it showed although no caller had posted it;
* unstored: a completion that was answered but is not in the database, whether or not a device showed it;
* misplaced: an event that a gateway sent behind a hole, or twice, on one connection. It costs no alert,
  because browsers check the seq themselves; but it must not happen;
* reset: a notice to a device that its cursor can't be honoured. What it covers is not lost silently; but the
  run must have given the reason: the database went back (epoch), or was swept (pruned);
* given up: a hole that a device skipped by itself, because no server filled it. It excuses nothing.

And about what became of alerts, if the run changes them later:

* reappeared: an alert that popped up after its device had heard that it was taken back, or after it expired;
* left standing: a device still has, in the end, an alert that was taken back or has expired;
* disagreeing: a device, or a gateway's list, whose states or count are not the database's in the end;
* undone: a retraction or a mark as read that was answered and that the database does not have in the end;
* went back: a list in which an alert's state is an earlier one than in a list before it;
* miscounted: a list whose count is not the number of its unread alerts.

And for each fault, how long it took until everything that was late because of it had been shown.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.chaos.ledger import (
    Change,
    End,
    Expiring,
    Fault,
    Heard,
    Hello,
    Listed,
    Misplaced,
    PopUp,
    Post,
    Reset,
    Screen,
    Show,
    Stored,
    StoredChange,
)
from tests.chaos.lives import Lives

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.ledger import Entry

LATE_SECONDS = 1.0  # from the answer to the order's caller until its event is shown
CALM_SECONDS = 2.0  # without anything late end a fault's effect; what is late afterwards has another cause


class Delivery(NamedTuple):
    """One event at one device."""

    answered: float  # math.inf if its caller never got an answer
    shown: float
    device: str

    @property
    def seconds(self) -> float:
        return max(0.0, self.shown - self.answered)


class Recovery(NamedTuple):
    """After one fault: from its end until everything that was late because of it was shown, and all devices
    were back.
    """

    fault: Fault
    devices: int  # that were hit
    median: float  # of those devices; 0 if none was hit
    worst: float


@dataclass
class Verdict:
    """Counts are of pairs of an event and a device; `examples` name some."""

    devices: int = 0
    answered: int = 0
    unanswered: int = 0
    refused: int = 0
    stored: int = 0
    shown: int = 0
    lost: int = 0
    twice: int = 0
    out_of_order: int = 0
    foreign: int = 0
    never_posted: int = 0
    unstored: int = 0
    misplaced: int = 0
    retracted: int = 0  # alerts whose retraction was answered
    expired: int = 0  # alerts that expire
    read: int = 0  # alerts whose mark as read was answered
    popped_up: int = 0
    lists: int = 0
    reappeared: int = 0
    left_standing: int = 0
    disagreeing: int = 0
    undone: int = 0
    went_back: int = 0
    miscounted: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    allowed: frozenset[str] = frozenset()  # reasons of resets that this run gives
    given_up: int = 0  # holes that devices passed over by themselves
    excused: int = 0  # not shown, but behind a reset that the device got
    ends: Counter[int] = field(default_factory=Counter)  # connections by close code
    deliveries: list[Delivery] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    late_without_fault: int = 0  # deliveries
    examples: list[str] = field(default_factory=list)

    @property
    def unexpected_resets(self) -> int:
        return sum(count for reason, count in self.resets.items() if reason not in self.allowed)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not (
            self.lost
            or self.twice
            or self.out_of_order
            or self.foreign
            or self.never_posted
            or self.unstored
            or self.refused
            or self.misplaced
            or self.given_up
            or self.reappeared
            or self.left_standing
            or self.disagreeing
            or self.undone
            or self.went_back
            or self.miscounted
            or self.unexpected_resets
        )

    def quantile(self, share: float, *, since: float = -math.inf, until: float = math.inf) -> float:
        """Of the seconds from answer to show, for orders answered in that time; 0 where there are none."""
        taken = sorted(d.seconds for d in self.deliveries if since <= d.answered < until)
        return taken[min(len(taken) - 1, int(share * len(taken)))] if taken else 0.0

    def recovered(self, kind: str) -> tuple[float, float]:
        """Until the last device had recovered from a fault of this kind: median and worst of all such."""
        seconds = [r.worst for r in self.recoveries if r.fault.kind == kind] or [0.0]
        return statistics.median(seconds), max(seconds)

    def note(self, example: str) -> None:
        if len(self.examples) < 20:
            self.examples.append(example)


class _Place(NamedTuple):
    epoch: int
    seq: int


class _Posts:
    """What was asked for, by order."""

    def __init__(self) -> None:
        self.customer: dict[str, str] = {}
        self.answered: dict[str, float] = {}
        self.refused: set[str] = set()

    def add(self, post: Post) -> None:
        self.customer[post.order_id] = post.customer
        if post.phase == "ok":
            self.answered[post.order_id] = post.at
        elif post.phase == "refused":
            self.refused.add(post.order_id)


@dataclass
class _Device:
    name: str
    customer: str = ""
    shows: list[Show | Heard] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)

    def excuses(self, place: _Place | None) -> bool:
        """Whether a gateway's reset announced to the device that this is gone. What it gave up by itself does
        not count.
        """
        announced = [reset for reset in self.resets if not reset.given_up]
        if place is None:  # it was answered, but is in no history: only a new epoch explains that
            return any(reset.reason == "epoch" for reset in announced)
        return any(place <= _place(reset.place) for reset in announced)


def check(
    entries: Iterable[Entry], devices: Mapping[str, str], *, allowed: frozenset[str] = frozenset()
) -> Verdict:
    """`devices` are those that must have everything in the end: their customers by their names.

    `allowed` are the reasons for which they may be reset.
    """
    verdict = Verdict(devices=len(devices), allowed=allowed)
    posts = _Posts()
    stored: dict[str, Stored] = {}
    changes: dict[str, list[_Place]] = defaultdict(list)  # by channel
    lives = Lives()
    seen = {name: _Device(name, customer) for name, customer in devices.items()}
    faults: list[Fault] = []
    greetings: list[Hello | End] = []
    for entry in entries:
        if isinstance(entry, Post):
            posts.add(entry)
        elif isinstance(entry, Stored):
            stored[entry.order_id] = entry
        elif isinstance(entry, StoredChange):
            changes[entry.channel].append(_Place(entry.epoch, entry.seq))
        elif isinstance(entry, Change | Expiring | PopUp | Screen | Listed):
            lives.add(entry)
        elif isinstance(entry, Heard):
            lives.add(entry)
            seen.setdefault(entry.device, _Device(entry.device)).shows.append(entry)
        elif isinstance(entry, Show):
            seen.setdefault(entry.device, _Device(entry.device, entry.customer)).shows.append(entry)
        elif isinstance(entry, Reset):
            seen.setdefault(entry.device, _Device(entry.device)).resets.append(entry)
            if entry.given_up:
                verdict.given_up += 1
                verdict.note(f"given up: {entry.device} passed over what is missing up to {entry.place}")
            else:
                verdict.resets[entry.reason] += 1
                if entry.reason not in allowed:
                    verdict.note(f"reset: {entry.device} got the reset {entry.reason} at {entry.place}")
        elif isinstance(entry, Misplaced):
            verdict.misplaced += 1
            verdict.note(f"misplaced: {entry.device} got {entry.got} after {entry.after}")
        elif isinstance(entry, Fault):
            faults.append(entry)
        else:
            greetings.append(entry)
            if isinstance(entry, End):
                verdict.ends[entry.code] += 1
    verdict.answered = len(posts.answered)
    verdict.refused = len(posts.refused)
    verdict.unanswered = len(posts.customer.keys() - posts.answered.keys() - posts.refused)
    verdict.stored = len(stored)
    _check_stored(verdict, posts, stored)
    wanted = _by_customer(posts, stored)
    for device in seen.values():
        _check_shows(verdict, posts, device)
        if device.name in devices:
            _check_lost(verdict, wanted[device.customer], stored, device)
            _check_unheard(verdict, changes[f"customer:{device.customer}"], device)
    lives.check(verdict, devices)
    verdict.recoveries = _recoveries(sorted(faults, key=lambda fault: fault.began), verdict, greetings)
    return verdict


def _check_stored(verdict: Verdict, posts: _Posts, stored: Mapping[str, Stored]) -> None:
    if "epoch" in verdict.allowed:  # the database went back, and what it had answered went with it
        return
    for order_id in posts.answered.keys() - stored.keys():
        verdict.unstored += 1
        verdict.note(f"unstored: order {order_id} was answered and is not in the database")


def _by_customer(posts: _Posts, stored: Mapping[str, Stored]) -> dict[str, list[str]]:
    """The orders of which each customer's devices must know."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for order_id in posts.answered:
        wanted[posts.customer[order_id]].append(order_id)
    for order_id, event in stored.items():
        if order_id not in posts.answered:
            wanted[event.channel.partition(":")[2]].append(order_id)
    return wanted


def _check_shows(verdict: Verdict, posts: _Posts, device: _Device) -> None:
    shown: set[str | _Place] = set()
    last: dict[str, _Place] = {}
    for show in device.shows:
        place = _Place(show.epoch, show.seq)
        what = place if isinstance(show, Heard) else show.order_id
        if what in shown:
            verdict.twice += 1
            verdict.note(f"twice: {device.name} showed {what} at {place} again")
        elif place <= last.get(show.channel, _Place(0, 0)):
            verdict.out_of_order += 1
            verdict.note(f"out of order: {device.name} showed {place} after {last[show.channel]}")
        last[show.channel] = max(place, last.get(show.channel, place))
        if isinstance(show, Heard):
            shown.add(place)
            continue
        verdict.shown += 1
        customer = posts.customer.get(show.order_id)
        if customer is None:
            verdict.never_posted += 1
            verdict.note(f"never posted: {device.name} showed {show.order_id}")
        elif customer != show.customer or show.channel != f"customer:{customer}":
            verdict.foreign += 1
            verdict.note(f"foreign: {device.name} of {show.customer} showed {show.order_id} of {customer}")
        if show.order_id not in shown:
            answered = posts.answered.get(show.order_id, math.inf)
            verdict.deliveries.append(Delivery(answered, show.at, device.name))
        shown.add(show.order_id)


def _check_lost(
    verdict: Verdict, wanted: Sequence[str], stored: Mapping[str, Stored], device: _Device
) -> None:
    shown = {show.order_id for show in device.shows if isinstance(show, Show)}
    for order_id in wanted:
        if order_id in shown:
            continue
        event = stored.get(order_id)
        place = _Place(event.epoch, event.seq) if event else None
        if device.excuses(place):
            verdict.excused += 1
        else:
            verdict.lost += 1
            verdict.note(f"lost: {device.name} did not show {order_id} at {place}")


def _check_unheard(verdict: Verdict, changes: Sequence[_Place], device: _Device) -> None:
    heard = {_Place(entry.epoch, entry.seq) for entry in device.shows if isinstance(entry, Heard)}
    for place in changes:
        if place in heard:
            continue
        if device.excuses(place):
            verdict.excused += 1
        else:
            verdict.lost += 1
            verdict.note(f"lost: {device.name} did not hear of the change at {place}")


class _Late(NamedTuple):
    due: float
    over: float
    device: str


def _recoveries(
    faults: Sequence[Fault], verdict: Verdict, greetings: Sequence[Hello | End]
) -> list[Recovery]:
    """What was late belongs to the fault that was active when it was due; of several, to the last to end."""
    late = [_Late(d.answered, d.shown, d.device) for d in verdict.deliveries if d.seconds > LATE_SECONDS]
    by_fault: dict[int, list[_Late]] = defaultdict(list)
    over = [fault.ended + CALM_SECONDS for fault in faults]  # extended by what is late until then
    for one in sorted(late + _absences(greetings)):
        number = _cause(faults, over, one.due)
        if number is None:
            verdict.late_without_fault += 1
        else:
            by_fault[number].append(one)
            over[number] = max(over[number], one.over + CALM_SECONDS)
    return [_recovery(fault, by_fault[number]) for number, fault in enumerate(faults)]


def _recovery(fault: Fault, late: Sequence[_Late]) -> Recovery:
    last: dict[str, float] = {}
    for one in late:
        last[one.device] = max(last.get(one.device, 0.0), one.over - fault.ended)
    seconds = list(last.values()) or [0.0]
    return Recovery(fault, len(last), statistics.median(seconds), max(seconds))


def _cause(faults: Sequence[Fault], over: Sequence[float], at: float) -> int | None:
    possible = [n for n, fault in enumerate(faults) if fault.began <= at + LATE_SECONDS and at <= over[n]]
    return max(possible, key=lambda n: faults[n].ended, default=None)


def _absences(greetings: Sequence[Hello | End]) -> list[_Late]:
    """From the end of each device's connection to its next hello."""
    absences = []
    left: dict[str, float] = {}
    for entry in sorted(greetings, key=lambda entry: entry.at):
        if isinstance(entry, End):
            left.setdefault(entry.device, entry.at)
        elif entry.device in left:
            absences.append(_Late(left.pop(entry.device), entry.at, entry.device))
    return absences


def _place(text: str) -> _Place:
    epoch, _, seq = text.partition(".")
    return _Place(int(epoch), int(seq))
