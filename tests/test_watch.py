"""`orderbell watch`: events once each and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from shared.channels import Channel
from shared.commands.watch import Watcher, WatchRefused
from shared.cursors import Place
from tests import commands
from tests.commands import Command
from tests.processes import REPOSITORY, clean_environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.commands import Running
    from tests.processes import Processes, ReceiverProcess, SenderProcess

    Watch = Callable[..., "Watching"]

ALICE = Channel("customer:alice")


def event(seq: int, epoch: int = 1) -> str:
    return json.dumps({"type": "order.completed", "channel": ALICE, "epoch": epoch, "seq": seq, "data": {}})


def control(kind: str, **data: Any) -> str:
    return json.dumps({"type": f"orderbell.{kind}", "id": "1", "data": data})


@pytest.fixture
def watcher() -> Watcher:
    return Watcher("http://gateway.example", {})


def test_each_event_counts_once(watcher: Watcher) -> None:
    assert [watcher.take(event(seq)) for seq in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    assert watcher.places == {ALICE: Place(1, 3)}


def test_hello_gives_a_cursor_where_there_is_none(watcher: Watcher) -> None:
    assert not watcher.take(control("hello", cursor="customer:alice=1.7,topic:menu=1.2", gateway="g"))
    assert watcher.places == {ALICE: Place(1, 7), "topic:menu": Place(1, 2)}
    watcher.take(event(8))
    watcher.take(control("hello", cursor="customer:alice=1.7"))
    assert watcher.places[ALICE] == Place(1, 8)


def test_reset_replaces_the_cursor(watcher: Watcher) -> None:
    watcher.take(event(8, epoch=2))
    watcher.take(control("reset", channel=ALICE, reason="future", cursor="customer:alice=2.3"))
    assert watcher.take(event(4, epoch=2))


@pytest.mark.parametrize("kind", ["seen", "bye", "new-in-some-later-version"])
def test_other_messages_of_the_gateway_are_no_events(watcher: Watcher, kind: str) -> None:
    assert not watcher.take(control(kind, cursor="customer:alice=1.7", retry_after_ms=5))
    assert watcher.places == {}


class Watching:
    """`orderbell watch` as a process."""

    def __init__(self, process: Running, out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def orders(self) -> list[str]:
        return [event["subject"] for event in self.events]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in _text(self._out).splitlines()]

    @property
    def says(self) -> str:
        return _text(self._err)

    def wait_connected(self, times: int = 1) -> None:
        wait_until(lambda: self.says.count("connected to") >= times)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""  # it is made as the process begins


@pytest.fixture
def watch(processes: Processes, tmp_path: Path, process_group: int) -> Iterator[Watch]:
    started: list[Running] = []

    def watch(gateway: ReceiverProcess, *arguments: str, **settings: str) -> Watching:
        out, err = tmp_path / f"out-{len(started)}", tmp_path / f"err-{len(started)}"
        settings = {"jwt_secret": processes.jwt_secret, **settings}
        environment = {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
        command = Command(
            "shared.commands.cli",
            ("watch", "alice", "--gateway", gateway.url, *arguments),
            {**os.environ, **environment},
            tmp_path,
            out,
            process_group,
            err,
        )
        process = commands.fork(command)
        started.append(process)
        return Watching(process, out, err)

    yield watch
    for process in started:
        process.kill()
        process.wait()


def complete(processes: Processes, sender: SenderProcess, *order_ids: str) -> None:
    with httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as client:
        for order_id in order_ids:
            order = {"order_id": order_id, "customer_id": "alice"}
            assert client.post("/orders", json=order).status_code == 201
            assert client.post(f"/orders/{order_id}/complete").status_code == 200


@pytest.mark.long
def test_events_are_printed_once_each_though_the_gateway_is_killed(
    processes: Processes, watch: Watch
) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    complete(processes, sender, "1")
    watching = watch(gateway)
    wait_until(lambda: watching.orders == ["1"])
    complete(processes, sender, "2")
    wait_until(lambda: watching.orders == ["1", "2"])
    gateway.kill()
    wait_until(lambda: "closed with 1006" in watching.says)
    complete(processes, sender, "3")
    gateway.start()
    wait_until(lambda: watching.orders == ["1", "2", "3"])
    gateway.terminate()
    wait_until(lambda: "the gateway is about to end this connection" in watching.says)
    complete(processes, sender, "4")
    gateway.start()
    wait_until(lambda: watching.orders == ["1", "2", "3", "4"])

    later = watch(gateway, "--after", "customer:alice=1.2")
    wait_until(lambda: later.orders == ["3", "4"])
    later.process.send_signal(signal.SIGINT)
    assert later.process.wait(5) == 0
    assert "Traceback" not in later.says

    stranger = watch(gateway, jwt_secret="x" * 32)
    assert stranger.process.wait(20) == 1
    assert "closed with 4401" in stranger.says


@pytest.mark.parametrize(
    "way", ["sse", *(pytest.param(way, marks=pytest.mark.long) for way in ("stomp", "poll"))]
)
def test_every_way_prints_each_event_once_though_the_gateway_is_killed(
    processes: Processes, watch: Watch, way: str
) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    complete(processes, sender, "1")
    watching = watch(gateway, "--transport", way, "--topic", "menu")
    wait_until(lambda: watching.orders == ["1"])
    complete(processes, sender, "2")
    wait_until(lambda: watching.orders == ["1", "2"])
    gateway.kill()
    complete(processes, sender, "3")
    gateway.start()
    wait_until(lambda: watching.orders == ["1", "2", "3"])
    gateway.terminate()
    complete(processes, sender, "4")
    gateway.start()
    wait_until(lambda: watching.orders == ["1", "2", "3", "4"])
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(5) == 0
    assert "Traceback" not in watching.says
    assert "> " not in watching.says  # that is for --handshake

    stranger = watch(gateway, "--transport", way, jwt_secret="x" * 32)
    assert stranger.process.wait(20) == 1
    assert "401" in stranger.says


@pytest.mark.parametrize(
    ("way", "shown"),
    [
        (
            "websocket",
            ["> GET /events", "> Sec-WebSocket-Protocol: cloudevents.json", "< HTTP/1.1 101", "< TEXT {"],
        ),
        (
            "sse",
            ["> GET /events", "> accept: text/event-stream", "< HTTP/1.1 200 OK", "< id: customer:alice="],
        ),
        ("stomp", ["> STOMP CONNECT", "< STOMP CONNECTED", "> STOMP SUBSCRIBE", "< STOMP MESSAGE"]),
        ("poll", ["> GET /events?wait=25&session=", "< HTTP/1.1 200 OK", '< {"events":[']),
    ],
)
def test_handshake_is_shown_and_the_token_never(
    processes: Processes, watch: Watch, way: str, shown: list[str]
) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    watching = watch(gateway, "--transport", way, "--handshake")
    watching.wait_connected()
    complete(processes, sender, "1")
    wait_until(lambda: watching.orders == ["1"])
    gateway.terminate()
    ends = {"websocket": "< CLOSE 1012", "stomp": "< CLOSE 1012", "sse": "orderbell.bye", "poll": "bye"}
    wait_until(lambda: ends[way] in watching.says)
    says = watching.says.lower()
    for line in shown:
        assert line.lower() in says, says
    assert "bearer …" in says
    assert "eyj" not in says  # how each JWT begins, whole or cut


def test_refusal_is_shown_with_its_answer(processes: Processes, watch: Watch) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:nobody")
    for way in ("websocket", "sse", "stomp", "poll"):
        watching = watch(gateway, "--transport", way, "--handshake")
        assert watching.process.wait(20) == 1
        assert "< HTTP/1.1 403" in watching.says
        assert "nobody is admitted" in watching.says


def test_sender_is_recognised_by_every_way(processes: Processes) -> None:
    sender = processes.start_sender()
    for way in ("websocket", "sse", "stomp", "poll"):
        watcher = Watcher(sender.url, {}, way=way)
        with pytest.raises(WatchRefused, match=r"is a sender; --gateway takes a gateway's address"):
            asyncio.run(watcher.run(lambda: "ey.a.b"))


@pytest.mark.parametrize("way", ["websocket", "stomp"])
def test_ctrl_c_closes_normally(processes: Processes, watch: Watch, way: str) -> None:
    processes.start_sender()
    watching = watch(processes.start_receiver(), "--transport", way, "--handshake")
    watching.wait_connected()
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(5) == 0
    assert "> CLOSE 1000" in watching.says


def test_unknown_way_is_one_line_and_exit_code_2(processes: Processes, watch: Watch) -> None:
    processes.start_sender()
    watching = watch(processes.start_receiver(), "--transport", "carrier-pigeon")
    assert watching.process.wait(20) == 2
    assert "'websocket', 'sse', 'stomp', 'poll'" in watching.says


def test_gateway_that_is_not_there_yet_is_waited_for(processes: Processes, watch: Watch) -> None:
    processes.start_sender()
    gateway = processes.start_receiver()
    gateway.kill()
    watching = watch(gateway)
    wait_until(lambda: "cannot connect" in watching.says)
    with socket.create_server(("127.0.0.1", gateway.port)) as listening:
        for _ in range(4):
            listening.accept()[0].close()
    gateway.start()
    watching.wait_connected()
    # Of five tries or more: one line that nothing listens, one that nothing answers.
    assert watching.says.count("cannot connect") == 2, watching.says


@pytest.mark.parametrize(
    ("gateway", "settings", "line"),
    [
        ("http://127.0.0.1:9", {}, "orderbell: set exactly one of ORDERBELL_JWT_SECRET and"),
        (
            "http://127.0.0.1:9",
            {"jwt_secret": "short"},
            "orderbell: ORDERBELL_JWT_SECRET: needs at least 32 bytes",
        ),
        ("http://127.0.0.1:9", {"jwt_secret": "s" * 32, "redis_urll": "x"}, "no such setting"),
        ("http://127.0.0.1:9", {"jwks_url": "https://id.example/keys"}, "get one from their issuer"),
        ("http://127.0.0.1:99999", {"jwt_secret": "s" * 32}, "is not a gateway's URL"),
        ("nonsense", {"jwt_secret": "s" * 32}, "is not a gateway's URL"),
    ],
)
def test_what_is_wrong_from_the_start_is_one_line(
    tmp_path: Path, gateway: str, settings: dict[str, str], line: str
) -> None:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
    command = ("shared.commands.cli", "watch", "alice", "--gateway", gateway)
    done = commands.run(*command, environment=environment, directory=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert line in done.stderr.splitlines()[-1]


def test_what_springs_pages_get_is_printed_with_its_place(processes: Processes, watch: Watch) -> None:
    sender = processes.start_sender(spring_compat="1")
    gateway = processes.start_receiver(spring_compat="1")
    for text in ("Hello", "Hello again"):
        answer = httpx2.post(
            f"{sender.url}/submit", content=text, headers={"Content-Type": "text/plain"}, trust_env=False
        )
        assert answer.status_code == 200
    greeting = {
        "specversion": "1.0",
        "id": "1",
        "source": "/greeter",
        "type": "greeting",
        "channel": "topic:greetings",
        "data": {"content": "Hello!"},
    }
    headers = processes.api_headers | {"Content-Type": "application/cloudevents+json"}
    httpx2.post(f"{sender.url}/events", json=greeting, headers=headers, trust_env=False).raise_for_status()
    topics = ["--topic", "messages", "--topic", "greetings"]
    after = ["--after", "topic:messages=1.1,topic:greetings=1.0"]
    watching = watch(gateway, "--transport", "stomp", *topics, *after)
    wait_until(lambda: len(watching.events) == 2)
    found = {one["channel"]: (one["epoch"], one["seq"], one["data"]) for one in watching.events}
    assert found == {
        "topic:messages": (1, 2, "Received message: Hello again"),
        "topic:greetings": (1, 1, {"content": "Hello!"}),
    }


def test_proxies_of_the_environment_are_not_for_it(
    processes: Processes, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9" if name == "ALL_PROXY" else "http://127.0.0.1:9")
    processes.start_sender()
    gateway = processes.start_receiver()
    gateway.url = gateway.url.replace("127.0.0.1", "127.1")  # the same, and no name that is known as loopback
    watching = watch(gateway)
    watching.wait_connected()
