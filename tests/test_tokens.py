"""`orderbell token`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from receiver.access.claims import LEEWAY_SECONDS, Rules
from receiver.access.verifier import SecretVerifier
from shared.commands.local import LocalDirectory
from tests import commands
from tests.processes import REPOSITORY, clean_environment

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.anyio

SECRET = "s" * 32
VERIFIER = SecretVerifier([SecretStr(SECRET)], Rules())


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    environment |= {f"ORDERBELL_{name.upper()}": value for name, value in settings.items()}
    cli = "shared.commands.cli"
    return commands.run(cli, "token", *arguments, environment=environment, directory=directory)


async def test_token_is_good_for_its_customer_topics_and_minutes(tmp_path: Path) -> None:
    done = run(tmp_path, "alice", "--topic", "menu", "--topic", "news", "--minutes", "2", jwt_secret=SECRET)
    assert done.returncode == 0, done.stderr
    identity = await VERIFIER.verify(done.stdout.strip())
    assert identity.channels == ("customer:alice", "topic:menu", "topic:news")
    assert abs(identity.expires_at - LEEWAY_SECONDS - 120 - time.time()) < 20


async def test_audience_and_issuer_are_those_of_the_settings(tmp_path: Path) -> None:
    done = run(tmp_path, "alice", jwt_secret=SECRET, jwt_audience="shop", jwt_issuer="us")
    identity = await SecretVerifier([SecretStr(SECRET)], Rules(frozenset({"shop"}), "us")).verify(
        done.stdout.strip()
    )
    assert identity.customer == "alice"


async def test_secret_of_up_is_taken_where_none_is_set(tmp_path: Path) -> None:
    local = LocalDirectory(tmp_path / "data")
    with local.lock():
        secret = local.secret("jwt-secret")
    done = run(tmp_path, "alice", "--data", "data")
    await SecretVerifier([SecretStr(secret)], Rules()).verify(done.stdout.strip())
    done = run(tmp_path, "alice", "--data", "data", jwt_secret=SECRET)
    await VERIFIER.verify(done.stdout.strip())


def test_no_secret_at_all_names_the_settings_and_where_it_has_looked(tmp_path: Path) -> None:
    done = run(tmp_path, "alice")
    assert (done.returncode, done.stdout) == (2, "")
    looked, fault = done.stderr.splitlines()
    assert looked.startswith("orderbell: no `orderbell up` has run in ")
    assert fault.startswith("orderbell: set exactly one of ORDERBELL_JWT_SECRET and")
    assert os.listdir(tmp_path) == []


def test_published_keys_sign_nothing_here(tmp_path: Path) -> None:
    done = run(tmp_path, "alice", jwks_url="https://issuer.example/keys")
    assert done.returncode == 2
    assert "get one from their issuer" in done.stderr
