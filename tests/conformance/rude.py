"""Clients that keep to no protocol; each turn of one is drawn from a seed.

    python -m tests.conformance.rude --turns 5000 --seed 7 8091 TOKEN …

A turn opens up to three sockets of one transport and of one session, sends what may and what must not come
there (whole frames, halves, several in one packet, a close in their midst, a second request before the
answer), and ends each at any moment in any way: politely, with one side only, or by a reset.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import uuid
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AT_ONCE = 16
READ_SECONDS = 0.5  # for an answer that may never come
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what waits is discarded, and the other side gets a RST
_MASK = bytes(4)  # of zeros, which masks nothing

ORDERS = "/user/queue/orders"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's WebSocket frame."""
    first = bytes([(0x80 if final else 0) | opcode])
    size = len(payload)
    if size < 126:
        return first + bytes([0x80 | size]) + _MASK + payload
    if size < 65536:
        return first + b"\xfe" + size.to_bytes(2, "big") + _MASK + payload
    return first + b"\xff" + size.to_bytes(8, "big") + _MASK + payload


def text(message: str) -> bytes:
    return frame(1, message.encode())


class Turn:
    """`packets` of a transport are drawn here; `play` sends them."""

    def __init__(self, seed: str, port: int, tokens: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.port = port
        self.token = self.random.choice(tokens)
        self.session = uuid.UUID(int=self.random.getrandbits(128)).hex

    # Requests.

    def request(self, method: str, target: str, *headers: str, body: str = "") -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *headers]
        if self.random.random() < 0.9:
            lines.append(f"Authorization: Bearer {self.token}")
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body.encode())}")
        return "\r\n".join([*lines, "", body]).encode()

    def upgrade(self, target: str, subprotocol: str = "") -> bytes:
        headers = [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
        ]
        if subprotocol:
            headers.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        return self.request("GET", target, *headers)

    def some(self, of: Sequence[Callable[[], bytes]], most: int) -> list[bytes]:
        return [self.random.choice(of)() for _ in range(self.random.randint(0, most))]

    def ends(self) -> bytes:
        """A close frame, valid or not."""
        return frame(
            8, self.random.choice([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03", b"\x00\x01", b"\xff" * 125])
        )

    def after(self) -> str:
        return self.random.choice(
            ["", "", "after=1", "after=customer:rude-0=1.0", "after=topic:news=1.999999"]
        )

    # What clients of each transport send, packet by packet.

    def websocket(self) -> list[bytes]:
        messages = [
            {"type": "orderbell.seen", "data": {"cursor": "customer:rude-0=1.1"}},
            {"type": "orderbell.seen", "data": {"cursor": "customer:rude-0=9.9+1-3"}},
            {"type": "orderbell.read", "data": {"all": True}},
            {"type": "orderbell.read", "data": {"ids": ["x"] * 50}},
            {"type": "orderbell.ping", "data": {}},
            {"type": "orderbell.auth", "data": {"token": self.token}},
            {"type": "orderbell.auth", "data": {"ticket": "none"}},
            {"type": "orderbell.none"},
        ]
        kinds: list[Callable[[], bytes]] = [
            lambda: text(json.dumps(self.random.choice(messages))),
            lambda: text("{"),
            lambda: frame(9, b"x" * self.random.choice([0, 5, 125])),
            lambda: frame(10),
            lambda: frame(2, b"\0"),
            lambda: frame(1, b"\xff\xfe"),
            lambda: frame(1, b'{"type":', final=False),
            lambda: frame(0, b'"orderbell.ping"}'),
            lambda: frame(1, b"x" * 20_000),
            lambda: self.random.randbytes(self.random.randint(1, 40)),
            self.ends,
        ]
        return [self.upgrade(f"/events?{self.after()}", "cloudevents.json"), *self.some(kinds, 8)]

    def stomp_frames(self) -> list[Callable[[], str]]:
        connect = f"CONNECT\naccept-version:1.2,1.1\nheart-beat:0,0\npasscode:{self.token}\n\n\0"
        destinations = [ORDERS, "/topic/news", "/topic/none", "/user/queue/notices"]

        def subscribe() -> str:
            headers = {
                "id": str(self.random.randint(0, 2)),
                "ack": self.random.choice(["auto", "client", "x"]),
                "destination": self.random.choice(destinations),
                "receipt": "r",
                "after": self.random.choice(["1.1", "9.9", "0.1", "customer:rude-0=1.0", "x", ""]),
            }
            lines = [f"{name}:{value}" for name, value in headers.items()]
            return "\n".join(["SUBSCRIBE", *lines, "", "\0"])

        return [
            lambda: connect,
            lambda: connect,
            lambda: "CONNECT\naccept-version:3.0\n\n\0",
            lambda: "CONNECT\naccept-version:1.2\npasscode:a.b.c\n\n\0",
            subscribe,
            lambda: f"UNSUBSCRIBE\nid:{self.random.randint(0, 2)}\nreceipt:u\n\n\0",
            lambda: f"ACK\nid:{self.random.choice(['1-1.1', '1-9.9', '7-1.1', 'x'])}\n\n\0",
            lambda: "NACK\nid:1-1.1\nreceipt:n\n\0",
            lambda: "SEND\ndestination:/app/hello\ncontent-length:2\n\n{}\0",
            lambda: "BEGIN\ntransaction:t\n\n\0",
            lambda: "DISCONNECT\nreceipt:bye\n\n\0",
            lambda: "\n",
            lambda: "\r",
            lambda: "SUBSCRIBE\nid",
            lambda: "\0",
        ]

    def stomp(self) -> list[bytes]:
        kinds = self.stomp_frames()
        messages: list[Callable[[], bytes]] = [
            lambda: text(self.random.choice(kinds)()),
            lambda: text("".join(self.random.choice(kinds)() for _ in range(4))),
            lambda: text(self.random.choice(kinds)() * 250),
            lambda: frame(1, self.random.choice(kinds)().encode(), final=False),
            self.ends,
        ]
        first = [text(kinds[0]())] if self.random.random() < 0.8 else []
        path = self.random.choice(["/stomp", "/websocket", "/gs-guide-websocket/websocket"])
        return [self.upgrade(path, self.random.choice(["", "v12.stomp"])), *first, *self.some(messages, 8)]

    def sockjs(self) -> list[bytes]:
        kinds = self.stomp_frames()
        messages: list[Callable[[], bytes]] = [
            lambda: text(json.dumps([self.random.choice(kinds)()])),
            lambda: text(json.dumps([self.random.choice(kinds)() for _ in range(3)])),
            lambda: text(json.dumps(self.random.choice(kinds)())),
            lambda: text(self.random.choice(["[]", "", '["', "[1]", "{}", '["\\ud800"]'])),
            self.ends,
        ]
        first = [text(json.dumps([kinds[0]()]))] if self.random.random() < 0.8 else []
        return [self.upgrade(f"/websocket/000/{self.session}/websocket"), *first, *self.some(messages, 8)]

    def xhr(self) -> list[bytes]:
        kinds, base = self.stomp_frames(), f"/websocket/000/{self.session}"

        def send(body: str) -> bytes:
            return self.request("POST", f"{base}/xhr_send", body=body)

        requests: list[Callable[[], bytes]] = [
            lambda: self.request("POST", f"{base}/xhr"),
            lambda: self.request("POST", f"{base}/xhr_streaming"),
            lambda: self.request("GET", f"{base}/xhr"),
            lambda: self.request("OPTIONS", f"{base}/xhr"),
            lambda: send(json.dumps([kinds[0]()])),
            lambda: send(json.dumps([self.random.choice(kinds)() for _ in range(3)])),
            lambda: send(json.dumps([self.random.choice(kinds)() * 250])),
            lambda: send(self.random.choice(["[]", "", '["', "[1]", "{}", '["\\ud800"]'])),
            lambda: self.request("POST", f"{base}/xhr")[: -self.random.randint(1, 60)],
        ]
        return self.some(requests, 5)

    def sse(self) -> list[bytes]:
        def ask() -> bytes:
            headers = ["Accept: text/event-stream"]
            if self.random.random() < 0.3:
                headers.append("Last-Event-ID: " + self.random.choice(["customer:rude-0=1.1", "x", "\xe9"]))
            return self.request(
                self.random.choice(["GET", "GET", "HEAD"]), f"/events?{self.after()}", *headers
            )

        more: list[Callable[[], bytes]] = [
            ask,
            lambda: b"x" * self.random.choice([1, 1000, 20_000]),
            lambda: ask()[: -self.random.randint(1, 60)],
        ]
        return [ask(), *self.some(more, 3)]

    def polling(self) -> list[bytes]:
        def ask() -> bytes:
            session = f"&session={self.session}" if self.random.random() < 0.8 else ""
            wait = self.random.choice(["0", "0", "1", "25", "x"])
            return self.request("GET", f"/events?wait={wait}{session}&{self.after()}")

        requests: list[Callable[[], bytes]] = [
            ask,
            ask,
            lambda: self.request("DELETE", f"/events?session={self.session}"),
            lambda: self.request("POST", "/seen", body='{"cursor":"customer:rude-0=1.1"}'),
            lambda: ask()[: -self.random.randint(1, 60)],
        ]
        return [ask(), *self.some(requests, 4)]

    # Sending it.

    async def play(self, transport: str) -> None:
        """One turn. It raises nothing that a gateway may cause."""
        count = self.random.choice([1, 1, 2, 3]) if transport in ("xhr", "polling") else 1
        await asyncio.gather(*(self._play_on(getattr(self, transport)(), transport) for _ in range(count)))

    async def _play_on(self, packets: list[bytes], transport: str) -> None:
        loop, draw = asyncio.get_running_loop(), self.random
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
            packets = _joined(packets, draw, alone=transport in ("websocket", "stomp", "sockjs"))
            try:
                for packet in packets[: draw.randint(0, len(packets)) or None]:
                    await loop.sock_sendall(sock, packet)
                    if draw.random() < 0.6:
                        await _read_some(sock, draw.choice([0.0, 0.01, READ_SECONDS]))
                if (end := draw.random()) < 0.4:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                elif end < 0.6:
                    sock.shutdown(socket.SHUT_WR)
                    await _read_some(sock, 0.02)
            except OSError:
                pass  # it was thrown out


def _joined(packets: list[bytes], draw: random.Random, *, alone: bool) -> list[bytes]:
    """Now and then several in one packet, and one in several; a handshake usually leaves alone."""
    joined: list[bytes] = []
    for number, packet in enumerate(packets):
        together = 0.6 if number > 1 else 0.05 if alone else 0.4
        if number and draw.random() < together:
            joined[-1] += packet
        elif len(packet) > 1 and draw.random() < 0.15:
            cut = draw.randrange(1, len(packet))
            joined += [packet[:cut], packet[cut:]]
        else:
            joined.append(packet)
    return joined


async def _read_some(sock: socket.socket, seconds: float) -> None:
    """One read at most."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_recv(sock, 65536)
    except TimeoutError:
        pass


TRANSPORTS = ("websocket", "sse", "polling", "stomp", "sockjs", "xhr")


async def play(port: int, tokens: Sequence[str], transport: str, turns: int, seed: int) -> None:
    """So many turns, some at a time."""
    numbers = iter(range(turns))

    async def play_some() -> None:
        for number in numbers:
            await Turn(f"{seed} {transport} {number}", port, tokens).play(transport)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(play_some())


@click.command()
@click.argument("port", type=int)
@click.argument("tokens", nargs=-1, required=True)
@click.option("--transport", "transports", type=click.Choice(TRANSPORTS), multiple=True, default=TRANSPORTS)
@click.option("--turns", default=5000, show_default=True, help="Of each transport.")
@click.option("--seed", default=0, show_default=True)
def main(port: int, tokens: tuple[str, ...], transports: tuple[str, ...], turns: int, seed: int) -> None:
    """Play so many turns of each transport against the gateway at PORT, as the customers of the TOKENS."""
    for transport in transports:
        click.echo(f"{transport}: {turns} turns, seed {seed}")
        asyncio.run(play(port, tokens, transport, turns, seed))


if __name__ == "__main__":
    main()
