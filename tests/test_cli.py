"""The command line: its help, and what it refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
import structlog
from click.testing import CliRunner

from shared import __version__
from shared.commands.cli import main
from tests.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = sorted(main.commands)


def run(*arguments: str) -> tuple[int, str]:
    logs = structlog.get_config()
    try:
        done = CliRunner().invoke(main, arguments)
    finally:  # `doctor` silences them for its process, which here is that of the other tests
        structlog.configure(**logs)
    return done.exit_code, done.output


def test_help_lists_every_command_with_a_whole_sentence() -> None:
    code, output = run("--help")
    assert code == 0
    listed = output.split("Commands:")[1].strip().splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_helps(command: str, option: str) -> None:
    code, output = run(command, option)
    assert code == 0
    assert f"Usage: main {command}" in output
    for parameter in main.commands[command].params:
        if parameter.name == "by_make":  # the Makefile's own
            continue
        assert parameter.name in ("customer", "asked", "help") or (parameter.opts[0] in output)


def test_version() -> None:
    assert run("--version") == (0, f"orderbell, version {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--gateways", "0"],
        ["up", "--sender-port", "0"],
        ["up", "--sender-port", "8092"],  # the second gateway's
        ["up", "--receiver-port", "65535"],
        ["up", "--receiver-port", "many"],
        ["token"],
        ["token", "a\tb"],
        ["token", "alice", "--topic", "a\tb"],
        ["token", "alice", "--minutes", "0"],
        ["watch", "a\tb"],
        ["erase"],
        ["erase", "a\tb", "--yes"],
        ["watch", "alice", "--after", "yesterday"],
        ["watch", "alice", "--gateway", "nowhere"],
        ["watch", "alice", "--gateway", "ftp://nowhere"],
        ["trace", ""],
        ["trace", "a\tb"],
        ["trace", "x" * 1025],
        ["nothing"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_reported_and_end_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERBELL_JWT_SECRET", "s" * 32)
    code, output = run(*arguments)
    assert code == 2, output
    assert "Error: " in output


NUMBERS = [
    (name, parameter.opts[0])
    for name in COMMANDS
    for parameter in main.commands[name].params
    if isinstance(parameter.type, click.types.FloatParamType | click.types.IntParamType)
]


@pytest.mark.parametrize(("command", "option"), NUMBERS, ids=" ".join)
def test_number_that_is_none_or_beyond_all_bounds_is_refused_in_a_line(command: str, option: str) -> None:
    assert len(NUMBERS) >= 10
    arguments = ["alice", "--test"] if command == "send" else ["alice"] if command == "token" else []
    for number in ("nan", "inf", "-inf", "1e300", "9" * 400):
        code, output = run(command, *arguments, option, number)
        assert code == 2, (number, output)
        assert f"Invalid value for '{option}'" in output


def test_port_that_both_services_would_have_names_the_sender() -> None:
    _, output = run("up", "--sender-port", "9190", "--receiver-port", "9190")
    assert "the gateways would need ports 9190 to 9191, and the sender has 9190" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "1042", "--sender", "nonsense"),
        ("who", "--sender", "ftp://sender:8090"),
        ("resend", "1042", "--sender", "http://"),
        ("kick", "alice", "--sender", "file:///etc/passwd"),
        ("erase", "alice", "--yes", "--sender", "http://sender:99999"),
        ("who", ""),
        ("send", "", "--test"),
        ("resend", "a\nb"),
        ("trace", "--order", ""),
        ("trace", "--event", "e", "--customer", "x" * 129),
        ("trace", "--event", ""),
        ("trace", "--event", "a\nb", "--source", "/s"),
        ("trace", "--event", "e" * 1025),
        ("trace", "soup", "--source", ""),
        ("trace", "soup", "--source", "\udcff"),
        ("resend", "--event", "", "--source", "/s"),
        ("resend", "--event", "soup", "--source", ""),
        ("doctor", "--gateway", ""),
        ("migrate", "--role", " "),
    ],
)
def test_what_is_no_address_or_no_name_is_refused_before_anything_is_asked(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERBELL_API_KEYS", "k" * 40)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: Invalid value for ")
    assert not result.stdout


@pytest.mark.parametrize(
    "command", [("doctor",), ("token", "alice"), ("watch", "alice"), ("who",), ("trace", "1")]
)
@pytest.mark.parametrize(
    "content", [None, "A='open", "no setting", b"\xff=1"], ids=["file", "quote", "word", "bytes"]
)
def test_directory_that_is_none_or_damaged_is_reported_in_a_line(
    command: tuple[str, ...], content: str | bytes | None, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    if content is None:
        data.touch()
    else:
        data.mkdir()
        (data / "environment").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, output = run(*command, "--data", str(data))
    assert code == 2
    assert output.startswith(f"orderbell: {data}")
    assert output.count("\n") == 1


def test_full_disk_is_reported_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(click, "echo", refuse)
    assert run("size") == (2, "orderbell: No space left on device\n")


@pytest.mark.parametrize(
    ("environment", "color"),
    [({}, None), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, None), ({"TERM": "dumb"}, False)],
    ids=str,
)
def test_colors_are_left_out_where_that_is_asked_for(
    environment: dict[str, str], color: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found: list[bool | None] = []
    monkeypatch.setattr(
        "shared.commands.size.show", lambda _: found.append(click.get_current_context().color)
    )
    assert run("size")[0] == 0
    assert found == [color]


SILENT = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "1042"),
        ("who",),
        ("resend", "1042"),
        ("send", "alice", "--test"),
        ("kick", "alice"),
        ("erase", "alice", "--yes"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_sender_that_does_not_answer_ends_each_command_that_asks_it_with_3(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERBELL_API_KEY", "k" * 16)
    code, output = run(*arguments, "--sender", SILENT)
    assert code == 3
    assert f"orderbell: {SILENT} does not answer" in output
    assert "3 if the sender does not answer or refuses" in " ".join(run(arguments[0], "--help")[1].split())


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("shared.commands.support.who", interrupted)
    monkeypatch.setenv("ORDERBELL_API_KEY", "k" * 16)
    assert run("who") == (130, "")


def test_letters_that_the_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(*arguments: object, **options: object) -> int:
        click.echo("\u0141ukasz is connected")
        return 0

    monkeypatch.setattr("shared.commands.support.who", say)
    done = CliRunner(charset="latin-1").invoke(main, ["who"])
    assert (done.exit_code, done.output) == (0, "\\u0141ukasz is connected\n")


def test_reader_that_has_gone_is_not_reported_as_nothing_found() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "shared.commands.cli", "size"]
    with open(writes, "wb") as nobody:
        ended = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, timeout=60, cwd=REPOSITORY)
    assert (ended.returncode, ended.stderr) == (141, b"")
