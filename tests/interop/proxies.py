"""nginx, HAProxy and Caddy with the files of deploy/proxies, but for addresses."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared.commands.embedded import free_port
from tests.chaos.system import Front
from tests.machine import program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEPLOY = Path(__file__).parents[2] / "deploy" / "proxies"

NGINX = """\
user root;
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    {paths}
    include {file};
}}
"""
NGINX_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Kind(NamedTuple):
    file: str
    package: str
    alerts: tuple[str, str]  # the address for browsers: as in the file, and with a port of ours
    orders: tuple[str, str]
    command: Callable[[Path, Path], list[str | Path]]  # the program, and its file
    more: str = ""  # a line for each further gateway, where a file may have more than it shows


def _nginx(nginx: Path, file: Path) -> list[str | Path]:
    directory = file.parent
    paths = "\n    ".join(f"{name}_temp_path {directory}/{name};" for name in NGINX_PATHS)
    main = directory / "main.conf"
    text = NGINX.format(directory=directory, paths=paths, file=file)
    main.write_text(text if os.geteuid() == 0 else text.replace("user root;\n", ""))
    return [nginx, "-p", directory, "-c", main, "-e", directory / "nginx.log"]


def _haproxy(haproxy: Path, file: Path) -> list[str | Path]:
    return [haproxy, "-db", "-f", file]


def _caddy(caddy: Path, file: Path) -> list[str | Path]:
    return [caddy, "run", "--adapter", "caddyfile", "--config", file]


KINDS = {
    "nginx": Kind(
        "nginx.conf",
        "nginx-light",
        ("listen 80;", "listen 127.0.0.1:{};"),
        ("listen 8090;", "listen 127.0.0.1:{};"),
        _nginx,
    ),
    "haproxy": Kind(
        "haproxy.cfg",
        "haproxy",
        ("bind :80\n", "bind 127.0.0.1:{}\n"),
        ("bind :8090\n", "bind 127.0.0.1:{}\n"),
        _haproxy,
        "    server gateway-{number} 127.0.0.1:{port}\n",
    ),
    "caddy": Kind(
        "Caddyfile",
        "caddy",
        ("alerts.example {", "http://:{} {{"),
        ("http://:8090 {", "http://:{} {{"),
        _caddy,
    ),
}


@contextlib.contextmanager
def running(
    name: str, directory: Path, process_group: int, gateways: Sequence[int], senders: Sequence[int]
) -> Iterator[Front]:
    """Runs the proxy in front of these ports, whether or not anything listens there yet."""
    kind = KINDS[name]
    path = program(name, kind.package)
    front = Front(free_port(), free_port())
    text = (DEPLOY / kind.file).read_text(encoding="utf-8")
    changes = [(kind.alerts[0], kind.alerts[1].format(front.gateways))]
    changes += [(kind.orders[0], kind.orders[1].format(front.senders))]
    shown = gateways[:2] if kind.more else gateways
    for service, inner, ports in (("gateway", 8091, shown), ("sender", 8090, senders)):
        for number, port in enumerate(ports, 1):
            changes.append((f"{service}-{number}.internal:{inner}", f"127.0.0.1:{port}"))
    further = (
        kind.more.format(number=number, port=port)
        for number, port in enumerate(gateways[len(shown) :], len(shown) + 1)
    )
    last = f"127.0.0.1:{shown[-1]}\n"
    for there, ours in changes:
        assert text.count(there) == 1, (kind.file, there)
        text = text.replace(there, ours)
    text = text.replace(last, last + "".join(further))
    file = directory / kind.file
    file.write_text(("{\n\tadmin off\n}\n" if name == "caddy" else "") + text)
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            kind.command(path, file),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=process_group,
            env={"HOME": str(directory), "PATH": os.environ["PATH"]},
        )
    try:
        wait_until(lambda: process.poll() is not None or all(map(_listens, front)))
        assert process.poll() is None, log.read_text()
        yield front
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
