"""`/metrics` at an address of its own: only there, and nothing else there."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.commands.embedded import free_port
from shared.process.listening import split_address

if TYPE_CHECKING:
    from tests.processes import Processes, ServiceProcess


@pytest.fixture(scope="module")
def services(module_processes: Processes) -> dict[str, tuple[ServiceProcess, int]]:
    ports = [free_port(), free_port()]
    sender = module_processes.start_sender(metrics_listen=f"127.0.0.1:{ports[0]}")
    gateway = module_processes.start_receiver(metrics_listen=f"127.0.0.1:{ports[1]}")
    return {"sender": (sender, ports[0]), "receiver": (gateway, ports[1])}


def get(url: str) -> httpx2.Response:
    return httpx2.get(url, trust_env=False)


@pytest.mark.parametrize("name", ["sender", "receiver"])
def test_metrics_are_at_their_own_address_alone_and_nothing_else_is_there(
    services: dict[str, tuple[ServiceProcess, int]], name: str
) -> None:
    service, port = services[name]
    assert get(f"{service.url}/metrics").status_code == 404
    answer = get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    assert "orderbell_requests_refused_total" in answer.text
    for path in ("/", "/livez", "/orders", "/metrics/x", "//metrics"):
        assert get(f"http://127.0.0.1:{port}{path}").status_code == 404


@pytest.mark.parametrize("name", ["sender", "receiver"])
def test_an_endless_head_is_ended_and_the_next_request_served(
    services: dict[str, tuple[ServiceProcess, int]], name: str
) -> None:
    _, port = services[name]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as endless:
        endless.sendall(b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 4_000)
        with contextlib.suppress(ConnectionResetError):  # it may be refused while it still sends
            assert endless.recv(100) == b""
    assert get(f"http://127.0.0.1:{port}/metrics").status_code == 200


@pytest.mark.parametrize("text", ["", "9100", ":9100", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "a:b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an address and a port"):
        split_address(text)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert split_address("[::1]:9100") == ("::1", 9100)
