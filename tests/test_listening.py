"""Sockets that share a port: who may join, and how connections are spread over them."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from shared.process.listening import USER_TIMEOUT_MS, join, listen, listen_together, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one socket would get them all")

HOST = "127.0.0.1"


@contextlib.contextmanager
def together(count: int, port: int = 0) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(listening) for listening in listen_together(HOST, port, count)]


@contextlib.contextmanager
def crowd(listening: socket.socket, count: int) -> Iterator[None]:
    """So many connections, which nobody has accepted."""
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
