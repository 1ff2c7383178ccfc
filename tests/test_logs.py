"""Logs: one line each, ours and the libraries' alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent
CONFIGURE = """
import logging, structlog
from shared.process.logs import configure_logs
configure_logs({log_format!r}, {level!r}, "sender")
logger = structlog.get_logger("sender.publishing.relay")
"""


def logged(program: str, *, log_format: str = "json", level: str = "INFO") -> list[str]:
    """The lines that a process of its own writes: configuring is for a whole process."""
    source = CONFIGURE.format(log_format=log_format, level=level) + program
    done = subprocess.run([sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    return done.stderr.splitlines()


def record(program: str) -> dict[str, Any]:
    (line,) = logged(program)
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_record_is_one_json_object_that_names_its_service() -> None:
    found = record('logger.info("published", events=3)')
    assert found["event"] == "published"
    assert found["events"] == 3
    assert found["service"] == "sender"
    assert found["level"] == "info"
    assert found["logger"] == "sender.publishing.relay"
    assert "T" in found["timestamp"]


def test_libraries_records_look_the_same() -> None:
    found = record('logging.getLogger("uvicorn.error").warning("late by %s", 3)')
    assert (found["event"], found["level"], found["service"]) == ("late by 3", "warning", "sender")


def test_exception_stays_on_one_line() -> None:
    found = record('try:\n    1 / 0\nexcept ZeroDivisionError:\n    logger.exception("failed")')
    assert "ZeroDivisionError" in json.dumps(found["exception"])


def test_line_breaks_in_a_value_make_no_second_line() -> None:
    assert record(r'logger.info("refused", reason="a\nb\r\nc")')["reason"] == "a\nb\r\nc"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_a_terminal_would_obey_is_escaped(log_format: str) -> None:
    text = "a\x1b[2J\x9b2J\x7f\u202eb\u2028c\rd"
    (line,) = logged(f"logger.info('refused', origin={text!r})", log_format=log_format)
    assert r"\x9b2J" in line.replace("\\\\", "\\")
    assert all(character.isprintable() for character in line)


def test_long_values_are_cut() -> None:
    assert len(record('logger.info("refused", reason="x" * 100_000)')["reason"]) < 1100


def test_levels_below_the_chosen_one_are_silent() -> None:
    program = 'logger.debug("a"); logger.info("b"); logger.warning("c"); logging.getLogger("x").info("d")'
    assert [json.loads(line)["event"] for line in logged(program, level="WARNING")] == ["c"]
    assert [json.loads(line)["event"] for line in logged(program, level="DEBUG")] == ["a", "b", "c", "d"]


def test_signals_change_the_level_of_loggers_that_were_used_before() -> None:
    """While an event loop waits, as in a service."""
    program = """
import asyncio, os, signal
from uvicorn.loops.auto import auto_loop_factory

async def main():
    bound = logger.bind(part="relay")
    for number in (None, signal.SIGUSR1, signal.SIGUSR2):
        if number is not None:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
        logger.debug("debug"); bound.debug("bound"); logging.getLogger("library").info("library")
        logger.error("error")

asyncio.Runner(loop_factory=auto_loop_factory()).run(main())
"""
    assert [json.loads(line)["event"] for line in logged(program, level="WARNING")] == [
        "error",
        "the log level was changed",
        "debug",
        "bound",
        "library",
        "error",
        "the log level was changed",
        "error",
    ]


def test_console_format_is_for_people() -> None:
    (line,) = logged('logger.info("published", events=3)', log_format="console")
    assert "published" in line
    assert "events=3" in line
    assert "\x1b" not in line  # no colours where it is no terminal


@pytest.mark.parametrize(
    ("program", "event"),
    [
        ("raise ValueError('a')", "ended by an exception"),
        (
            "import threading; threading.Thread(target=lambda: 1 / 0).start()",
            "a thread was ended by an exception",
        ),
        ("import warnings; warnings.warn('old')", "old"),
    ],
)
def test_what_python_prints_by_itself_is_a_record(program: str, event: str) -> None:
    source = CONFIGURE.format(log_format="json", level="INFO") + program
    done = subprocess.run([sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert event in json.loads(line)["event"]


def test_records_of_the_last_moment_are_written() -> None:
    lines = logged("for n in range(500): logger.info('last', n=n)")
    assert [json.loads(line)["n"] for line in lines] == list(range(500))
