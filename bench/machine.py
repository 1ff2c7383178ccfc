"""What a figure was measured on: processor, kernel and versions; neither the machine's name nor its paths."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("starlette", "uvicorn", "uvloop", "redis", "hiredis", "SQLAlchemy", "msgspec")


def describe(redis_binary: Path) -> dict[str, str]:
    """By what it is, for a table's foot."""
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "SQLite": sqlite3.sqlite_version,
        "Redis": _redis_version(redis_binary),
    }


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
