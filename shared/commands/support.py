"""`orderbell trace`, `who`, `resend` and `send --test`: ask the sender what became of an alert, and more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import click
import httpx2
import msgspec

from shared.channels import MAX_NAME, is_name
from shared.commands.erase import NO_ANSWER, CallerSettings
from shared.commands.service import GATEWAY_THERE, service_at
from shared.errors import NeighbourError
from shared.redis.inquiries import GatewayReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.commands.local import LocalDirectory

TIMEOUT_SECONDS = 15.0
MAX_EVENT_ID = 1024  # characters
FOUND, NOT_FOUND = 0, 1
_SHOWN = 50  # connections
_UNKNOWN = ("not-placed", "not-sent")
_REPORTED = "shown"
_CAME = {"delivered", _REPORTED}  # what becomes of a test event that a device has
_LOOK_SECONDS = 0.2
_REPORT_SECONDS = 3.0  # from when a device has it: a page reports at once, but not twice within a second

T = TypeVar("T")


class _Event(msgspec.Struct):
    cursor: str


class _Trial(msgspec.Struct):
    cursor: str
    source: str
    id: str


class _Alert(msgspec.Struct):
    event: _Event | None
    verdict: str
    findings: list[str]


class _Trace(msgspec.Struct):
    asked: str
    alerts: list[_Alert]


class _Connections(msgspec.Struct):
    connections: int
    gateways: list[GatewayReport] | None
    silent: list[str] = []


class _Problem(msgspec.Struct):
    detail: str = ""


class NoAnswer(NeighbourError):
    """The sender does not answer, or refuses."""


class Refused(NoAnswer):
    """The sender refuses."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def trace(
    local: LocalDirectory,
    asked: str | None,
    given: Mapping[str, str],
    sender: str | None,
    *,
    as_json: bool,
) -> int:
    """The exit code: 0 if something was found, 1 if not, 3 if the sender does not answer.

    `asked` may be an order, an event or a customer; `given` are parameters of the sender's call.
    """
    guesses = guesses_of(asked, has_source="source" in given) if asked is not None else ()
    questions = [{**given, guess: asked} for guess in guesses if guess not in given and asked] or [
        dict(given)
    ]
    answers: list[bytes] = []
    found: list[_Trace] = []
    try:
        for question in questions:
            answers.append(_get(local, "/trace", question, sender))
            found.append(_decoded(answers[-1], _Trace))
            if not _is_unknown(found[-1]):
                answers, found = answers[-1:], found[-1:]
                break
    except NoAnswer as error:
        return _fail(str(error))
    for content, one in zip(answers, found, strict=True):
        if as_json:
            click.echo(content)
        else:
            _print_alerts(one)
    return FOUND if any(alert.event is not None for one in found for alert in one.alerts) else NOT_FOUND


def guesses_of(asked: str, *, has_source: bool) -> tuple[str, ...]:
    """What it may be. Only an event has a source, and only its id may be longer than a name."""
    if not is_name(asked[:MAX_NAME]) or len(asked) > MAX_EVENT_ID:
        raise click.BadParameter(
            f"{asked[:160]!r} is not a name: 1 to {MAX_NAME} characters without control characters"
        )
    if has_source or len(asked) > MAX_NAME:
        return ("event_id",)
    return ("event_id", "customer_id") if asked in (".", "..") else ("order_id", "event_id", "customer_id")


def _is_unknown(found: _Trace) -> bool:
    """The next guess may find something."""
    return all(alert.event is None and alert.verdict in _UNKNOWN for alert in found.alerts)


def _print_alerts(found: _Trace) -> None:
    for alert in found.alerts:
        where = f", {alert.event.cursor}" if alert.event is not None else ""
        _say(f"{found.asked}{where}: {alert.verdict.replace('-', ' ')}")
        for finding in alert.findings:
            _say(f"  - {finding}")


def who(local: LocalDirectory, customer: str | None, sender: str | None, *, as_json: bool) -> int:
    """The exit code: 0 if somebody is connected, 1 if not, 3 if the sender does not answer."""
    asked = {"customer_id": customer} if customer is not None else {}
    try:
        content = _get(local, "/connections", asked, sender)
        if as_json:
            click.echo(content)
        found = _decoded(content, _Connections)
    except NoAnswer as error:
        return _fail(str(error))
    if found.gateways is None:
        return _fail("the gateways can't be asked: the sender does not reach Redis")
    if not as_json:
        _print_connections(found.gateways, found.connections, customer)
        for name in found.silent:
            _say(f"{name}: asked the sender lately, but does not answer; it may not hear Redis")
    return FOUND if found.connections else NOT_FOUND


def _print_connections(gateways: Sequence[GatewayReport], connections: int, customer: str | None) -> None:
    for report in gateways:
        transports = ", ".join(f"{count:,} {name}" for name, count in sorted(report.connections.items()))
        state = "hears Redis" if report.redis else "pulls from the sender"
        faults = f"; not ready: {'; '.join(report.not_ready)}" if report.not_ready else ""
        _say(f"{report.gateway}: {transports or 'no connections'}; {state}{faults}")
        for one in report.listening[:_SHOWN]:
            waits = f", {one.waiting_bytes:,} bytes wait" if one.waiting_bytes else ""
            spoke = f", spoke {one.spoke_at}" if one.spoke_at else ""
            catching = "" if one.live else ", catching up"
            named = f", {one.id}" if one.id else ""
            _say(f"  {one.customer} by {one.transport} since {one.since}{spoke}{waits}{catching}{named}")
        if report.listening_count > _SHOWN:
            _say(f"  and {report.listening_count - _SHOWN:,} more")
        for ended in report.ended:
            if ended.requests:
                times = "once" if ended.requests == 1 else f"{ended.requests:,} times in all"
                _say(f"  asks by {ended.transport}, last {ended.ended_at}, {times}")
                continue
            named = f", {ended.id}" if ended.id else ""
            _say(f"  ended {ended.ended_at}: {ended.transport}, {ended.code} {ended.reason}".rstrip() + named)
    if not gateways:
        _say("no gateway answers: none is running, or none hears Redis")
    elif not connections:
        _say(f"{customer} is not connected" if customer is not None else "nobody is connected")


def resend(local: LocalDirectory, asked: Mapping[str, str], sender: str | None) -> int:
    """The exit code: 0 when recorded, 1 where there is no such alert, 3 if the sender does not answer."""
    try:
        content = _ask(local, "POST", "/resends", sender, body=asked)
        click.echo(f"sent again as {_decoded(content, _Event).cursor}")
    except Refused as refusal:
        _fail(str(refusal))
        if refusal.status not in (400, 404, 409):
            return NO_ANSWER
        return NOT_FOUND
    except NoAnswer as error:
        return _fail(str(error))
    return FOUND


def send_test(local: LocalDirectory, customer: str, sender: str | None, seconds: float) -> int:
    """The exit code: 0 when a device has it, 1 when none has, 3 if the sender does not answer."""
    deadline = time.monotonic() + seconds
    try:
        content = _ask(local, "POST", "/trials", sender, body={"customer_id": customer})
        trial = _decoded(content, _Trial)
        asked = {"event_id": trial.id, "source": trial.source}
        came = False
        while True:
            found = _decoded(_ask(local, "GET", "/trace", sender, query=asked), _Trace)
            verdicts = {alert.verdict for alert in found.alerts}
            if not came and verdicts & _CAME:
                came, deadline = True, time.monotonic() + _REPORT_SECONDS
            if _REPORTED in verdicts or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
    except NoAnswer as error:
        return _fail(str(error))
    _say(f"{'a device has it' if came else 'no device has it'}: {trial.cursor}")
    for finding in (finding for alert in found.alerts for finding in alert.findings):
        _say(f"  - {finding}")
    return FOUND if came else NOT_FOUND


def _get(local: LocalDirectory, path: str, asked: Mapping[str, str], sender: str | None) -> bytes:
    return _ask(local, "GET", path, sender, query=asked)


def _ask(
    local: LocalDirectory,
    method: str,
    path: str,
    sender: str | None,
    *,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, str] | None = None,
) -> bytes:
    """The answer's body. Raises `NoAnswer`."""
    settings = local.load(CallerSettings)
    url = (sender or str(settings.sender_url)).rstrip("/")
    headers = {"Authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"}
    try:
        with httpx2.Client(trust_env=False, timeout=TIMEOUT_SECONDS, verify=settings.tls) as client:
            answer = client.request(
                method, f"{url}{path}", params=dict(query or {}), json=body, headers=headers
            )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NoAnswer(f"{url} does not answer: {error}") from None
    if answer.status_code != 200:
        try:
            detail = msgspec.json.decode(answer.content, type=_Problem).detail[:200]
        except (msgspec.DecodeError, UnicodeDecodeError):
            detail = "what answers is not an Orderbell sender"
        if answer.status_code in (404, 405) and service_at(url, settings.tls) == "gateway":
            raise NoAnswer(GATEWAY_THERE.format(url))
        raise Refused(answer.status_code, f"{url} refuses with {answer.status_code}: {detail}")
    return answer.content


def _decoded(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoAnswer("what answers is not an Orderbell sender") from None


def _say(line: str) -> None:
    """A client may have chosen some of it, such as why its connection ended: nothing steers the terminal."""
    click.echo("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line))


def _fail(reason: str) -> int:
    click.echo(f"orderbell: {reason}", err=True)
    return NO_ANSWER
