"""A service that gets SIGTERM ends in time, whatever it waits for; otherwise its supervisor would kill it."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.chaos.proxy import Toxics
from tests.large_databases import make_tables
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.proxy import Proxy
    from tests.processes import Processes, ReceiverProcess, SenderProcess, ServiceProcess

pytestmark = pytest.mark.long

# We promise 5; the machine is busy with our own flood here.
SENDER_SECONDS = 10.0
GATEWAY_SECONDS = 10.0  # with a drain of 0.2
BLACK_HOLE = Toxics(black_hole=True)


def seconds_to_end(service: ServiceProcess) -> float:
    """Seconds from SIGTERM until the service has ended, by itself and with exit code 0."""
    began = time.monotonic()
    assert service.terminate(timeout=30) == 0, service.text()
    return time.monotonic() - began


@contextlib.contextmanager
def threads(count: int, run: Callable[[threading.Event], None]) -> Iterator[None]:
    """`count` threads, each of which runs until the event is set."""
    over = threading.Event()
    running = [threading.Thread(target=run, args=(over,), daemon=True) for _ in range(count)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in running:
            thread.join(10)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def slow_database(
    request: pytest.FixtureRequest, processes: Processes, proxy: Proxy, key_prefix: str
) -> Iterator[tuple[str, Callable[[], contextlib.AbstractContextManager[None]]]]:
    """A database's URL, and what makes it silent: a lock that another program holds, or a dead network."""
    if request.param == "sqlite":
        path = processes.database_url.removeprefix("sqlite:///")

        @contextlib.contextmanager
        def locked() -> Iterator[None]:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as other:
                other.execute("BEGIN IMMEDIATE")
                yield
                other.rollback()

        yield processes.database_url, locked
        return
    url: str = request.getfixturevalue("postgres_database_url")
    make_tables(url)
    edge = f"{key_prefix}:postgres"
    scheme, _, rest = url.partition("@127.0.0.1:")
    port, _, name = rest.partition("/")

    @contextlib.contextmanager
    def silent() -> Iterator[None]:
        proxy.change(edge, up=BLACK_HOLE, down=BLACK_HOLE)
        yield
        proxy.heal(edge)

    yield f"{scheme}@127.0.0.1:{proxy.open(edge, int(port))}/{name}", silent


def order(sender: SenderProcess, processes: Processes, over: threading.Event) -> None:
    """Place orders, each on a connection of its own, until `over` is set."""
    number = 0
    while not over.is_set():
        number += 1
        body = b'{"order_id":"%d-%d","customer_id":"alice"}' % (threading.get_ident(), number)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", sender.port), 2) as caller:
            caller.settimeout(2)
            caller.sendall(
                b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
                % (processes.api_key.encode(), len(body), body)
            )
            caller.recv(1000)


def test_sender_ends_under_a_flood_of_callers_while_its_database_is_silent(
    processes: Processes, slow_database: tuple[str, Callable[[], contextlib.AbstractContextManager[None]]]
) -> None:
    url, silence = slow_database
    sender = processes.start_sender(database_url=url)
    with threads(60, lambda over: order(sender, processes, over)):
        with silence():
            time.sleep(1.0)  # requests wait by then
            took = seconds_to_end(sender)
    print(f"{took:.1f} s")
    assert took < SENDER_SECONDS


def test_sender_ends_while_redis_does_not_answer_its_relay(
    processes: Processes, proxy: Proxy, key_prefix: str
) -> None:
    edge = f"{key_prefix}:redis"
    redis_port = int(processes.redis_url.rpartition(":")[2].partition("/")[0])
    redis_url = f"redis://127.0.0.1:{proxy.open(edge, redis_port)}/0"
    sender = processes.start_sender(redis_url=redis_url)
    with httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as caller:
        caller.post("/orders", json={"order_id": "1", "customer_id": "alice"})
        proxy.change(edge, down=BLACK_HOLE)  # it takes the command and does not answer
        assert caller.post("/orders/1/complete").status_code == 200
        time.sleep(0.2)  # the relay has sent it by then
        took = seconds_to_end(sender)
    proxy.heal(edge)
    print(f"{took:.1f} s")
    assert took < SENDER_SECONDS


def test_sender_ends_while_back_offices_watch_and_do_not_read(processes: Processes) -> None:
    sender = processes.start_sender()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            office = stack.enter_context(socket.socket())
            office.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            office.connect(("127.0.0.1", sender.port))
            office.sendall(
                b"GET /orders/changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
                % processes.api_key.encode()
            )
            assert office.recv(12) == b"HTTP/1.1 200"
        with httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as caller:
            for n in range(100):
                data = {"message": "m" * 4000}
                caller.post("/orders", json={"order_id": str(n), "customer_id": "alice", "data": data})
        took = seconds_to_end(sender)
    print(f"{took:.1f} s")
    assert took < SENDER_SECONDS


def trickle(port: int, head: bytes, over: threading.Event) -> None:
    """A request whose body comes a byte at a time and never ends."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as caller:
        caller.sendall(head + b"Content-Length: 100000\r\n\r\n")
        while not over.wait(0.05):
            caller.sendall(b" ")


def test_sender_ends_while_bodies_trickle(processes: Processes) -> None:
    sender = processes.start_sender()
    head = (
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\n" % processes.api_key.encode()
    )
    with threads(20, lambda over: trickle(sender.port, head, over)):
        time.sleep(0.3)  # bodies are under way
        took = seconds_to_end(sender)
    print(f"{took:.1f} s")
    assert took < SENDER_SECONDS


def knock(gateway: ReceiverProcess, head: bytes, over: threading.Event) -> None:
    """Open event streams, each on a connection of its own, and keep the last ones open."""
    with contextlib.ExitStack() as stack:
        while not over.wait(0.02):
            with contextlib.suppress(OSError):
                client = socket.create_connection(("127.0.0.1", gateway.port), 2)
                stack.callback(client.close)
                client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n" + head)


def test_gateway_ends_under_a_flood_of_clients_while_redis_and_its_sender_are_silent(
    processes: Processes, proxy: Proxy, key_prefix: str
) -> None:
    sender = processes.start_sender()
    redis_port = int(processes.redis_url.rpartition(":")[2].partition("/")[0])
    edges = {f"{key_prefix}:redis": redis_port, f"{key_prefix}:sender": sender.port}
    ports = [proxy.open(edge, port) for edge, port in edges.items()]
    gateway = processes.start_receiver(
        redis_url=f"redis://127.0.0.1:{ports[0]}/0", sender_url=f"http://127.0.0.1:{ports[1]}"
    )
    head = f"Authorization: Bearer {processes.token('alice')}\r\n\r\n".encode()
    with threads(20, lambda over: knock(gateway, head, over)):
        wait_until(lambda: gateway.answers("/livez"))
        time.sleep(0.5)  # streams are open
        for edge in edges:
            proxy.change(edge, up=BLACK_HOLE, down=BLACK_HOLE)
        time.sleep(0.5)  # and others ask for what they have missed
        took = seconds_to_end(gateway)
    for edge in edges:
        proxy.heal(edge)
    print(f"{took:.1f} s")
    assert took < GATEWAY_SECONDS


def test_gateway_ends_while_the_shops_hook_does_not_answer(processes: Processes) -> None:
    processes.start_sender()
    gateway = processes.start_receiver(admit="tests.admission_hooks:by_header_async")
    token = processes.token("alice")
    head = f"Authorization: Bearer {token}\r\nX-How: hang\r\n\r\n".encode()
    with threads(5, lambda over: knock(gateway, head, over)):
        time.sleep(0.5)  # handshakes wait for it
        took = seconds_to_end(gateway)
    print(f"{took:.1f} s")
    assert took < GATEWAY_SECONDS
