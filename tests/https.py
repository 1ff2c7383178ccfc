"""Facts about httpx2's clients that tests need."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import httpcore2
import httpx2

if TYPE_CHECKING:
    import ssl


def read_certificates_once() -> None:
    """Otherwise each client reads the system's certificates, which takes 40 ms of processor time. Tests and
    their companions make thousands of clients, nearly all for http://.
    """
    read = httpcore2.default_ssl_context
    systems = functools.cache(lambda: read(_trust_env=False))

    def context(*, _trust_env: bool = True) -> ssl.SSLContext:
        own = _trust_env and os.environ.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}
        return read() if own else systems()

    httpcore2.default_ssl_context = context


def was_cut(error: Exception) -> bool:
    """Whether a request failed with its connection. anyio has no error of its own for one that uvloop closed
    before it was asked for its address.
    """
    if isinstance(error, AttributeError):
        return error.name == "getpeername"
    return isinstance(error, httpx2.TransportError)
