"""Issuers of customers' tokens: keys, tokens that are signed with them, and a server that publishes them."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AUDIENCE = "orderbell"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None takes one away."""
    good = {"sub": "alice", "aud": AUDIENCE, "exp": int(time.time()) + 600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def part(value: object) -> str:
    """One part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@cache
def private_key(name: str) -> Any:
    """One private key for each name, whose beginning names the kind."""
    if name.startswith(("RS", "PS", "weak")):
        size = 1024 if name.startswith("weak") else 2048
        return rsa.generate_private_key(public_exponent=65537, key_size=size)
    if name.startswith("ES384"):
        return ec.generate_private_key(ec.SECP384R1())
    if name.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def published(name: str, **changes: Any) -> dict[str, Any]:
    """The public key as a JWK, whose `kid` is the name. None takes a member away."""
    public = private_key(name).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        text = RSAAlgorithm.to_jwk(public)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        text = ECAlgorithm.to_jwk(public)
    else:
        text = OKPAlgorithm.to_jwk(public)
    good = {**json.loads(text), "kid": name, "use": "sig"}
    return {member: value for member, value in {**good, **changes}.items() if value is not None}


def sign_with(name: str, *, algorithm: str | None = None, kid: str | None = "", **changes: Any) -> str:
    """A token signed with that key. Its `kid` is the key's name; None leaves it out."""
    headers = {"kid": kid or name} if kid is not None else {}
    return jwt.encode(claims(**changes), private_key(name), algorithm=algorithm or name, headers=headers)


class Issuer(ThreadingHTTPServer):
    """Publishes its keys and notes the requests; may answer something else."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/keys"
        self.asked: list[dict[str, str]] = []  # the headers
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | Iterator[bytes] = b""
        self.refuses: Callable[[dict[str, str]], bool] = lambda headers: False
        self.waits_for = threading.Event()  # before it answers
        self.waits_for.set()
        self.publish(*map(published, ("RS256", "ES256", "EdDSA")))

    def publish(self, *keys: object) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves before everything is sent is not a failure."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer = self.server
        assert isinstance(issuer, Issuer)
        headers = {name.lower(): value for name, value in self.headers.items()}
        issuer.asked.append(headers)
        issuer.waits_for.wait(10)
        self.send_response(403 if issuer.refuses(headers) else issuer.status)
        for name, value in issuer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in [issuer.body] if isinstance(issuer.body, bytes) else issuer.body:
            self.wfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def running_issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.waits_for.set()
            server.shutdown()
            thread.join()
