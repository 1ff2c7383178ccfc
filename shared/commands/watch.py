"""A customer's events as a browser gets them, one a line, by any transport; resumes by cursor."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import click
import msgspec

from shared.channels import Channel
from shared.commands.service import SENDER_THERE, service_at
from shared.commands.token import minter
from shared.commands.ways import WAYS, Asked, CannotConnect, Ended
from shared.cursors import InvalidCursor, Place, format_cursors, parse_cursors
from shared.errors import NeighbourError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.commands.local import LocalDirectory

TOKEN_SECONDS = 3600
MIN_WAIT_SECONDS = 0.25
MAX_WAIT_SECONDS = 10.0


class WatchRefused(NeighbourError):
    """The gateway refuses us for good; the message gives the reason."""


class Message(msgspec.Struct):
    """What of a CloudEvent decides what to do with it."""

    type: str = ""
    channel: str = ""
    epoch: int = 0
    seq: int = 0
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Control(msgspec.Struct):
    """The data of the gateway's own messages."""

    cursor: str = ""
    channel: str = ""
    reason: str = ""
    retry_after_ms: int = 0


def watch(
    local: LocalDirectory,
    customer: str,
    topics: Sequence[str],
    gateway: str,
    after: str,
    *,
    way: str = "websocket",
    shows_handshake: bool = False,
) -> int:
    """The exit code: 0 when asked to end, 1 when refused."""
    if not is_http_url(gateway):
        raise click.BadParameter(f"{gateway!r} is not a gateway's URL; expected http://127.0.0.1:8091")
    try:
        watcher = Watcher(
            gateway, parse_cursors(after), way=way, topics=topics, shows_handshake=shows_handshake
        )
    except InvalidCursor as error:
        raise click.BadParameter(str(error)) from None
    new_token = minter(local, customer, topics, TOKEN_SECONDS)  # before anything runs: it may end the process
    try:
        asyncio.run(_run_until_interrupted(watcher, new_token))
    except WatchRefused as error:
        say(str(error))
        return 1
    return 0


async def _run_until_interrupted(watcher: Watcher, new_token: Callable[[], str]) -> None:
    """Until Ctrl-C or SIGTERM. Raises `WatchRefused`."""
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    running = asyncio.create_task(watcher.run(new_token))
    waiting = asyncio.create_task(interrupted.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    while not running.done():
        # On Python 3.11 the layers below can lose a cancellation; a second one gets through.
        running.cancel()
        await asyncio.wait({running}, timeout=1)
    if not running.cancelled():
        running.result()


def is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no such port, or no such address
        return False


def say(text: str) -> None:
    """To standard error: standard output is for events alone."""
    click.echo(click.style(text, dim=True), err=True)


class Watcher:
    """One customer's connection, over and over."""

    def __init__(
        self,
        gateway: str,
        places: dict[Channel, Place],
        *,
        way: str = "websocket",
        topics: Sequence[str] = (),
        shows_handshake: bool = False,
    ) -> None:
        self.places = places
        self._gateway = gateway
        self._way = WAYS[way]
        self._topics = topics
        self._shows_handshake = shows_handshake
        self._wait_seconds = 0.0
        self._welcome = False  # whether this connection was greeted
        self._said = ""  # why we can't connect, until we can

    async def run(self, new_token: Callable[[], str]) -> NoReturn:
        """Until cancelled. Raises `WatchRefused`."""
        while True:
            self._welcome = False
            try:
                await self._listen(new_token())
            except CannotConnect as error:
                await self._say_once(f"cannot connect to {self._gateway}: {error}")
            except Ended as end:
                # A token that has expired is followed by a new one; but not if it was never valid.
                if end.final or (end.unauthenticated and not self._welcome):
                    await self._check_service()
                    raise WatchRefused(f"{self._gateway} {end}") from None
                say(str(end))
            # Twice as long each time, and not in step with others that lost the same gateway.
            await asyncio.sleep(self._wait_seconds * random.uniform(0.5, 1))
            self._wait_seconds = min(MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, self._wait_seconds * 2))

    async def _say_once(self, fault: str) -> None:
        """Not with every try: they go on until Ctrl-C. Raises `WatchRefused` at a sender."""
        if fault != self._said:
            self._said = fault
            await self._check_service()
            say(f"{fault}; trying again")

    async def _check_service(self) -> None:
        """Raises `WatchRefused` at a sender: what it answers to a listener would only confuse."""
        if await asyncio.to_thread(service_at, self._gateway) == "sender":
            raise WatchRefused(SENDER_THERE.format(self._gateway))

    async def _listen(self, token: str) -> None:
        """Until it ends, by `Ended` or `CannotConnect`."""
        asked = Asked(self._gateway, token, self.places, self._topics, say if self._shows_handshake else None)
        async with contextlib.aclosing(self._way(asked)) as texts:
            async for text in texts:
                if self.take(text):
                    click.echo(text)

    def take(self, text: str | bytes) -> bool:
        """Whether it is an event that was not printed before."""
        message = msgspec.json.decode(text, type=Message)
        if message.type.startswith("orderbell.") and not message.seq:
            self._obey(message)
            return False
        channel, place = Channel(message.channel), Place(message.epoch, message.seq)
        known = self.places.get(channel)
        if known is not None and place <= known:
            return False
        self.places[channel] = place
        return True

    def _obey(self, message: Message) -> None:
        control = msgspec.json.decode(message.data, type=Control)
        match message.type:
            case "orderbell.hello":
                self._welcome, self._wait_seconds, self._said = True, 0.0, ""
                self.places.update({**parse_cursors(control.cursor), **self.places})
                say(f"connected to {self._gateway}, after {format_cursors(self.places)}")
            case "orderbell.reset":
                self.places.update(parse_cursors(control.cursor))
                say(f"reset: {control.channel} was {control.reason}; continues at {control.cursor}")
            case "orderbell.seen":
                say(f"seen elsewhere: {control.cursor}")
            case "orderbell.bye":
                self._wait_seconds = control.retry_after_ms / 1000
                say("the gateway is about to end this connection")
