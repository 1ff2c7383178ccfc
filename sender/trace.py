"""What became of an alert, in sentences for support.

sender/lives.py has what the database knows, the relay what it published. Gateways know the rest
(receiver/inquiries.py), in bounded memory. `explain` combines them into one verdict, and the findings behind
it.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sender.alerts import State
from sender.publishing.stops import Cause
from sender.tombstones import Fault
from sender.verdicts import Explained, Verdict
from sender.webhooks.deliveries import Outcome
from shared.channels import is_private, name_in
from shared.cursors import parse_cursor
from shared.events import TRIAL
from shared.times import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sender.lives import Change, Life, Waited
    from sender.roll import Caller
    from sender.webhooks.deliveries import Delivery
    from shared.channels import Channel
    from shared.cursors import Cursor, Place
    from shared.redis.inquiries import ConnectionReport, EndingReport, GatewayReport

_ENDINGS = 3  # the newest are named
_REFUSALS = 4  # kinds of them
_CLOCK_SECONDS = 2.0  # smaller differences between clocks are not reported
_ANSWER_SECONDS = 1.0  # from asking gateways to their answers, at most


class Relaying(NamedTuple):
    """How this sender's relay is doing."""

    redis_up: bool | None
    contested: bool
    sender: str = ""  # its name
    # When it published the event at a position; None for what another sender did, or what it has forgotten.
    published_at: Callable[[int], datetime | None] = lambda _: None


class Known(NamedTuple):
    """What gateways report."""

    gateways: Sequence[GatewayReport] | None  # None where they could not be asked
    silent: Sequence[Caller] = ()  # have asked this sender lately, and do not answer
    asked_at: datetime | None = None  # by this sender's clock

    @property
    def pulling(self) -> list[str]:
        return [one.name for one in self.silent if one.pulls]


def with_publication(life: Life, relaying: Relaying) -> Life:
    """With what this sender remembers of publishing it."""
    at = relaying.published_at(life.position) if life.position is not None else None
    if at is None:
        return life
    published_at = format_time(at)
    return msgspec.structs.replace(
        life,
        published_at=published_at,
        published_by=relaying.sender,
        waited=[one for one in life.waited if one.ended_at <= published_at],
    )


def explain(life: Life, relaying: Relaying, known: Known, *, customer_id: str | None = None) -> Explained:
    """Why the event was or was not shown.

    `customer_id` is the customer who should have had it; by default the one whose channel it is.
    """
    cursor = parse_cursor(life.cursor)
    if life.given_up is not None:  # what was published is its tombstone
        life = msgspec.structs.replace(life, type="", subject=None, published_at=None)
    findings = [_recorded(life), *_published(life), *map(_reported, life.webhooks)]
    gateways = known.gateways
    if customer_id is not None and is_private(cursor.channel) and name_in(cursor.channel) != customer_id:
        findings.append(_of_somebody_else(name_in(cursor.channel), customer_id))
        return Explained(Verdict.NOT_SENT, findings)
    if life.given_up is not None:
        fault, _, detail = life.given_up.partition(" ")
        why = f"{fault}: {_FAULTS.get(fault, 'it cannot be published')}{f' ({detail})' if detail else ''}"
        findings.append(
            f"It could not be published and was given up at {life.given_up_at}: {why}. Later events went on."
            " The shop may send it again, as a new event; /dead-letters of the sender has what is left of it."
        )
        return Explained(Verdict.GIVEN_UP, findings)
    if life.state in _BECAME:
        verdict = _BECAME[life.state]
        if _waits(life, relaying):
            findings.append(_why_it_waits(relaying))
        return Explained(verdict, [*findings, *_became(verdict, life), *_before_that(life, cursor, known)])
    if life.shown:
        findings.append(_TRIED if life.type == TRIAL else _SHOWN)
        return Explained(Verdict.SHOWN, findings)
    if _waits(life, relaying) and not any(_has_reached(report, cursor.place) for report in gateways or ()):
        return Explained(Verdict.WAITING, [*findings, _why_it_waits(relaying)])
    if life.deleted:
        findings.append(
            "It is no longer kept: it is older than the history (ORDERBELL_HISTORY_DAYS), or the database was"
            " restored since."
        )
        return Explained(Verdict.DELETED, findings)
    if not life.waiting and life.published_at is None:
        findings.append(
            "It was published to Redis. When, is no longer known: the sender that did so has restarted since,"
            " or is another one."
        )
    findings += _of_silent(known)
    if gateways is None:
        findings.append("The gateways could not be asked: this sender does not reach Redis.")
        return Explained(Verdict.NO_ANSWER, findings)
    if not gateways:
        findings.append("No gateway answers: none is running, or none hears Redis.")
        return Explained(Verdict.NO_ANSWER, findings)
    return _at_gateways(life, findings, known, gateways, customer_id)


# The event itself.


def _recorded(life: Life) -> str:
    what = life.type or "An event"
    about = f" for {life.subject}" if life.subject else ""
    at = f" at {life.recorded_at}" if life.recorded_at else ""
    key = f", accepted with the API key {life.accepted_by}" if life.accepted_by else ""
    kind = " It is a test event, which pages receive, report and do not show." if life.type == TRIAL else ""
    return f"{what}{about} was recorded{at} as {life.cursor}{key}.{kind}"


def _reported(one: Delivery) -> str:
    """A webhook."""
    times = "once" if one.attempts == 1 else f"{one.attempts} times"
    if one.outcome == Outcome.DELIVERED:
        return f"The webhook {one.type} was delivered at {one.ended_at}, tried {times}."
    if one.outcome == Outcome.WITHDRAWN:
        return f"The webhook {one.type} was not sent: {one.detail} before."
    tried = f"tried {times}; the last attempt failed ({one.detail})" if one.detail else f"tried {times}"
    if one.outcome == Outcome.GIVEN_UP:
        return f"The webhook {one.type} was given up at {one.ended_at}: {tried}."
    if not one.attempts:
        return f"The webhook {one.type} has waited since {one.noted_at} and has not been tried yet."
    return (
        f"The webhook {one.type} is still to be delivered: {tried}; the next attempt is due at {one.due_at}."
    )


def _published(life: Life) -> list[str]:
    """How long it waited, and why, as far as that was noted."""
    findings = [
        f"It waited from {life.recorded_at} to {one.ended_at}: {_CAUSES[one.cause](one)}."
        for one in life.waited
    ]
    if life.published_at is not None:
        at, recorded_at = map(datetime.fromisoformat, (life.published_at, life.recorded_at))
        waited = max(0.0, (at - recorded_at).total_seconds())
        findings.append(
            f"{life.published_by} published it to Redis at {life.published_at},"
            f" {waited:,.3f} s after it was recorded."
        )
    return findings


def _of_somebody_else(owner: str, customer_id: str) -> str:
    case = " The two names differ only in case." if owner.casefold() == customer_id.casefold() else ""
    return f"It was sent to {owner}, so {customer_id} has no such alert.{case}"


def _waits(life: Life, relaying: Relaying) -> bool:
    """Between publishing and noting that in the database, this sender's memory knows better."""
    stopped = relaying.redis_up is False or relaying.contested
    return life.waiting and (life.published_at is None or stopped)


def _because(one: Waited) -> str:
    return f" ({one.detail})" if one.detail else ""


def _why_it_waits(relaying: Relaying) -> str:
    if relaying.contested:
        return "It waits to be published: another installation uses the same names in Redis (see /readyz)."
    if relaying.redis_up is False:
        return (
            "It waits to be published: Redis is away or takes no events. Gateways meanwhile pull it from the"
            " sender, about a second late."
        )
    return "It waits to be published; usually that takes milliseconds. If it lasts, see the sender's log."


def _became(verdict: Verdict, life: Life) -> list[str]:
    change = life.changed
    if verdict is Verdict.READ:
        return ["The customer has read it."]
    if verdict is Verdict.EXPIRED:
        return [f"It expired at {life.expires_at}: nothing pops up after its `expirytime`."]
    if verdict is Verdict.REPLACED:
        newer = f", {_named(change)}," if change is not None else ""
        return [f"A newer alert{newer} has replaced it, and is shown instead."]
    at = f" at {change.recorded_at}" if change is not None else ""
    reason = f" The reason given: {change.reason}" if change is not None and change.reason else ""
    return [f"It was taken back{at}: it no longer pops up, and leaves every screen.{reason}"]


def _named(change: Change) -> str:
    about = f" for {change.subject}" if change.subject else ""
    return f"{change.type}{about} of {change.recorded_at} ({change.cursor})"


def _before_that(life: Life, cursor: Cursor, known: Known) -> list[str]:
    """Where an alert became something else before any device had shown it: were there devices?"""
    if life.state == State.READ:
        return []
    if life.shown:
        return [_DONE_WITH]
    findings = ["No device had reported it as shown before."]
    if not known.gateways:
        return findings
    for report in known.gateways:
        findings += [f"{_connected(one.customer, report, one)}." for one in report.listening]
    if len(findings) == 1:
        findings += [f"Nobody is connected as {name_in(cursor.channel)} now.", *_endings(known.gateways)]
    return findings


# At the gateways.


def _of_silent(known: Known) -> list[str]:
    findings = []
    for one in known.silent:
        if one.pulls:
            findings.append(
                f"{one.name} does not hear Redis, so it can't be asked who is connected. Customers that are"
                " connected there get events about a second late: it pulls them from this sender."
            )
        elif known.gateways is not None:
            findings.append(
                f"{one.name} asked this sender for events some seconds ago and does not answer now: it has"
                " just ended, or hears another Redis."
            )
    return findings


def _at_gateways(
    life: Life,
    findings: list[str],
    known: Known,
    gateways: Sequence[GatewayReport],
    customer_id: str | None,
) -> Explained:
    channel, place = parse_cursor(life.cursor)
    trial = life.type == TRIAL
    for report in gateways:
        findings += [*_clocks(report, known.asked_at), *_of_gateway(report, place)]
    listening = [
        (report, one)
        for report in gateways
        for one in report.listening
        if customer_id is None or one.customer == customer_id
    ]
    if not listening:
        findings += _nobody(channel, gateways, customer_id, trial=trial)
        # Somebody may be at a gateway that can't be asked.
        return Explained(Verdict.NO_ANSWER if known.pulling else Verdict.NOBODY, findings)
    verdict = Verdict.LATE
    for report, one in listening:
        handed = _has_reached(report, place) and one.live
        state = "was handed over to this connection" if handed else "was not handed over to it yet"
        if handed:
            verdict = Verdict.DELIVERED
        waits = f"; it has {one.waiting_bytes:,} bytes still to read" if one.waiting_bytes else ""
        spoke = f"last sent a message at {one.spoke_at}" if one.spoke_at else "has sent no message yet"
        findings.append(
            f"{_connected(one.customer, report, one)}; its page {spoke}. The event {state}{waits}."
        )
    if verdict is Verdict.DELIVERED:
        findings.append(_UNTRIED if trial else _UNSHOWN)
    # The complaint may be about another of their devices.
    amiss = [(one, report) for report in gateways for one in report.ended if one.code in _AMISS]
    findings += [f"Another connection {_ended(*pair)}" for pair in sorted(amiss, key=_at)[-_ENDINGS:]]
    return Explained(verdict, findings)


def _clocks(report: GatewayReport, asked_at: datetime | None) -> list[str]:
    """Whether its times can be compared with ours."""
    if not report.now or asked_at is None:
        return []
    ahead = (parse_time(report.now) - asked_at).total_seconds()
    if -_CLOCK_SECONDS < ahead < _ANSWER_SECONDS + _CLOCK_SECONDS:
        return []
    where = f"{ahead:,.0f} s ahead of" if ahead > 0 else f"{-ahead:,.0f} s behind"
    return [f"The clock of {report.gateway} is {where} this sender's: times that it reports are its own."]


def _connected(customer: str, report: GatewayReport, one: ConnectionReport) -> str:
    return f"{customer} has been connected to {report.gateway} by {one.transport} since {one.since}"


def _has_reached(report: GatewayReport, place: Place) -> bool:
    return report.place is not None and parse_cursor(report.place).place >= place


def _of_gateway(report: GatewayReport, place: Place) -> list[str]:
    findings = []
    if not report.redis:
        findings.append(
            f"{report.gateway} does not hear Redis and pulls events from the sender, about a second late."
        )
    findings += [f"{report.gateway} is not ready: {why}." for why in report.not_ready]
    if report.place is not None and parse_cursor(report.place).place < place:
        findings.append(f"{report.gateway} has this channel's events only up to {report.place}.")
    return findings


def _nobody(
    channel: Channel, gateways: Sequence[GatewayReport], customer_id: str | None, *, trial: bool
) -> list[str]:
    if not is_private(channel):
        others = sum(report.listening_count for report in gateways)
        if customer_id is None:
            return [f"No connection may read {channel}: its token must name the topic."]
        return [
            f"No connection of {customer_id} may read {channel}: they are not connected, or their token"
            f" does not name the topic ({others} other connections read it)."
        ]
    name = customer_id or name_in(channel)
    later = (
        "It pops up nowhere, neither now nor later." if trial else "It is kept, and comes when they return."
    )
    findings = [f"Nobody is connected as {name}. {later}"]
    findings += _endings(gateways)
    similar = sorted({other for report in gateways for other in report.similar})
    if similar:
        findings.append(f"Connected customers whose names differ only in case: {', '.join(similar)}.")
    findings += _refusals(gateways)
    if any(report.connections for report in gateways):
        findings.append(
            "If their page is open, its token names somebody else, or it connects to another installation:"
            " `orderbell who` shows the customer of each connection."
        )
    return findings


def _endings(gateways: Sequence[GatewayReport]) -> list[str]:
    """The customer's last connections."""
    ended = sorted(((one, report) for report in gateways for one in report.ended), key=_at)
    if not ended:
        since = max(report.remembers_since for report in gateways)
        return [f"The gateways remember no connection of this customer since {since}."]
    findings = []
    for one, report in ended[-_ENDINGS:]:
        if one.requests:
            times = "once" if one.requests == 1 else f"{one.requests:,} times"
            findings.append(
                f"Their page asks {report.gateway} by {one.transport}, and is connected only while it asks:"
                f" {times} since {one.since}, last at {one.ended_at}."
            )
            continue
        findings.append(f"A connection {_ended(one, report)}")
    return findings


def _ended(one: EndingReport, report: GatewayReport) -> str:
    return (
        f"to {report.gateway} by {one.transport} ended at {one.ended_at} with {_why(one)}"
        f" ({_meaning(one)}it had begun at {one.since})."
    )


def _refusals(gateways: Sequence[GatewayReport]) -> list[str]:
    """Of unknown customers, by kind, the most frequent first: the last one alone may be anybody's."""
    refused = sorted(((one, report) for report in gateways for one in report.refused), key=_at)
    last = {(one.code, one.reason): (one, report) for one, report in refused}
    kinds = Counter((one.code, one.reason) for one, _ in refused).most_common(_REFUSALS)
    findings = []
    for kind, count in kinds:
        one, report = last[kind]
        findings.append(
            f"Refused lately, of unknown customers: {count:,} with {_why(one)} ({_meaning(one)}the last by"
            f" {report.gateway} at {one.ended_at})."
        )
    return findings


def _at(one: tuple[EndingReport, GatewayReport]) -> str:
    return one[0].ended_at


def _why(one: EndingReport) -> str:
    return f"{one.code}: {one.reason or 'no reason given'}"


def _meaning(one: EndingReport) -> str:
    """Of a code, for a reader who does not know them."""
    return f"{_MEANINGS[one.code]}; " if one.code in _MEANINGS else ""


# WebSockets' close codes, and the words of other transports.
_MEANINGS = {
    "1000": "it was closed normally",
    "1001": "the page was left",
    "1006": "it was cut",
    "1012": "the gateway ended or restarted",
    "4401": "its token was not, or no longer, valid",
    "4403": "its token does not allow this",
    "4408": "it read too slowly",
    "4409": "the customer had too many connections",
    "4429": "it sent too much",
    "left": "the page was left",
    "vanished": "it was cut",
    "restart": "the gateway ended or restarted",
    "unauthenticated": "its token was not, or no longer, valid",
    "forbidden": "its token does not allow this",
    "slow": "it read too slowly",
    "too-many-connections": "the customer had too many connections",
    "too-fast": "it sent too much",
}
# The gateway ended the connection because of its client.
_AMISS = frozenset(
    {
        *("4400", "4401", "4403", "4408", "4409", "4429"),
        *("bad-message", "unauthenticated", "forbidden", "slow", "too-many-connections", "too-fast"),
    }
)
_FAULTS = {
    Fault.TOO_LARGE.value: "it is larger than 64 KiB",
    Fault.NOT_AN_EVENT.value: "its row in the database was damaged, or written by something else",
    Fault.REFUSED.value: "Redis refused it again and again, and took others meanwhile",
}
_SHOWN = (
    "One of the customer's devices has shown it, even if the pop-up was closed at once; others then show no"
    " pop-up for it."
)
# A device that comes later reports a place beyond it, too.
_DONE_WITH = (
    "A device has reported it as seen: it had shown it before that, or has passed over it since, without a"
    " pop-up."
)
_UNSHOWN = "It was not reported as shown: the page is hidden, shows other pop-ups first, or does not report."
_TRIED = "One of the customer's devices has received it and reported that."
_UNTRIED = "The device has not reported it yet."
_CAUSES: dict[str, Callable[[Waited], str]] = {
    Cause.REDIS: lambda one: f"{one.sender} found that Redis was away or took no events{_because(one)}",
    Cause.DATABASE: lambda one: f"{one.sender} could not use the database",
    Cause.RESTART: lambda one: f"no sender published it before {one.sender} started",
    Cause.POISON: lambda one: f"Redis refused an earlier event of this channel{_because(one)}",
}
_BECAME = {
    State.RETRACTED.value: Verdict.RETRACTED,
    State.REPLACED.value: Verdict.REPLACED,
    State.READ.value: Verdict.READ,
    State.EXPIRED.value: Verdict.EXPIRED,
}
