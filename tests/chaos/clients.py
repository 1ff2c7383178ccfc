"""The swarm: many devices that stay connected, show each event once, and come back wherever they can.

Each does what the browser client does (receiver/browser/source.js, returning.js), but in a process with
hundreds of others: it keeps its cursor, drops what it had, goes back for what a hole hides, waits with full
jitter, and takes another gateway than the one that failed it, as a balancer would give it one. Over other
transports than WebSocket it uses the clients of tests/conformance.

It keeps its customer's alerts as the client does: an alert pops up a moment after it came, unless it was
taken back or has expired by then; what is heard of retractions, expiries and reading changes alerts' states.

With `dedupe` off it shows whatever it receives, with `heed` off it lets pop up what was taken back or has
expired: a proof that the checker sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from receiver.transports.websocket.close_codes import CODES
from shared.events import EXPIRED, READ, RETRACTED, SYSTEM
from shared.times import parse_time
from tests.chaos import companion
from tests.chaos.ledger import End, Heard, Hello, LedgerWriter, Misplaced, PopUp, Reset, Screen, Show, now
from tests.conformance.client import Ended
from tests.conformance.polling import LongPollingDriver, PollingDriver
from tests.conformance.sse import EventStreamDriver
from tests.conformance.stomp import SockJsDriver, StompDriver, XhrDriver
from tests.https import read_certificates_once, was_cut

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from websockets.asyncio.client import ClientConnection

    from tests.conformance.client import Client, Driver

DRIVERS: dict[str, Driver] = {
    driver.name: driver
    for driver in (
        EventStreamDriver(),
        LongPollingDriver(),
        PollingDriver(pause_seconds=1),
        StompDriver(),
        SockJsDriver(),
        XhrDriver(),
    )
}
TRANSPORTS = ("websocket", *DRIVERS)

SUBPROTOCOL = "cloudevents.json"

# As receiver/browser/returning.js has them, in seconds.
BASE = 0.5
LONGEST = 30.0
SPREAD = 5.0
STABLE = 5.0
HELLO = 10.0
REPORT = 1.0
SAME_HOLE = 3
OWN_WILL = 0
STOP = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 4400, 4403})
LEAST = {4409: LONGEST, 4429: SPREAD}
POP_UP = 0.3  # after an alert came: what is taken back in the same catch-up never pops up


class Who(msgspec.Struct, frozen=True):
    """A device: its customer, its token, and the number of the gateway where it begins."""

    device: str
    customer: str
    token: str
    gateway: int = 0
    transport: str = "websocket"  # as the conformance suite names it


class _Start(msgspec.Struct, tag="start"):
    devices: list[Who]
    ports: list[int]  # of gateways
    ledger: str
    seed: int
    dedupe: bool = True
    heed: bool = True
    reads: float = 0.0
    come_seconds: float = 0.0


class _Status(msgspec.Struct, tag="status"):
    pass


class _Places(msgspec.Struct, tag="places"):
    pass


class _Unread(msgspec.Struct, tag="unread"):
    pass


class _Leave(msgspec.Struct, tag="leave"):
    devices: list[str]


class _Come(msgspec.Struct, tag="come"):
    devices: list[str]
    gateway: int | None


class _Stop(msgspec.Struct, tag="stop"):
    pass


_Command = _Start | _Status | _Places | _Unread | _Leave | _Come | _Stop


class Status(msgspec.Struct):
    connected: int
    shown: int
    at_gateways: list[int]


class Swarm:
    """Commands the swarm's process."""

    def __init__(self, process_group: int) -> None:
        self._process = companion.Companion("tests.chaos.clients", process_group=process_group)

    def __enter__(self) -> Swarm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end()

    def start(
        self,
        devices: list[Who],
        ports: list[int],
        ledger: Path,
        *,
        seed: int = 0,
        dedupe: bool = True,
        heed: bool = True,
        reads: float = 0.0,
        come_seconds: float = 0.0,
    ) -> None:
        """`reads`: of the alerts that pop up, the share that is marked as read on this device.

        A gateway of an earlier version refuses such a report, and the device gives up. The devices come one
        after the other within `come_seconds`.
        """
        self._process.tell(_Start(devices, ports, str(ledger), seed, dedupe, heed, reads, come_seconds))

    def status(self) -> Status:
        return self._process.ask(_Status(), Status)

    def places(self) -> dict[str, dict[str, str]]:
        """Where each device is, by channel."""
        return self._process.ask(_Places(), dict[str, dict[str, str]])

    def unread(self) -> dict[str, int | None]:
        """How many alerts each device believes to be unread."""
        return self._process.ask(_Unread(), dict[str, int | None])

    def leave(self, devices: list[str]) -> None:
        """They go offline, and remember where they were."""
        self._process.tell(_Leave(devices))

    def come(self, devices: list[str], gateway: int | None = None) -> None:
        """They come back, at the gateway where they were or at another."""
        self._process.tell(_Come(devices, gateway))

    def stop(self) -> None:
        """All disconnect; the ledger is whole."""
        self._process.tell(_Stop())


# Everything below runs in the swarm's own process.

Place = tuple[int, int]  # epoch, seq


class _Event(msgspec.Struct):
    type: str
    id: str = ""
    expirytime: str = ""
    channel: str | None = None
    epoch: int = 0
    seq: int = 0
    subject: str = ""
    data: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class _Address:
    """A gateway as the suite's drivers need it: through the proxy."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"


class _Again(Exception):
    """The device itself ends the connection and comes back."""


class _Alert:
    def __init__(self, event: _Event) -> None:
        self.order_id = event.subject
        self.event_id = event.id
        self.cursor = f"{event.channel}={event.epoch}.{event.seq}"
        self.expires = parse_time(event.expirytime).timestamp() if event.expirytime else float("inf")

    @property
    def is_over(self) -> bool:
        return time.time() >= self.expires


class _Alerts:
    """A customer's alerts as one device knows them. States are merged as sets, counts by their places."""

    def __init__(self) -> None:
        self.unread: int | None = None
        self._as_of: Place = (0, 0)
        self._known: dict[Place, _Alert] = {}
        self._retracted: set[Place] = set()
        self._read: set[Place] = set()
        self._read_up_to: Place = (0, 0)

    def add(self, place: Place, alert: _Alert) -> None:
        self._known[place] = alert

    def take(self, event: _Event) -> list[str]:
        """A change of states; returns the orders of the alerts that it takes back."""
        data = event.data
        if event.type == READ:
            self._read |= {_place(cursor) for cursor in data["alone"]}
            if data["cursor"] is not None:
                self._read_up_to = max(self._read_up_to, _place(data["cursor"]))
        if event.type in (READ, RETRACTED, EXPIRED):
            self.count(data)
        if event.type != RETRACTED:
            return []
        place = _place(data["cursor"])
        self._retracted.add(place)
        return [self._known[place].order_id] if place in self._known else []

    def count(self, data: Any) -> None:
        """An older count than the one that is known changes nothing."""
        as_of = _place(data["as_of"])
        if as_of >= self._as_of:
            self.unread, self._as_of = data["unread"], as_of

    def is_over(self, place: Place) -> bool:
        return place in self._retracted or self._known[place].is_over

    def states(self) -> dict[str, str]:
        return {alert.order_id: self._state(place, alert) for place, alert in self._known.items()}

    def _state(self, place: Place, alert: _Alert) -> str:
        if place in self._retracted:
            return "retracted"
        if alert.is_over:
            return "expired"
        return "read" if place in self._read or place <= self._read_up_to else "unread"


class _Device:
    def __init__(
        self,
        who: Who,
        ports: list[int],
        ledger: LedgerWriter,
        chance: random.Random,
        *,
        dedupe: bool,
        heed: bool,
        reads: float,
    ) -> None:
        self.who = who
        self.gateway = who.gateway % len(ports)
        self.connected = False
        self.had: dict[str, Place] = {}
        self.shown = 0
        self._ports = ports
        self._ledger = ledger
        self._chance = chance
        self._dedupe = dedupe
        self._heed = heed
        self._reads = reads
        self.alerts = _Alerts()
        self._to_read: list[dict[str, Any]] = []  # reports of what was read here
        self._until: dict[str, Place] = {}  # where the channels were when this connection began
        self._sent: dict[str, Place] = {}  # what this connection has sent last, by channel
        self._attempt = 0
        self._bye: float | None = None
        self._hole: tuple[str, Place, int] | None = None
        self._unreported = asyncio.Event()

    async def run(self, *, after_seconds: float = 0.0) -> None:
        await asyncio.sleep(after_seconds)
        while True:
            began, code = now(), 1006
            try:
                code = await self._connect()
            except _Again:
                code = OWN_WILL
            except (OSError, InvalidHandshake, TimeoutError, ConnectionClosed, httpx2.HTTPError):
                pass
            except AttributeError as error:
                if not was_cut(error):
                    raise
            except AssertionError as error:
                if not _closed_while_asking(error):
                    raise
            if self.connected and now() - began >= STABLE:
                self._attempt = 0
            self.connected = False
            bye = self._bye
            self._ledger.write(End(now(), self.who.device, self.gateway, code, bye is not None))
            if code in STOP:
                return
            self.gateway = (self.gateway + 1) % len(self._ports)
            await asyncio.sleep(self._wait(code))

    def _wait(self, code: int) -> float:
        bye, self._bye = self._bye, None
        if bye is not None:
            return bye
        longest = min(LONGEST, BASE * 2.0**self._attempt)
        if self._attempt == 0 and code in (1012, 1013):
            longest = SPREAD
        self._attempt += 1
        return LEAST.get(code, 0.0) + self._chance.random() * longest

    async def _connect(self) -> int:
        """One connection, from its handshake to its close code."""
        self._until = {}
        after = ",".join(f"{channel}={e}.{s}" for channel, (e, s) in self.had.items())
        url = f"ws://127.0.0.1:{self._ports[self.gateway]}/events" + (f"?after={after}" if after else "")
        self._sent = dict(self.had)
        if self.who.transport != "websocket":
            return await self._connect_by(DRIVERS[self.who.transport], after)
        async with connect(
            url,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item] # a plain text will do
            additional_headers={"Authorization": f"Bearer {self.who.token}"},
            compression=None,
            ping_interval=None,  # a browser sends none
            open_timeout=HELLO,
            close_timeout=0.1,
            max_queue=None,
            proxy=None,
        ) as websocket:
            reporting = asyncio.create_task(self._report(websocket))
            try:
                async with asyncio.timeout(HELLO):
                    self._receive(await websocket.recv())
                while True:
                    self._receive(await websocket.recv())
            except ConnectionClosed:
                return websocket.close_code or 1006
            finally:
                reporting.cancel()

    async def _connect_by(self, driver: Driver, after: str) -> int:
        """As `_connect`, over another transport."""
        gateway: Any = _Address(self._ports[self.gateway])
        async with driver.connected(gateway, self.who.token, after=after, greeted=False) as client:
            client.take = self._take_message  # type: ignore[method-assign] # its own would keep all of them
            reporting = asyncio.create_task(self._report_by(client))
            try:
                async with asyncio.timeout(HELLO):
                    while not self.connected:
                        await client.receive()
                        if client.notices:  # of a client that joins the hellos of several subscriptions
                            self._take_message(client.notices[0])
                while True:
                    await client.receive()
            except Ended:
                end = client.end()
                return CODES[end] if end is not None else 1006
            finally:
                reporting.cancel()

    async def _report_by(self, client: Client) -> None:
        """As `_report`; one that is lost is repeated with the next."""
        while True:
            await self._unreported.wait()
            self._unreported.clear()
            for channel, place in self.had.items():
                try:
                    await client.report_seen(f"{channel}={_text(place)}")
                except (httpx2.HTTPError, ConnectionClosed, AssertionError, AttributeError) as error:
                    if isinstance(error, AttributeError) and not was_cut(error):
                        raise
            await asyncio.sleep(REPORT)

    def _take_message(self, message: dict[str, Any]) -> None:
        self._take(msgspec.convert(message, _Event))

    async def _report(self, websocket: ClientConnection) -> None:
        """What was shown, at once and then once a second."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._unreported.wait()
                self._unreported.clear()
                cursor = ",".join(f"{channel}={e}.{s}" for channel, (e, s) in self.had.items())
                event = {"specversion": "1.0", "id": "1", "source": "/chaos", "type": "orderbell.seen"}
                await websocket.send(msgspec.json.encode(event | {"data": {"cursor": cursor}}), text=True)
                reads, self._to_read = self._to_read, []
                for read in reads:  # one that is lost was never read
                    await websocket.send(msgspec.json.encode(event | {"type": READ, "data": read}), text=True)
                await asyncio.sleep(REPORT)

    def _receive(self, text: str | bytes) -> None:
        self._take(_decode(text))

    def _take(self, event: _Event) -> None:
        if event.seq:
            self._deliver(event)
        elif event.type == "orderbell.hello":
            self._greeted(event.data["cursor"], event.data.get("as_of") or event.data["cursor"])
        elif event.type == "orderbell.reset":
            self._reset(event.data["channel"], event.data["reason"], event.data["cursor"])
        elif event.type == "orderbell.unread":
            self.alerts.count(event.data)
        elif event.type == "orderbell.bye":
            self._bye = event.data["retry_after_ms"] / 1000

    def _greeted(self, cursor: str, as_of: str) -> None:
        for channel, place in _parse(cursor).items():
            self.had.setdefault(channel, place)
            self._sent.setdefault(channel, place)
        self._until = dict(_parse(as_of))
        self.connected = True
        self._ledger.write(Hello(now(), self.who.device, self.gateway))

    def _deliver(self, event: _Event) -> None:
        assert event.channel is not None
        channel, place = event.channel, (event.epoch, event.seq)
        self._check_sent(channel, place)
        had = self.had.get(channel)
        if self._dedupe and had is not None:
            if place <= had:
                return
            if place != (had[0], had[1] + 1):
                self._missing(channel, had, place)
        self.had[channel] = max(place, had or place)
        self._unreported.set()
        if event.type.startswith(SYSTEM):
            orders = self.alerts.take(event)
            self._ledger.write(Heard(now(), self.who.device, channel, *place, kind=event.type, orders=orders))
            return
        self.shown += 1
        self._ledger.write(
            Show(now(), self.who.device, self.who.customer, channel, *place, order_id=event.subject)
        )
        alert = _Alert(event)
        self.alerts.add(place, alert)
        asyncio.get_running_loop().call_later(POP_UP, self._pop_up, place, alert)

    @property
    def _is_catching_up(self) -> bool:
        return any(self.had.get(channel, place) < place for channel, place in self._until.items())

    def _pop_up(self, place: Place, alert: _Alert) -> None:
        if self._heed and self.alerts.is_over(place):
            return
        if not self.connected or self._is_catching_up:
            # Its retraction may be among what is still to come.
            asyncio.get_running_loop().call_later(POP_UP, self._pop_up, place, alert)
            return
        self._ledger.write(PopUp(now(), self.who.device, alert.order_id))
        if self._chance.random() < self._reads:
            alone = self._chance.random() < 0.5
            self._to_read.append({"ids": [alert.event_id]} if alone else {"cursor": alert.cursor})
            self._unreported.set()

    def _check_sent(self, channel: str, place: Place) -> None:
        """A gateway must keep the order by itself, even though a browser would correct it."""
        last = self._sent.get(channel)
        if last is not None and place != (last[0], last[1] + 1):
            self._ledger.write(Misplaced(now(), self.who.device, _text(last), _text(place)))
        self._sent[channel] = place

    def _missing(self, channel: str, had: Place, place: Place) -> None:
        """Go back for what is missing; a hole that no server can fill is skipped."""
        times = self._hole[2] + 1 if self._hole and self._hole[:2] == (channel, had) else 1
        self._hole = channel, had, times
        if times >= SAME_HOLE:
            before = (place[0], place[1] - 1)
            self._ledger.write(Reset(now(), self.who.device, "unavailable", _text(before), given_up=True))
            self.had[channel] = before
        raise _Again

    def _reset(self, channel: str, reason: str, cursor: str) -> None:
        place = _parse(cursor)[channel]
        self.had[channel] = self._sent[channel] = place
        self._ledger.write(Reset(now(), self.who.device, reason, _text(place)))


def _parse(cursors: str) -> Mapping[str, Place]:
    places = {}
    for cursor in cursors.split(","):
        channel, _, place = cursor.partition("=")
        epoch, _, seq = place.partition(".")
        places[channel] = (int(epoch), int(seq))
    return places


def _place(cursor: str) -> Place:
    (place,) = _parse(cursor).values()
    return place


def _text(place: Place) -> str:
    return f"{place[0]}.{place[1]}"


class _Swarm:
    def __init__(self, start: _Start) -> None:
        self.ledger = LedgerWriter(Path(start.ledger))
        self.ports = start.ports
        chance = random.Random(start.seed)
        self.devices = {
            who.device: _Device(
                who,
                start.ports,
                self.ledger,
                random.Random(chance.random()),
                dedupe=start.dedupe,
                heed=start.heed,
                reads=start.reads,
            )
            for who in start.devices
        }
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def come(self, names: list[str], gateway: int | None = None, *, seconds: float = 0.0) -> None:
        for number, name in enumerate(names):
            if gateway is not None:
                self.devices[name].gateway = gateway
            after = seconds * number / len(names)
            self.tasks[name] = asyncio.create_task(self.devices[name].run(after_seconds=after))

    async def leave(self, names: list[str]) -> None:
        tasks = [self.tasks.pop(name) for name in names]
        left = set(tasks)
        while left:  # a client that is just closing may raise an error of its own instead
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=1.0)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise ValueError(f"a device failed: {error!r}") from error
        for name in names:
            self.devices[name].connected = False

    def status(self) -> Status:
        self._raise_failures()
        devices = [self.devices[name] for name in self.tasks]
        at = [
            sum(device.connected and device.gateway == n for device in devices)
            for n in range(len(self.ports))
        ]
        return Status(sum(at), sum(device.shown for device in self.devices.values()), at)

    def _raise_failures(self) -> None:
        for task in self.tasks.values():
            if task.done() and (error := task.exception()) is not None:
                raise ValueError(f"a device failed: {error!r}") from error


async def _main() -> None:
    read_certificates_once()
    swarm: _Swarm | None = None

    async def do(command: _Command) -> object:
        nonlocal swarm
        if isinstance(command, _Start):
            swarm = _Swarm(command)
            swarm.come([who.device for who in command.devices], seconds=command.come_seconds)
            return None
        assert swarm is not None, "start it first"
        if isinstance(command, _Status):
            swarm.ledger.flush()
            return swarm.status()
        if isinstance(command, _Places):
            return {n: {c: _text(p) for c, p in d.had.items()} for n, d in swarm.devices.items()}
        if isinstance(command, _Unread):
            return {name: device.alerts.unread for name, device in swarm.devices.items()}
        if isinstance(command, _Come):
            swarm.come(command.devices, command.gateway)
        elif isinstance(command, _Leave):
            await swarm.leave(command.devices)
        else:
            await swarm.leave(list(swarm.tasks))
            for name, device in swarm.devices.items():
                swarm.ledger.write(Screen(name, device.alerts.unread, device.alerts.states()))
            swarm.ledger.flush()
        return None

    await companion.obey(_Command, do)


def _closed_while_asking(error: AssertionError) -> bool:
    """websockets 16 asserts that nothing was closed yet when it sends its handshake; a gateway that ends may
    just have closed.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_code.co_name == "send_context"


if __name__ == "__main__":
    companion.run(_main)
