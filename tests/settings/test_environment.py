"""From environment variables and files to values: what surrounds a value does not count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import ReceiverSettings, SenderSettings, load
from tests.settings.values import KEY, SECRET, keys_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.settings.conftest import Faults, Set


def test_empty_is_the_same_as_unset(set: Set) -> None:
    set(api_keys=KEY, redis_url="")
    assert load(SenderSettings).redis_url == "redis://localhost:6379/0"


def test_secret_from_a_file(set: Set, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    set(api_keys_file=str(tmp_path / "key"))
    assert load(SenderSettings).api_keys[0].get_secret_value() == KEY


def test_file_that_cannot_be_read(set: Set, faults: Faults, tmp_path: Path) -> None:
    set(api_keys_file=str(tmp_path / "nothing"))
    (line,) = faults(SenderSettings)
    assert "_FILE" in line
    assert "nothing: No such file" in line


def test_file_that_is_no_text(set: Set, faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00")
    set(api_keys_file=str(tmp_path / "key"))
    (line,) = faults(SenderSettings)
    assert "_FILE" in line


@pytest.mark.parametrize("quotes", ['"{}"', "'{}'", "`{}`", ' "{}"\n'])
def test_quotation_marks_around_a_value_are_a_fault(
    set: Set, faults: Faults, tmp_path: Path, quotes: str
) -> None:
    """As Docker's --env-file keeps them."""
    set(api_keys=quotes.format(KEY), redis_url=quotes.format("redis://h"), history_days=quotes.format("7"))
    lines = faults(SenderSettings)
    assert len(lines) == 3
    assert all("remove the quotation marks" in line for line in lines)
    assert KEY not in "".join(lines)
    (tmp_path / "key").write_text(quotes.format(KEY))
    set(api_keys="", api_keys_file=str(tmp_path / "key"), redis_url="", history_days="")
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_API_KEYS: remove")


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "\ufeff{}", "\ufeff{}\r\n", " {}\t\n\n"])
def test_what_surrounds_a_secret_does_not_count(set: Set, tmp_path: Path, around: str) -> None:
    for name, value in (("key", KEY), ("secret", SECRET), ("secrets", f"{SECRET}\r\n{'t' * 32}")):
        (tmp_path / name).write_bytes(around.format(value).encode())
    set(api_keys_file=str(tmp_path / "key"), jwt_secret_file=str(tmp_path / "secret"))
    settings = load(ReceiverSettings)
    assert keys_of(settings) == [KEY]
    assert [secret.get_secret_value() for secret in settings.secrets] == [SECRET]
    set(api_keys_file="", jwt_secret_file="", jwt_secrets_file=str(tmp_path / "secrets"))
    set(api_keys=around.format(KEY))
    settings = load(ReceiverSettings)
    assert keys_of(settings) == [KEY]
    assert [secret.get_secret_value() for secret in settings.secrets] == [SECRET, "t" * 32]


def test_keys_may_stand_one_a_line(set: Set, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(f"{KEY}1\r\n{KEY}2\n\n{KEY}1,{KEY}3\n".encode())
    set(api_keys_file=str(tmp_path / "keys"))
    assert keys_of(load(SenderSettings)) == [f"{KEY}1", f"{KEY}2", f"{KEY}3"]
