"""`orderbell doctor`: finds what is wrong, and says nothing is where nothing is."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from shared.commands.doctor import Verdict, _clock, _policy, _version
from tests.processes import REPOSITORY, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Processes


def examine(directory: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "shared.commands.cli", "doctor", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def rows(output: str) -> dict[str, str]:
    """What was looked at, and the verdict."""
    return {line[6:].split("  ")[0].strip(): line[:4].strip() for line in output.splitlines()}


def test_everything_is_well(processes: Processes, tmp_path: Path) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    code, output = examine(
        tmp_path,
        "--gateway",
        gateway.url,
        redis_url=processes.redis_url,
        api_keys=processes.api_key,
        jwt_secret=processes.jwt_secret,
        sender_url=sender.url,
    )
    assert code == 0, output
    assert rows(output) == dict.fromkeys(
        [
            "settings",
            "redis",
            "redis version",
            "redis memory",
            "redis clock",
            "sender",
            "sender clock",
            "gateway",
            "gateway clock",
        ],
        "ok",
    )
    assert processes.api_key not in output


def test_nothing_is_there(tmp_path: Path) -> None:
    code, output = examine(
        tmp_path,
        "--sender",
        "http://127.0.0.1:9",
        "--gateway",
        "nonsense",
        redis_url="redis://:hush@127.0.0.1:9",
        api_keys="k" * 16,
        jwt_secret="s" * 32,
    )
    assert code == 1
    assert rows(output) == {"settings": "ok", "redis": "fail", "sender": "fail", "gateway": "fail"}
    assert "hush" not in output


def test_settings_are_told_fault_by_fault(tmp_path: Path) -> None:
    code, output = examine(tmp_path, redis_url="nonsense", log_level="LOUD")
    assert code == 1
    lines = output.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("fail  settings  ") for line in lines)


def test_evicting_redis_and_development_mode_are_warned_of(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    with Redis.from_url(redis_server.url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
    code, output = examine(
        tmp_path, redis_url=redis_server.url, api_keys="k" * 16, jwt_secret="s" * 32, development="1"
    )
    assert code == 1  # no sender
    assert rows(output)["redis memory"] == "warn"
    assert rows(output)["settings"] == "warn"


def test_frozen_redis_is_told_in_a_few_seconds(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    redis_server.stop()
    started = time.monotonic()
    _, output = examine(tmp_path, redis_url=redis_server.url, api_keys="k" * 16, jwt_secret="s" * 32)
    redis_server.resume()
    assert rows(output)["redis"] == "fail"
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("name", "version", "verdict"),
    [
        ("Redis", "6.0.16", Verdict.FAIL),
        ("Redis", "6.2.0", Verdict.OK),
        ("Redis", "8.0.1", Verdict.OK),
        ("Valkey", "7.2.5", Verdict.OK),
    ],
)
def test_versions(name: str, version: str, verdict: Verdict) -> None:
    assert _version(name, version).verdict is verdict


@pytest.mark.parametrize(
    ("ahead_seconds", "verdict"),
    [
        (0, Verdict.OK),
        (-2, Verdict.OK),
        (6, Verdict.WARN),
        (-29, Verdict.WARN),
        (31, Verdict.FAIL),
        (-3600, Verdict.FAIL),
    ],
)
def test_clocks(ahead_seconds: float, verdict: Verdict) -> None:
    assert _clock("redis clock", ahead_seconds).verdict is verdict


def test_policies() -> None:
    assert _policy("noeviction").verdict is Verdict.OK
    assert _policy("volatile-lru").verdict is Verdict.WARN
