"""A certificate authority of the tests' own, made with openssl: for a Redis on TLS and its clients."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """For `localhost` and 127.0.0.1, and for one client."""

    PASSWORD: ClassVar[str] = "open-sesame"  # of `locked_key`

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    locked_key: Path  # the client's, under a password

    @property
    def options(self) -> str:
        """Of a URL: private authority and client certificate."""
        return f"ssl_ca_certs={self.ca}&ssl_certfile={self.client_cert}&ssl_keyfile={self.client_key}"

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        def openssl(*words: str | Path) -> None:
            subprocess.run(
                ["openssl", *map(str, words)], cwd=directory, check=True, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=30,
            )  # fmt: skip

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl(
            "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests", "-days", "2"
        )
        names = directory / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        for name in ("server", "client"):
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            openssl(
                "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", names,
            )  # fmt: skip
        openssl(
            "pkcs8", "-topk8", "-in", "client.key", "-out", "locked.key", "-v2", "aes-256-cbc",
            "-passout", f"pass:{cls.PASSWORD}",
        )  # fmt: skip
        files = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key", "locked.key")
        return cls(*(directory / name for name in files))
