"""Orderbell as a browser meets it: one sender, two gateways, and a balancer in front of those."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import httpx2

from shared.commands.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.processes import Processes, ReceiverProcess, SenderProcess


@dataclass(frozen=True)
class Services:
    sender: SenderProcess
    gateways: list[ReceiverProcess]
    api: httpx2.Client  # of the sender, with its key
    customer: str = "alice"  # the customer for orders that name none

    @property
    def shop(self) -> str:
        """The shop, connected to the first gateway."""
        return f"{self.gateways[0].url}/"

    @property
    def shop_on_second_gateway(self) -> str:
        """A page of the same origin, connected to the second."""
        return f"{self.shop}?gateway={self.gateways[1].port}"

    @property
    def back_office(self) -> str:
        return f"{self.sender.url}/"

    def order_id(self, number: str) -> str:
        """An order id of this test, because tests share a database."""
        return number if self.customer == "alice" else f"{self.customer}-{number}"

    def place(self, number: str, customer: str = "", **data: str) -> None:
        order = {
            "order_id": self.order_id(number),
            "customer_id": customer or self.customer,
            "data": {"message": f"Order {number} is complete", **data},
        }
        self.api.post("/orders", json=order).raise_for_status()

    def complete(self, number: str, **data: str) -> None:
        path = f"/orders/{self.order_id(number)}/complete"
        self.api.post(path, json={"data": data}).raise_for_status()

    def resend(self, number: str) -> str:
        """The cursor of what was sent again."""
        answer = self.api.post("/resends", json={"order_id": self.order_id(number)}).raise_for_status()
        return str(answer.json()["cursor"])

    def cancel(self, number: str) -> None:
        self.api.post(f"/orders/{self.order_id(number)}/cancel").raise_for_status()

    def place_and_complete(self, number: str, customer: str = "", **data: str) -> None:
        self.place(number, customer, **data)
        self.complete(number)


@contextlib.contextmanager
def running(
    processes: Processes,
    *,
    development: bool = True,
    gateways: int = 2,
    ports: Sequence[int] = (),
    **settings: str,
) -> Iterator[Services]:
    """`ports`: the sender's and its gateways', else free ones. `settings` are the sender's."""
    mode = "1" if development else "0"
    sender_port, *ports = ports or [free_port() for _ in range(1 + gateways)]
    origins = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    sender = processes.start_sender(port=sender_port, development=mode, wait_ready=False, **settings)
    receivers = [
        processes.start_receiver(port=port, development=mode, allowed_origins=origins, wait_ready=False)
        for port in ports
    ]
    for process in (sender, *receivers):
        process.wait_ready()
    with httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as api:
        yield Services(sender, receivers, api)


class Balancer:
    """Passes bytes to the first of its ports that answers: one origin for several gateways, like a proxy."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports  # tried in this order; may be changed at any time
        self.swallows = False  # passes nothing on, and ends nothing
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def cut(self) -> None:
        """Cut all connections through it; with empty `ports`, no new ones get through."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                browser, _ = self._listener.accept()
            except OSError:
                return
            gateway = self._connect()
            if gateway is None:
                browser.close()
                continue
            self._open |= {browser, gateway}
            for one, other in ((browser, gateway), (gateway, browser)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        for port in self.ports:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port))
        return None

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        """Until one side ends, however; then both do."""
        with source, target:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if not self.swallows:
                        target.sendall(data)
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(
                        socket.SHUT_RDWR
                    )  # closing alone wouldn't wake the thread that reads from it
        self._open -= {source, target}
