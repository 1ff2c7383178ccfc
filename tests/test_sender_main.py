"""`python -m sender` as a process: how it starts, how it ends, and how it is killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from redis import Redis

from shared.redis.keys import Names
from tests import commands
from tests.processes import clean_environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Processes, SenderProcess

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def client(processes: Processes) -> Iterator[httpx2.Client]:
    with httpx2.Client(headers=processes.api_headers, trust_env=False, timeout=10) as client:
        yield client


def complete(client: httpx2.Client, sender: SenderProcess, order_id: str, customer_id: str = "alice") -> Any:
    order = {"order_id": order_id, "customer_id": customer_id}
    assert client.post(f"{sender.url}/orders", json=order).status_code in (200, 201)
    answer = client.post(f"{sender.url}/orders/{order_id}/complete")
    assert answer.status_code == 200, answer.text
    return answer.json()["event"]


def log(redis_url: str, key_prefix: str, channel: str = "customer:alice") -> list[dict[str, Any]]:
    with Redis.from_url(redis_url) as redis:
        entries: Any = redis.xrange(f"{key_prefix}:log:{{{channel}}}")
    return [json.loads(fields[b"e"]) for _, fields in entries]


def test_names_of_keys_are_those_of_the_contract() -> None:
    assert Names("ob").log("customer:alice") == "ob:log:{customer:alice}"  # type: ignore[arg-type]


def test_completed_order_is_in_redis_soon(processes: Processes, client: httpx2.Client) -> None:
    sender = processes.start_sender()
    event = complete(client, sender, "1042")
    wait_until(lambda: log(processes.redis_url, processes.key_prefix) == [event])


def test_order_completes_at_once_while_redis_is_down_and_is_published_when_it_is_back(
    processes: Processes, client: httpx2.Client, redis_server: EmbeddedServer
) -> None:
    sender = processes.start_sender(redis_url=redis_server.url)
    first = complete(client, sender, "1")
    wait_until(lambda: log(redis_server.url, processes.key_prefix) == [first])
    redis_server.kill()
    started = time.monotonic()
    second = complete(client, sender, "2")
    assert time.monotonic() - started < 5  # and not when Redis is back
    ready = client.get(f"{sender.url}/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    redis_server.start()
    wait_until(lambda: log(redis_server.url, processes.key_prefix) == [first, second])


def test_what_was_answered_before_kill_9_is_published_once_after_the_restart(
    processes: Processes, client: httpx2.Client
) -> None:
    sender = processes.start_sender(redis_url=NOWHERE)  # so that nothing but the commit can have happened
    event = complete(client, sender, "1042")
    sender.kill()
    assert log(processes.redis_url, processes.key_prefix) == []
    sender.environment["ORDERBELL_REDIS_URL"] = processes.redis_url
    sender.start()
    wait_until(lambda: log(processes.redis_url, processes.key_prefix) == [event])
    again = client.post(f"{sender.url}/orders/1042/complete")
    assert again.json()["event"] == event
    other = complete(client, sender, "1043")
    wait_until(lambda: log(processes.redis_url, processes.key_prefix) == [event, other])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_kill_9_in_the_middle_of_many_callers_loses_and_doubles_nothing(
    processes: Processes, seed: int
) -> None:
    """Everything that was answered is kept; everything else may exist, and is consistent."""
    sender = processes.start_sender()
    answered: list[dict[str, Any]] = []
    enough = threading.Event()

    def caller(number: int) -> None:
        with httpx2.Client(headers=processes.api_headers, trust_env=False, timeout=10) as client:
            for turn in range(1000):
                try:
                    answered.append(complete(client, sender, f"{number}-{turn}", f"c{turn % 3}"))
                except httpx2.TransportError:
                    return
                if len(answered) > 20 + 15 * seed:
                    enough.set()

    with ThreadPoolExecutor() as pool:
        callers = [pool.submit(caller, number) for number in range(6)]
        assert enough.wait(20)
        sender.kill()
        for running in callers:
            running.result()
    sender.start()
    channels = [f"customer:c{number}" for number in range(3)]
    with httpx2.Client(headers=processes.api_headers, trust_env=False, timeout=10) as client:
        stored = {channel: events_of(client, sender, channel) for channel in channels}
    for channel, events in stored.items():
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert len({event["subject"] for event in events}) == len(events)
        wait_until(lambda c=channel, e=events: log(processes.redis_url, processes.key_prefix, c) == e)  # type: ignore[misc]
    for event in answered:
        assert stored[event["channel"]][event["seq"] - 1] == event


def events_of(client: httpx2.Client, sender: SenderProcess, channel: str) -> list[dict[str, Any]]:
    answer = client.get(f"{sender.url}/channels/{channel}/events", params={"limit": 1000})
    events: list[dict[str, Any]] = answer.json()["events"]
    return events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly_after_what_is_under_way(processes: Processes, number: signal.Signals) -> None:
    sender = processes.start_sender()
    body = b'{"order_id": "1042", "customer_id": "alice"}'
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {processes.api_key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", sender.port)) as connection:
        connection.sendall(head.encode() + body[:10])
        wait_until(lambda: sender.answers("/livez"))
        os.kill(sender.pid, number)
        wait_until(lambda: not sender.answers("/livez"))
        connection.sendall(body[10:])
        assert connection.recv(100).startswith(b"HTTP/1.1 201")
    assert sender.process.wait(5) == 0


def test_hanging_caller_does_not_keep_it_longer_than_five_seconds(processes: Processes) -> None:
    sender = processes.start_sender(redis_url=NOWHERE)
    with socket.create_connection(("127.0.0.1", sender.port)) as connection:
        connection.sendall(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")
        connection.sendall(f"Authorization: Bearer {processes.api_key}\r\n".encode())
        connection.sendall(b"Content-Type: application/json\r\n\r\n{")
        wait_until(lambda: sender.answers("/livez"))
        started = time.monotonic()
        assert sender.terminate() == 0
        assert time.monotonic() - started < 5


def test_what_is_committed_at_the_end_is_published_before_it(
    processes: Processes, client: httpx2.Client
) -> None:
    sender = processes.start_sender()
    events = [complete(client, sender, str(number)) for number in range(20)]
    assert sender.terminate() == 0
    assert log(processes.redis_url, processes.key_prefix) == events


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {f"ORDERBELL_{name.upper()}": v for name, v in settings.items()}
    return commands.run("sender", *arguments, environment=environment)


def test_port_in_use_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("--port", port, api_keys="a-key-for-tests-only", database_url="sqlite:////nowhere/o.db")
    assert ended.returncode == 2
    assert ended.stderr == f"orderbell: cannot listen on 127.0.0.1 port {port}: the port is in use\n"


@pytest.mark.parametrize(
    ("database_url", "reason"),
    [
        ("sqlite:////nowhere/o.db", "unable to open database file"),
        (
            "postgresql+asyncpg://nobody:a-password@127.0.0.1:1/orderbell",
            "PostgreSQL does not answer",
        ),
    ],
)
def test_database_that_cannot_be_used_is_one_line_and_exit_code_2(database_url: str, reason: str) -> None:
    ended = run("--port", "0", api_keys="a-key-for-tests-only", database_url=database_url)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"orderbell: ORDERBELL_DATABASE_URL: {reason}")
    assert ended.stderr.count("\n") == 1
    assert "a-password" not in ended.stderr


def test_file_overwritten_with_garbage_ends_it_with_one_line(
    processes: Processes, client: httpx2.Client, tmp_path: Path
) -> None:
    sender = processes.start_sender(database_url=f"sqlite:///{tmp_path}/garbage.db")
    for suffix in ("", "-wal"):
        with (tmp_path / f"garbage.db{suffix}").open("r+b") as file:
            file.write(b"garbage!" * 4096)
    order_ids = itertools.count()

    def ended() -> bool:
        """What SQLite has in memory hides the damage from the first requests."""
        with contextlib.suppress(httpx2.HTTPError):  # an answer, or none any more
            order = {"order_id": str(next(order_ids)), "customer_id": "alice"}
            client.post(f"{sender.url}/orders", json=order)
        return sender.process.poll() is not None

    wait_until(ended)
    assert sender.process.wait(15) == 2
    assert "orderbell: ORDERBELL_DATABASE_URL: the file is damaged" in sender.text()
    assert "Traceback" not in sender.text()


def test_development_mode_stays_on_loopback() -> None:
    ended = run("--host", "0.0.0.0", "--port", "0", api_keys="a-key-for-tests-only", development="1")
    assert (ended.returncode, ended.stdout) == (2, "")


def test_one_line_says_where_it_listens_and_nothing_secret_is_logged(
    processes: Processes, client: httpx2.Client
) -> None:
    sender = processes.start_sender(log_level="DEBUG")
    order = {"order_id": "1", "customer_id": "alice", "data": {"message": "a-canary"}}
    client.post(f"{sender.url}/orders", json=order)
    client.post(f"{sender.url}/orders/1/complete")
    client.post(f"{sender.url}/orders", content=b"a-canary", headers={"Authorization": "Bearer a-canary"})
    assert sender.terminate() == 0
    (listening,) = sender.records("listening")
    assert (listening["url"], listening["service"]) == (sender.url, "sender")
    assert "a-canary" not in sender.text()
    assert processes.api_key not in sender.text()
