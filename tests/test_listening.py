"""Sockets that share a port: which may join, and how connections are spread over them."""

from __future__ import annotations

import contextlib
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shared.process.listening import (
    USER_TIMEOUT_MS,
    join,
    listen,
    listen_together,
    listen_unix,
    listening_on,
    url_of,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.processes import Processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one socket would get them all")

HOST = "127.0.0.1"


@contextlib.contextmanager
def together(count: int, port: int = 0) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(listening) for listening in listen_together(HOST, port, count)]


@contextlib.contextmanager
def crowd(listening: socket.socket, count: int) -> Iterator[None]:
    """So many connections, none of them accepted."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        yield


def queue_lengths(sockets: Sequence[socket.socket]) -> list[int]:
    return [_accept_all(listening) for listening in sockets]


def _accept_all(listening: socket.socket) -> int:
    listening.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


def test_connections_are_spread_evenly_over_all_sockets_of_a_port() -> None:
    with together(4) as sockets, crowd(sockets[0], 400):
        lengths = queue_lengths(sockets)
    assert sum(lengths) == 400
    assert all(60 < length < 140 for length in lengths), lengths  # 100 ± 4.6 standard deviations


def test_one_that_has_left_gets_none_and_one_that_joins_gets_its_share() -> None:
    with together(2) as (stays, leaves):
        leaves.close()
        with crowd(stays, 40):
            assert queue_lengths([stays]) == [40]
        with join(stays.getsockname()) as joins, crowd(stays, 100):
            lengths = queue_lengths([stays, joins])
        assert sum(lengths) == 100
        assert min(lengths) > 20, lengths


def test_port_is_not_quietly_shared_with_another_of_our_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with together(2) as (one, _):
        port = one.getsockname()[1]
        for listens in (lambda: listen(HOST, port), lambda: listen_together(HOST, port, 2)):
            with pytest.raises(SystemExit) as ended:
                listens()
            assert ended.value.code == 2
            line = f"orderbell: cannot listen on {HOST} port {port}: the port is in use\n"
            assert capsys.readouterr().err == line


def test_nobody_joins_a_socket_that_is_alone() -> None:
    with listen(HOST, 0) as alone, pytest.raises(OSError, match="in use"):
        join(alone.getsockname())


def test_all_have_the_port_that_the_first_was_given() -> None:
    with together(3) as sockets:
        assert len({url_of(listening) for listening in sockets}) == 1


def test_accepted_connections_inherit_the_deadline_for_what_is_not_acknowledged() -> None:
    with listen("127.0.0.1", 0) as listening:
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            option = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert option == USER_TIMEOUT_MS


# Unix sockets.


def test_socket_that_an_earlier_process_left_is_replaced_and_goes_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with listen_unix(str(path)):
        pass  # closed, and its file left, as after kill -9
    with listening_on("", 0, str(path)) as listening:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert url_of(listening) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("orders"), "a file there is not a socket"),
        (lambda path: path.mkdir(), "a file there is not a socket"),
    ],
)
def test_file_of_somebody_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], why: str
) -> None:
    path = tmp_path / "gateway.sock"
    make(path)
    with pytest.raises(SystemExit) as ended:
        listen_unix(str(path))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"orderbell: cannot listen on {path}: {why}\n"
    assert path.exists()


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_socket_of_a_running_process_is_not_taken_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "gateway.sock")
    with listen_unix(path), pytest.raises(SystemExit):
        listen_unix(path)
    assert "another process listens there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        listen_unix(str(tmp_path / "nowhere" / "gateway.sock"))
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("service", ["sender", pytest.param("receiver", marks=pytest.mark.long)])
def test_services_listen_on_a_unix_socket(processes: Processes, tmp_path: Path, service: str) -> None:
    settings = processes.start_sender().environment
    path = tmp_path / "orderbell.sock"
    environment = {**settings, "ORDERBELL_JWT_SECRET": processes.jwt_secret}
    process = subprocess.Popen([sys.executable, "-m", service, "--uds", str(path)], env=environment)
    try:
        wait_until(lambda: accepts(path))  # the file exists a moment before the socket listens
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n")
            answer = client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"strict-transport-security" in answer  # a proxy on this machine is trusted
        process.terminate()
        assert process.wait(20) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_port_beyond_all_ports_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        listen(HOST, 99_999)
    assert ended.value.code == 2
    assert "a port is a number up to 65535" in capsys.readouterr().err
