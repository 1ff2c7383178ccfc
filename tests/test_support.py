"""`orderbell trace` and `orderbell who`, against real processes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from shared.commands.kick import Connections, what_ends
from shared.commands.support import guesses_of
from shared.redis.inquiries import GatewayReport, parse_answer, parse_question
from tests import commands
from tests.end_to_end.test_main_path import api, complete
from tests.processes import REPOSITORY, clean_environment
from tests.stomp_client import stomp
from tests.websocket_client import connected

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.processes import Processes

pytestmark = pytest.mark.anyio


async def orderbell(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it in a thread, because the test's browsers must answer pings meanwhile."""
    return await asyncio.to_thread(run, directory, *arguments, **settings)


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
    return commands.run("shared.commands.cli", *arguments, environment=environment, directory=directory)


@pytest.mark.long
async def test_support_sees_who_is_connected_and_what_became_of_an_alert(
    processes: Processes, tmp_path: Path
) -> None:
    sender, gateway, other = processes.start_sender(), processes.start_receiver(), processes.start_receiver()
    settings = {"api_key": processes.api_key, "sender_url": sender.url}
    async with (
        api(processes, sender) as client,
        connected(gateway, processes.token("alice")) as phone,
        connected(other, processes.token("alice")),
        connected(other, processes.token("bob")),
    ):
        event = await complete(client, "1042", "alice")
        await phone.receive_events(1)

        who = await orderbell(tmp_path, "who", **settings)
        assert (who.returncode, who.stderr) == (0, "")
        assert (who.stdout.count("hears Redis"), who.stdout.count("alice by websocket")) == (2, 2)
        assert who.stdout.count("bob by websocket") == 1
        assert "bob" not in (await orderbell(tmp_path, "who", "alice", **settings)).stdout

        for asked in (["1042"], ["--order", "1042"], [event["id"]], ["--event", event["id"]], ["alice"]):
            traced = await orderbell(tmp_path, "trace", *asked, **settings)
            assert (traced.returncode, traced.stderr) == (0, ""), asked
            assert "customer:alice=1.1: delivered\n" in traced.stdout, asked
            assert "order.completed for 1042 was recorded at" in traced.stdout
        as_json = json.loads((await orderbell(tmp_path, "trace", "1042", "--json", **settings)).stdout)
        assert as_json["alerts"][0]["verdict"] == "delivered"

        nothing = await orderbell(tmp_path, "trace", "carol", **settings)
        assert nothing.returncode == 1
        assert [line for line in nothing.stdout.splitlines() if not line.startswith(" ")] == [
            "order carol: not placed",
            "event carol of /orderbell/sender: not sent",
            "customer carol: not sent",
        ]
        nobody = await orderbell(tmp_path, "who", "carol", **settings)
        assert (nobody.returncode, nobody.stdout.splitlines()[-1]) == (1, "carol is not connected")

        for customer, said in (
            ("carol", "nobody is connected as carol, or was lately (is the name right?)"),
            ("alice", "2 connections end within a second"),
        ):
            kicked = await orderbell(tmp_path, "kick", customer, **settings)
            assert (kicked.returncode, kicked.stderr) == (0, "")
            assert kicked.stdout == f"revoked: {said}; tokens issued from now on are good\n"


def test_kick_says_what_is_not_known_of_a_name() -> None:
    report = GatewayReport("g", "", redis=True, not_ready=[], connections={}, channels=1)
    alike = msgspec.structs.replace(report, similar=["alice"])
    assert what_ends("Alice", Connections(0, [report, alike])) == "nobody is connected as Alice, but as alice"
    assert what_ends("bob", Connections(1, [report], ["g-2"])) == (
        "1 connection ends within a second, and those at g-2, which does not answer"
    )
    for unknown in (None, Connections(0, None), Connections(0, [])):
        assert what_ends("bob", unknown).endswith("how many there are, no gateway could be asked")


async def test_alert_is_sent_again_and_a_test_event_is_followed(processes: Processes, tmp_path: Path) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    settings = {"api_key": processes.api_key, "sender_url": sender.url}
    async with api(processes, sender) as client, connected(gateway, processes.token("alice")) as phone:
        event = await complete(client, "1042", "alice")
        again = await orderbell(tmp_path, "resend", "1042", **settings)
        assert (again.returncode, again.stdout) == (0, "sent again as customer:alice=1.2\n")
        first, second = await phone.receive_events(2)
        assert (first["id"], second["replaces"]) == (event["id"], event["id"])
        unknown = await orderbell(tmp_path, "resend", "1043", **settings)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr.endswith("refuses with 404: no order 1043\n")

        sending = asyncio.create_task(orderbell(tmp_path, "send", "--test", "alice", **settings))
        assert (await phone.receive_events(3))[2]["type"] == "orderbell.trial"
        await asyncio.sleep(0.3)  # a page that has reported something lately waits longer
        await phone.send("orderbell.seen", {"cursor": "customer:alice=1.3"})
        test = await sending
        assert (test.returncode, test.stderr) == (0, "")
        assert test.stdout.startswith("a device has it: customer:alice=1.3\n")
        assert "One of the customer's devices has received it and reported that." in test.stdout
    nobody = await orderbell(tmp_path, "send", "--test", "bob", "--seconds", "3", **settings)
    assert nobody.returncode == 1
    assert "Nobody is connected as bob" in nobody.stdout


@pytest.mark.parametrize(
    "arguments",
    [["resend"], ["resend", "1", "--event", "x"], ["resend", "--event", "x"], ["send", "alice"], ["send"]],
)
def test_what_is_to_be_sent_is_named_once(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("asked", "has_source", "guesses"),
    [
        ("1042", False, ("order_id", "event_id", "customer_id")),
        ("1042", True, ("event_id",)),
        ("..", False, ("event_id", "customer_id")),
        ("x" * 129, False, ("event_id",)),
    ],
    ids=["any", "with a source", "no order", "too long for a name"],
)
def test_what_is_asked_for_may_be(asked: str, has_source: bool, guesses: tuple[str, ...]) -> None:
    assert guesses_of(asked, has_source=has_source) == guesses


def test_what_is_no_question_and_no_answer_is_passed_over() -> None:
    for odd in (b"", b"[]", b"\xff", b'{"id":1}', b'{"id":"\\ud800"}', b'{"id":"1","x":' + b"[" * 100_000):
        assert parse_question(odd) is None
        assert parse_answer(odd) is None


def test_a_report_whose_cursor_is_none_is_passed_over() -> None:
    report = GatewayReport("g", "", redis=True, not_ready=[], connections={}, channels=1)
    for name in ("place", "expected"):
        fine = msgspec.structs.replace(report, **{name: "customer:a=1.2"})
        assert parse_answer(msgspec.json.encode(fine)) == fine
        odd = msgspec.structs.replace(report, **{name: "customer:a=x"})
        assert parse_answer(msgspec.json.encode(odd)) is None


def test_a_report_whose_time_is_none_is_passed_over() -> None:
    """It is compared with the sender's."""
    report = GatewayReport("g", "", redis=True, not_ready=[], connections={}, channels=1)
    for now in ("", "2026-11-30T13:00:00.000Z"):
        fine = msgspec.structs.replace(report, now=now)
        assert parse_answer(msgspec.json.encode(fine)) == fine
    for now in ("noon", "2026-11-30T13:00:00"):
        odd = msgspec.structs.replace(report, now=now)
        assert parse_answer(msgspec.json.encode(odd)) is None


async def test_what_a_client_made_up_does_not_steer_the_terminal(
    processes: Processes, tmp_path: Path
) -> None:
    sender, gateway = processes.start_sender(), processes.start_receiver()
    async with stomp(gateway, processes.token("alice")) as client:
        await client.send("SUBSCRIBE", {"id": "1", "destination": "/x\x1b]0;pwned\x07\x9b2J"})
        await client.expect("ERROR")
    for command in ("who", "trace"):
        shown = (
            await orderbell(tmp_path, command, "alice", api_key=processes.api_key, sender_url=sender.url)
        ).stdout
        assert all(line.isprintable() for line in shown.splitlines()), shown
        assert command == "trace" or "pwned" in shown


@pytest.mark.parametrize("command", [["trace", "1042"], ["who"]])
def test_one_line_says_that_the_sender_does_not_answer_or_refuses(
    processes: Processes, tmp_path: Path, command: list[str]
) -> None:
    nowhere = run(tmp_path, *command, api_key="any-key-for-tests-only", sender_url="http://127.0.0.1:9")
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (3, 1)
    assert nowhere.stderr.startswith("orderbell: http://127.0.0.1:9 does not answer: ")
    sender = processes.start_sender()
    refused = run(tmp_path, *command, api_key="another-key-for-tests", sender_url=sender.url)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "refuses with 401" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["1042", "--order", "1042"], ["--source", "/s"], ["--order", "1042", "--source", "/s"]],
)
def test_a_question_about_nothing_or_two_things_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    refused = run(tmp_path, "trace", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("Error: ")
