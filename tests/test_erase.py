"""`orderbell erase`, against a real sender, a real gateway and a device that is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.channels import customer_channel
from tests import commands
from tests.end_to_end.test_main_path import api, complete
from tests.processes import REPOSITORY, clean_environment
from tests.websocket_client import connected

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.processes import Processes

pytestmark = pytest.mark.anyio


def erase(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
    cli = "shared.commands.cli"
    return commands.run(cli, "erase", *arguments, environment=environment, directory=directory)


@pytest.mark.parametrize("customer", ["auth0|5f7c", pytest.param("..", marks=pytest.mark.long)])
async def test_erased_customers_devices_are_ended_and_nothing_of_them_is_left(
    processes: Processes, tmp_path: Path, customer: str
) -> None:
    sender, gateway, other = processes.start_sender(), processes.start_receiver(), processes.start_receiver()
    settings = {"api_key": processes.api_key, "sender_url": sender.url}
    token = processes.token(customer)
    async with (
        api(processes, sender) as client,
        connected(gateway, token) as phone,
        connected(other, token) as desktop,
        connected(gateway, processes.token("bob")) as bobs,
    ):
        await complete(client, "1", customer)
        await phone.receive_events(1)
        unasked = erase(tmp_path, customer, **settings)
        assert (unasked.returncode, len((await client.get("/orders")).json()["orders"])) == (1, 1)
        done = erase(tmp_path, customer, "--yes", **settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "erased: 1 order, 1 event, 0 dead letters, 0 kept answers\n"
        assert customer not in done.stdout
        for device in (phone, desktop):
            assert await device.receive_close() == (4401, "the customer was erased")
        assert (await client.get("/orders")).json()["orders"] == []
        event = await complete(client, "2", "bob")
        assert await bobs.receive_events(1) == [event]
        # They come back with an old cursor: no place is used twice.
        channel = customer_channel(customer)
        async with connected(gateway, token, query=f"after={channel}=1.0") as back:
            while (notice := await back.receive())["type"] != "orderbell.reset":
                # Erased events count as seen, which may be reported first.
                assert notice["type"] in ("orderbell.seen", "orderbell.unread")
                assert notice["type"] == "orderbell.unread" or notice["data"]["cursor"] == f"{channel}=1.1"
            assert notice["data"]["cursor"] == f"{channel}=1.1"
            event = await complete(client, "3", customer)
            assert (event["seq"], await back.receive_events(1)) == (2, [event])
    assert customer not in sender.text()


def test_a_fault_is_one_line(tmp_path: Path) -> None:
    done = erase(tmp_path, "alice", "--yes", sender_url="http://127.0.0.1:1", api_key="k" * 16)
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert "http://127.0.0.1:1 does not answer" in line


def test_where_nothing_is_set_it_says_where_it_has_looked(tmp_path: Path) -> None:
    done = erase(tmp_path, "alice", "--yes")
    assert done.returncode == 2
    looked, fault = done.stderr.splitlines()
    assert f"no `orderbell up` has run in {tmp_path / '.orderbell'}; see --data" in looked
    assert "ORDERBELL_API_KEY" in fault


def test_a_wrong_key_is_one_line(processes: Processes, tmp_path: Path) -> None:
    sender = processes.start_sender()
    done = erase(tmp_path, "alice", "--yes", "--sender", sender.url, api_key="another-key-of-16")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "refuses with 401" in done.stderr
