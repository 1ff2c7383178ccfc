"""The keys of the sender's API: each opens it, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
from pydantic import SecretStr
from structlog.testing import capture_logs

from sender.http.api_keys import ApiKeys, ApiKeysOfFile
from shared.settings import SenderSettings, read
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.processes import Processes


def test_each_key_is_accepted_and_no_other() -> None:
    keys = ApiKeys([SecretStr("first-key-of-ours"), SecretStr("second-key-of-ours")])
    assert keys.accept("first-key-of-ours")
    assert keys.accept("second-key-of-ours")
    for wrong in (
        "",
        "first-key-of-our",
        "first-key-of-ours ",
        "first-key-of-ours,second-key-of-ours",
        "é",
        "\udcff",
    ):
        assert not keys.accept(wrong)


def test_file_of_keys_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"

    def write(text: str) -> None:
        """As a secret is replaced: another file takes its name."""
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(file)

    write("the-first-key-of-ours\n")
    monkeypatch.setenv("ORDERBELL_API_KEYS_FILE", str(file))
    keys = ApiKeysOfFile(
        read(SenderSettings).api_keys, str(file), lambda: read(SenderSettings).api_keys, look_seconds=0
    )
    assert keys.accept("the-first-key-of-ours")
    write("the-second-key-of-ours\nthe-first-key-of-ours\n")
    assert keys.accept("the-second-key-of-ours")
    assert keys.accept("the-first-key-of-ours")
    write("the-second-key-of-ours\n")
    assert not keys.accept("the-first-key-of-ours")
    for broken in ("short", " "):
        with capture_logs() as logs:
            write(broken)
            assert keys.accept("the-second-key-of-ours")
            assert keys.accept("the-second-key-of-ours")
        assert len(logs) == 1
        assert "ORDERBELL_API_KEYS" in logs[0]["reason"][0]
    with capture_logs() as logs:
        file.unlink()
        assert keys.accept("the-second-key-of-ours")
    assert len(logs) == 1
    write("the-third-key-of-ours")
    assert keys.accept("the-third-key-of-ours")
    assert not keys.accept("the-second-key-of-ours")


def test_running_sender_takes_a_new_key_and_drops_an_old_one(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("the-first-key-of-ours")
    sender = processes.start_sender(api_keys="", api_keys_file=str(file))

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.get(f"{sender.url}/orders", headers=headers, trust_env=False).status_code

    assert (status("the-first-key-of-ours"), status("the-second-key-of-ours")) == (200, 401)
    file.write_text("the-second-key-of-ours")
    wait_until(lambda: status("the-second-key-of-ours") == 200)
    assert status("the-first-key-of-ours") == 401
    assert "the-second-key-of-ours" not in sender.text()
