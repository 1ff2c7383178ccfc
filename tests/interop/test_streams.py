"""An event stream behind other people's proxies as they are: buffering, compressing, HTTP/1.0 to us, HTTP/2
to the client. Each event arrives at once, and a stream that was cut goes on at another connection.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest

from shared.commands.embedded import free_port
from tests.certificates import Certificates
from tests.machine import program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.processes import Processes, SenderProcess

pytestmark = pytest.mark.long

# Nothing of it is for us: buffers as they are, HTTP/1.0 to the gateway, and gzip for whatever comes.
NGINX = """\
{user}daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 64; }}
http {{
    access_log off; {paths}
    gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
    ssl_certificate {cert}; ssl_certificate_key {key};
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl http2;
        location / {{ proxy_pass http://127.0.0.1:{gateway}; }}
    }}
}}
"""
HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    compression algo gzip
    compression type text/event-stream application/json
frontend all
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{tls} ssl crt {both} alpn h2
    default_backend gateways
backend gateways
    server gateway 127.0.0.1:{gateway}
"""
CADDY = """\
{{
    admin off
    auto_https off
}}
http://:{plain} {{
    encode gzip zstd
    reverse_proxy 127.0.0.1:{gateway}
}}
https://localhost:{tls} {{
    tls {cert} {key}
    encode gzip zstd
    reverse_proxy 127.0.0.1:{gateway}
}}
"""


class Front(NamedTuple):
    plain: int
    tls: int


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> int:
    return module_processes.start_receiver(sender=sender).port  # nothing but events within 20 s


def command_of(
    name: str, directory: Path, front: Front, gateway: int, keys: Certificates
) -> list[str | Path]:
    """The proxy's program, and its file."""
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    both = directory / "both.pem"
    both.write_text(keys.server_cert.read_text() + keys.server_key.read_text())
    form, package = {
        "nginx": (NGINX, "nginx-light"),
        "haproxy": (HAPROXY, "haproxy"),
        "caddy": (CADDY, "caddy"),
    }[name]
    file = directory / f"{name}.conf"
    file.write_text(
        form.format(
            directory=directory,
            user="user root; " if os.geteuid() == 0 else "",
            paths=" ".join(f"{one}_temp_path {directory}/{one};" for one in names),
            cert=keys.server_cert,
            key=keys.server_key,
            both=both,
            plain=front.plain,
            tls=front.tls,
            gateway=gateway,
        )
    )
    path = program(name, package)
    commands: dict[str, list[str | Path]] = {
        "nginx": [path, "-p", directory, "-c", file, "-e", directory / "nginx.log"],
        "haproxy": [path, "-db", "-f", file],
        "caddy": [path, "run", "--adapter", "caddyfile", "--config", file],
    }
    return commands[name]


@pytest.fixture(scope="module", params=["nginx", "haproxy", "caddy"])
def front(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    process_group: int,
    gateway: int,
    certificates: Certificates,
) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp(request.param)
    found = Front(free_port(), free_port())
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_of(request.param, directory, found, gateway, certificates),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=process_group,
            env={"HOME": str(directory), "PATH": os.environ["PATH"]},
        )
    try:
        with httpx2.Client(trust_env=False) as client:

            def answers() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return client.get(f"http://127.0.0.1:{found.plain}/livez").status_code == 200
                return False

            wait_until(lambda: process.poll() is not None or answers())
        assert process.poll() is None, log.read_text()
        yield found
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    ("version", "option"), [("HTTP/1.1", "--http1.1"), ("HTTP/1.", "--http1.0"), ("HTTP/2", "--http2")]
)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_event_arrives_at_once_behind_a_proxy_and_after_a_cut_the_rest(
    version: str,
    option: str,
    compressed: bool,
    front: Front,
    sender: SenderProcess,
    module_processes: Processes,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    customer = f"c-{uuid.uuid4().hex[:12]}"
    channel = f"customer:{customer}"
    base = f"https://localhost:{front.tls}" if version == "HTTP/2" else f"http://127.0.0.1:{front.plain}"
    curl: list[str | Path] = [program("curl", "curl"), "-sSN", "-i", option, "--cacert", certificates.ca]
    curl += ["--noproxy", "*", "-H", "Accept: text/event-stream", *(["--compressed"] if compressed else [])]
    curl += ["-H", f"Authorization: Bearer {module_processes.token(customer)}"]

    @contextlib.contextmanager
    def listening(after: str) -> Iterator[Callable[[], str]]:
        heard = tmp_path / "heard"
        with heard.open("wb") as output:
            process = subprocess.Popen([*curl, f"{base}/events?after={after}"], stdout=output, stderr=output)
        try:
            yield lambda: heard.read_text(encoding="utf-8")
        finally:
            process.kill()
            process.wait()

    def publish(number: int) -> None:
        event: dict[str, object] = {"specversion": "1.0", "source": "/tests", "type": "t", "channel": channel}
        headers = {**module_processes.api_headers, "content-type": "application/cloudevents+json"}
        event |= {"id": uuid.uuid4().hex, "data": {"n": number}}
        answer = httpx2.post(f"{sender.url}/events", json=event, headers=headers, trust_env=False)
        assert answer.status_code == 202, answer.text

    def has(heard: Callable[[], str], number: int) -> bool:
        return f"id: {channel}=1.{number}\n" in heard()

    with listening(f"{channel}=1.0") as heard:
        wait_until(lambda: "orderbell.hello" in heard())
        assert heard().startswith(version)
        for number in (1, 2):
            publish(number)
            wait_until(partial(has, heard, number))
    publish(3)
    with listening(f"{channel}=1.2") as heard:
        wait_until(partial(has, heard, 3))
        assert '"n":2' not in heard()
