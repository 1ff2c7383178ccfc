"""The peers as contenders: how to start them, to connect to them and to publish to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt

from bench.caller import Caller, callers, post
from bench.contenders import TO_ALL, Contender, Event, RedisPublisher, content, payload
from bench.load import line
from bench.stack import Server, running_redis, start_server
from shared.commands.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AsyncExitStack

    from bench.run import Run

DIRECTORY = Path(__file__).parent
PYTHON = DIRECTORY.parent / ".venv" / "bin" / "python"
CENTRIFUGO = DIRECTORY / "centrifugo" / "centrifugo"
GO = DIRECTORY / "go" / "gateway"
MERCURE = DIRECTORY / "mercure" / "hub"
SPRING = DIRECTORY / "spring" / "target" / "gateway.jar"
_SECRET = "centrifugo-" * 4  # of 32 characters at least
_NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")  # where Debian has it


class Peer:
    """Each peer defines its own part; the rest is the same for all."""

    name: str
    engineio: bool = False
    connects_at_once: int = 256
    publisher: tuple[str, ...] = ()  # a process that publishes; none: PUBLISH will do

    def __init__(self) -> None:
        self.gateways: list[Server] = []
        self.redis_pid = 0
        self._redis_port = 0
        self._redis: RedisPublisher
        self._publisher: subprocess.Popen[bytes]

    def command(self, port: int) -> list[str]:
        """Of one gateway."""
        raise NotImplementedError

    def target(self, customer: str) -> str:
        """The request target of a customer's WebSocket."""
        raise NotImplementedError

    def message(self, event: Event) -> tuple[str, bytes]:
        """The Redis channel and what is published there, where there is no publisher."""
        raise NotImplementedError

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        directory = run.new_directory("peer")
        directory.mkdir()
        redis = stack.enter_context(running_redis(run.redis_binary, directory, run.group))
        assert redis.process is not None
        self.redis_pid, self._redis_port = redis.process.pid, redis.port
        for _ in range(gateways):
            server = self._start_gateway(directory, run.group)
            stack.callback(server.end)
            server.wait_ready(None)
            self.gateways.append(server)
        if self.publisher:
            self._publisher = stack.enter_context(self._running_publisher(run.group))
        else:
            self._redis = stack.enter_context(RedisPublisher(redis.port))

    @property
    def gateway_pids(self) -> list[int]:
        return [gateway.pid for gateway in self.gateways]

    def connection(self, customer: int, gateway: int) -> str:
        ready = 2 if self.engineio else 0  # the Engine.IO open, the Socket.IO connect
        return line(self.gateways[gateway].port, self.target(f"customer-{customer}"), ready=ready)

    async def publish_to_redis(self, events: Sequence[Event]) -> None:
        await self.publish(events)

    async def publish(self, events: Sequence[Event]) -> None:
        if not self.publisher:
            self._redis.publish([self.message(event) for event in events])
            return
        assert self._publisher.stdin is not None
        assert self._publisher.stdout is not None
        given = [[_customer(event), content(event)] for event in events]
        self._publisher.stdin.write(json.dumps(given).encode() + b"\n")
        self._publisher.stdin.flush()
        if not await asyncio.to_thread(self._publisher.stdout.readline):
            raise OSError(f"the publisher of {self.name} has ended")

    def _start_gateway(self, directory: Path, group: int) -> Server:
        port = free_port()
        environment = {**os.environ, "REDIS_PORT": str(self._redis_port), "NODE_ENV": "production"}
        command = self.command(port)
        return start_server("peer", command, port, environment, directory, group, cwd=DIRECTORY)

    @contextlib.contextmanager
    def _running_publisher(self, group: int) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [*self.publisher, str(self._redis_port)],
            cwd=DIRECTORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=group,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


class Ws(Peer):
    name = "ws + ioredis"

    def command(self, port: int) -> list[str]:
        return ["node", "ws_gateway.js", str(port), str(self._redis_port)]

    def target(self, customer: str) -> str:
        return f"/?customer={customer}"

    def message(self, event: Event) -> tuple[str, bytes]:
        customer = json.dumps(_customer(event)).encode()
        return "events", b'{"customer":' + customer + b',"event":' + payload(event) + b"}"


class Go(Ws):
    """With the messages of `Ws`."""

    name = "Go: gorilla/websocket + go-redis"

    def command(self, port: int) -> list[str]:
        return [str(GO), str(port), str(self._redis_port)]


class SocketIo(Peer):
    name = "Socket.IO + Redis adapter"
    engineio = True
    publisher = ("node", "socketio_publisher.js")

    def command(self, port: int) -> list[str]:
        return ["node", "socketio_gateway.js", str(port), str(self._redis_port)]

    def target(self, customer: str) -> str:
        return f"/socket.io/?EIO=4&transport=websocket&customer={customer}"


class Starlette(Peer):
    name = "Starlette + redis-py"

    def command(self, port: int) -> list[str]:
        return [str(PYTHON), "starlette_gateway.py", str(port), str(self._redis_port)]

    def target(self, customer: str) -> str:
        return f"/{customer}"

    def message(self, event: Event) -> tuple[str, bytes]:
        customer = _customer(event)
        return f"one:{customer}" if customer else "all", payload(event)


class PythonSocketIo(SocketIo):
    name = "python-socketio + Redis manager"
    publisher = (str(PYTHON), "socketio_publisher.py")

    def command(self, port: int) -> list[str]:
        return [str(PYTHON), "socketio_gateway.py", str(port), str(self._redis_port)]


class Channels(Peer):
    name = "Django Channels + channels_redis"
    connects_at_once = 32  # of more it refuses some: they take longer than Daphne's time-out
    publisher = (str(PYTHON), "channels_publisher.py")

    def command(self, port: int) -> list[str]:
        daphne = [str(PYTHON), "-m", "daphne", "--bind", "127.0.0.1", "--port", str(port), "--verbosity", "0"]
        return [*daphne, "channels_site.asgi:application"]

    def target(self, customer: str) -> str:
        return f"/{customer}"


class Nchan(Peer):
    """Its publisher is another nginx, so that publishing is not counted as the gateway's."""

    name = "nginx with Nchan"

    def __init__(self) -> None:
        super().__init__()
        self._directory: Path
        self._callers: list[Caller]

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        self._directory = run.new_directory("nginx")
        self._directory.mkdir()
        await super().start(run, gateways, stack)
        publisher = self._start_gateway(self._directory, run.group)
        stack.callback(publisher.end)
        publisher.wait_ready(None)
        self._callers = await stack.enter_async_context(callers(publisher.port, 4))

    @property
    def gateway_pids(self) -> list[int]:
        return [pid for gateway in self.gateways for pid in (gateway.pid, *_children(gateway.pid))]

    def command(self, port: int) -> list[str]:
        directory = self._directory / str(port)
        directory.mkdir()
        configuration = (DIRECTORY / "nginx.conf").read_text(encoding="utf-8") % {
            "port": port,
            "redis_port": self._redis_port,
            "directory": directory,
            "user": pwd.getpwuid(os.geteuid()).pw_name,
        }
        path = directory / "nginx.conf"
        path.write_text(configuration, encoding="utf-8")
        return ["nginx", "-p", "/usr/share/nginx", "-c", str(path)]

    def target(self, customer: str) -> str:
        return f"/events?customer={customer}"

    async def publish(self, events: Sequence[Event]) -> None:
        waiting = iter(events)

        async def run(caller: Caller) -> None:
            for event in waiting:
                target = f"/publish?customer={_customer(event) or 'all'}"
                answer = await caller.call(post(target, payload(event), ""))
                if answer.status not in (201, 202):
                    raise OSError(f"Nchan answered {answer.status}")

        async with asyncio.TaskGroup() as tasks:
            for caller in self._callers:
                tasks.create_task(run(caller))


class Centrifugo(Peer):
    """Its unidirectional WebSocket, with the token's channels; its publisher is another node of it."""

    name = "Centrifugo"

    def __init__(self) -> None:
        super().__init__()
        self._directory: Path
        self._caller: Caller

    async def start(self, run: Run, gateways: int, stack: AsyncExitStack) -> None:
        self._directory = run.new_directory("centrifugo")
        self._directory.mkdir()
        await super().start(run, gateways, stack)
        publisher = self._start_gateway(self._directory, run.group)
        stack.callback(publisher.end)
        publisher.wait_ready(None)
        (self._caller,) = await stack.enter_async_context(callers(publisher.port, 1))

    def command(self, port: int) -> list[str]:
        path = self._directory / f"{port}.json"
        path.write_text(json.dumps(self._configuration(port)), encoding="utf-8")
        return [str(CENTRIFUGO), "--config", str(path)]

    def target(self, customer: str) -> str:
        claims = {"sub": customer, "channels": [customer, TO_ALL], "exp": int(time.time()) + 3600}
        connect = json.dumps({"token": jwt.encode(claims, _SECRET, "HS256")})
        return f"/connection/uni_websocket?cf_connect={quote(connect)}"

    def connection(self, customer: int, gateway: int) -> str:
        target = self.target(f"customer-{customer}")
        return line(self.gateways[gateway].port, target, ready=1)  # its answer to the connect

    async def publish(self, events: Sequence[Event]) -> None:
        commands = [
            {"publish": {"channel": _customer(event) or TO_ALL, "data": content(event)}} for event in events
        ]
        body = json.dumps({"commands": commands}).encode()
        answer = await self._caller.call(post("/api/batch", body, ""))
        if answer.status != 200 or b'"error"' in answer.body:
            raise OSError(f"Centrifugo answered {answer.status} {answer.body[:200].decode()}")

    def _configuration(self, port: int) -> dict[str, Any]:
        return {
            "http_server": {"address": "127.0.0.1", "port": str(port)},
            "engine": {"type": "redis", "redis": {"address": f"redis://127.0.0.1:{self._redis_port}"}},
            "client": {"token": {"hmac_secret_key": _SECRET}},
            "uni_websocket": {"enabled": True},
            "http_api": {"insecure": True},
            "log": {"level": "error"},
        }


class Mercure(Peer):
    """Server-sent events."""

    name = "Mercure's hub"

    def command(self, port: int) -> list[str]:
        return [str(MERCURE), str(port), str(self._redis_port)]

    def target(self, customer: str) -> str:
        return f"/.well-known/mercure?topic={customer}"

    def message(self, event: Event) -> tuple[str, bytes]:
        return f"one:{_customer(event)}", payload(event)


class Spring(Peer):
    """STOMP over a WebSocket."""

    name = "Spring's simple broker"

    def command(self, port: int) -> list[str]:
        settings = [f"--server.port={port}", f"--spring.data.redis.port={self._redis_port}"]
        return ["java", "-jar", str(SPRING), "--server.address=127.0.0.1", *settings]

    def target(self, customer: str) -> str:
        return "/stomp"

    def message(self, event: Event) -> tuple[str, bytes]:
        return f"one:{_customer(event)}", payload(event)


def streams_found() -> tuple[type[Contender], ...]:
    """Those of other transports that are installed here."""
    java = shutil.which("java") is not None and SPRING.exists()
    return (*((Mercure,) if MERCURE.exists() else ()), *((Spring,) if java else ()))


def found() -> tuple[type[Contender], ...]:
    """Those that are installed here and speak WebSocket."""
    node = shutil.which("node") is not None and (DIRECTORY / "node_modules").is_dir()
    python = PYTHON.exists()
    nchan = shutil.which("nginx") is not None and _NCHAN.exists()
    return (
        *((Go,) if GO.exists() else ()),
        *((Centrifugo,) if CENTRIFUGO.exists() else ()),
        *((Nchan,) if nchan else ()),
        *((Ws, SocketIo) if node else ()),
        *((Starlette, PythonSocketIo, Channels) if python else ()),
    )


def _customer(event: Event) -> str | None:
    return None if event.customer is None else f"customer-{event.customer}"


def _children(pid: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    ]
