"""`orderbell doctor --url` through a real nginx, set up wrongly and well."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from shared.commands.doctor import Asked, find
from shared.commands.doctor.findings import Verdict
from shared.commands.embedded import free_port, port_in_use
from shared.settings import PREFIX
from tests.machine import program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import Processes

pytestmark = pytest.mark.long

CONFIGURATION = """\
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
{user}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
    uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{to}; {headers} }} }}
}}
"""
UPGRADE = (
    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)


@pytest.mark.parametrize(
    ("headers", "to", "says", "fix"),
    [
        ("", None, "passes no WebSocket upgrade", "proxy_set_header Upgrade $http_upgrade"),
        (UPGRADE, None, "refuses pages of http://127.0.0.1:", "let the proxy pass the Host"),
        (f"{UPGRADE} proxy_set_header Host $http_host;", 9, "answers 502", ""),
        (f"{UPGRADE} proxy_set_header Host $http_host;", None, "", ""),
    ],
    ids=["no upgrade", "another Host", "no gateway", "well"],
)
def test_way_in_through_nginx(
    processes: Processes,
    process_group: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    headers: str,
    to: int | None,
    says: str,
    fix: str,
) -> None:
    nginx = program("nginx", "nginx-light")
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        CONFIGURATION.format(
            directory=tmp_path,
            user="user root;" if os.geteuid() == 0 else "",
            port=port,
            to=to or gateway.port,
            headers=headers,
        )
    )
    command: list[str | Path] = [
        nginx,
        "-p",
        tmp_path,
        "-c",
        tmp_path / "nginx.conf",
        "-e",
        tmp_path / "nginx.log",
    ]
    front = subprocess.Popen(command, process_group=process_group)
    settings = {
        "redis_url": processes.redis_url,
        "key_prefix": processes.key_prefix,
        "api_keys": processes.api_key,
        "jwt_secret": processes.jwt_secret,
        "sender_url": sender.url,
    }
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    try:
        wait_until(lambda: port_in_use("127.0.0.1", port))
        found = find(Asked(url=f"http://127.0.0.1:{port}"))
    finally:
        front.kill()
        front.wait()
    faults = {one.what: one for one in found if one.verdict is not Verdict.OK}
    if not says:
        assert faults == {}
        return
    assert list(faults) == ["public door"]
    assert says in faults["public door"].says
    assert fix in faults["public door"].fix
