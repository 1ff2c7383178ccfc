"""The local directory: secrets stay, settings go with the run."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from shared.commands.local import InUse, LocalDirectory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def local(tmp_path: Path) -> LocalDirectory:
    local = LocalDirectory(tmp_path / "data")
    local.path.mkdir()
    return local


def test_secret_is_made_once_and_for_its_owner_alone(local: LocalDirectory) -> None:
    secret = local.secret("api-key")
    assert len(secret) == 64
    assert local.secret("api-key") == secret
    assert local.secret("jwt-secret") != secret
    assert stat.S_IMODE((local.path / "api-key").stat().st_mode) == 0o600


def test_other_commands_find_the_settings_while_up_runs(local: LocalDirectory) -> None:
    with local.publish({"ORDERBELL_REDIS_URL": 'redis://:it\'s a "secret"@h', "HOME": "/root"}):
        assert stat.S_IMODE((local.path / "environment").stat().st_mode) == 0o600
        environment = {"PATH": "/bin"}
        local.adopt(environment)
        assert environment == {"PATH": "/bin", "ORDERBELL_REDIS_URL": 'redis://:it\'s a "secret"@h'}
    environment = {}
    local.adopt(environment)
    assert environment == {}


def test_what_is_set_is_not_replaced(local: LocalDirectory) -> None:
    told = {"ORDERBELL_API_KEYS": "told", "ORDERBELL_JWT_SECRET": "told", "ORDERBELL_REDIS_URL": "told"}
    mine = {"ORDERBELL_API_KEYS": "mine", "ORDERBELL_JWKS_URL": "mine", "ORDERBELL_REDIS_URL_FILE": "mine"}
    with local.publish(told):
        environment = dict(mine)
        local.adopt(environment)
        assert environment == mine


def test_secrets_are_known_after_the_run(local: LocalDirectory) -> None:
    secret = local.secret("jwt-secret")
    environment: dict[str, str] = {}
    local.adopt(environment)
    assert environment == {"ORDERBELL_JWT_SECRET": secret}


def test_directory_that_is_not_there_says_nothing_and_is_not_made(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    LocalDirectory(tmp_path / "nowhere").adopt(environment)
    assert environment == {}
    assert not (tmp_path / "nowhere").exists()


def test_one_run_has_it_alone(local: LocalDirectory) -> None:
    with local.lock():
        with pytest.raises(InUse), LocalDirectory(local.path).lock():
            pass
    with local.lock():
        pass
