"""The machine of a measurement: processor, kernel and versions, without its name and paths."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

from bench.peers.gateways import CENTRIFUGO, DIRECTORY, GO, PYTHON

_PACKAGES = ("starlette", "uvicorn", "uvloop", "redis", "hiredis", "SQLAlchemy", "msgspec")
_NODE_PACKAGES = ("ws", "ioredis", "socket.io", "@socket.io/redis-adapter")
_GO_MODULES = ("centrifugo/v6", "gorilla/websocket", "redis/go-redis/v9")
_PEER_PACKAGES = ("python-socketio", "Django", "channels", "channels_redis", "daphne")


def describe(redis_binary: Path, *, peers: bool) -> dict[str, str]:
    """By what it is, for a table's foot."""
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "SQLite": sqlite3.sqlite_version,
        "Redis": _redis_version(redis_binary),
        **(_peers() if peers else {}),
    }


def _peers() -> dict[str, str]:
    """The versions of those that are installed."""
    versions: dict[str, str] = {}
    if (modules := DIRECTORY / "node_modules").is_dir() and (node := shutil.which("node")):
        versions["Node"] = _first_line([node, "--version"]).removeprefix("v")
        for package in _NODE_PACKAGES:
            content = json.loads((modules / package / "package.json").read_text(encoding="utf-8"))
            versions[package] = content["version"]
    for distribution in distributions(path=[*map(str, PYTHON.parent.parent.glob("lib/*/site-packages"))]):
        if (name := distribution.metadata["Name"]) in _PEER_PACKAGES:
            versions[name] = distribution.version
    if go := shutil.which("go"):
        for program in (one for one in (GO, CENTRIFUGO) if one.exists()):
            versions |= _modules(go, program)
    if nginx := shutil.which("nginx"):
        versions["nginx"] = _first_line([nginx, "-v"]).rpartition("/")[2]
    return versions


def _modules(go: str, program: Path) -> dict[str, str]:
    """What it was built from, and with which Go: `program: go1.23`, `\tdep\tmodule\tv1.2.3\t…`"""
    first, *lines = subprocess.run(
        [go, "version", "-m", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    fields = [line.split("\t") for line in lines]
    return {"Go": first.rpartition("go")[2]} | {
        module[2].removeprefix("github.com/"): module[3].removeprefix("v")
        for module in fields
        if module[1] in ("mod", "dep") and module[2].endswith(_GO_MODULES)
    }


def _first_line(command: list[str]) -> str:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return result.stdout.splitlines()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _redis_version(binary: Path) -> str:
    """`Redis server v=7.0.15 sha=…` or `Valkey server v=9.1.2 …`, shortened."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    name, _, rest = text.partition(" ")
    return f"{name} {rest.partition('v=')[2].split(' ')[0]}"
