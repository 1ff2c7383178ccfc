"""docs/redis.md: its commands run, its users have the rights they need, its URLs are valid."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.commands.embedded import EmbeddedServer, path_server
from shared.redis.channel_log import HEAD_SECONDS, LOG_LENGTH, LOG_SECONDS
from shared.redis.connect import connect, pipelines_to
from shared.redis.keys import Names
from shared.redis.rights import Role, refusals
from shared.redis.server import CONNECT_SECONDS, REPLY_SECONDS
from shared.redis.url import _OPTIONS, parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, process_group: int) -> Iterator[EmbeddedServer]:
    binary = path_server()
    if binary is None or shutil.which("redis-cli") is None:
        pytest.skip("not run: no redis-server and redis-cli on PATH")
    server = EmbeddedServer(binary, tmp_path_factory.mktemp("docs"), process_group=process_group)
    server.start()
    for block in BLOCKS:
        script = f'set -eu\nredis-cli() {{ command redis-cli -e -p {server.port} "$@"; }}\n{block}'
        subprocess.run(["bash", "-c", script], check=True, timeout=30, capture_output=True)
    yield server
    server.kill()


@pytest.mark.anyio
@pytest.mark.parametrize("role", list(Role))
async def test_users_that_the_page_makes_may_serve(
    server: EmbeddedServer, role: Role, anyio_backend: object
) -> None:
    url = f"redis://{role.value}:change-me-{role.value}@127.0.0.1:{server.port}/0"
    async with connect(url, retries=0) as client, pipelines_to(client) as pipelines:
        assert await refusals(client, pipelines, Names("ob"), role) == []


@pytest.mark.anyio
async def test_memory_is_as_the_page_sets_it(server: EmbeddedServer, anyio_backend: object) -> None:
    async with connect(server.url) as client, pipelines_to(client) as pipelines:
        [found] = await pipelines.execute([("CONFIG", "GET", "*m*")])
    settings = dict(zip(found[::2], found[1::2], strict=True))
    assert settings[b"maxmemory"] == b"536870912"
    assert settings[b"maxmemory-policy"] == b"noeviction"
    assert settings[b"stream-node-max-bytes"] == b"1024"


@pytest.mark.parametrize("user", ["sender", "gateway"])
def test_rights_on_the_page_are_those_of_the_file(user: str) -> None:
    acl = (ROOT / "deploy" / "users.acl").read_text(encoding="utf-8")
    [of_file] = re.findall(rf"^user {user} on (.*)$", acl, re.MULTILINE)
    [of_page] = re.findall(rf"^redis-cli ACL SETUSER {user} on '>[^']+' (.*)$", TEXT, re.MULTILINE)
    assert of_page.replace("'", "") == of_file


def test_every_url_on_the_page_is_one() -> None:
    urls = re.findall(r"`((?:rediss?(?:\+\w+)?|unix)://[^`]+)`", TEXT)
    assert len(urls) == 5
    for url in urls:
        parse_redis_url(url)


def test_every_option_is_on_the_page_and_no_other() -> None:
    table = TEXT.partition("| option | |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*_OPTIONS, "db", "sentinel_user", "sentinel_password"}


def test_numbers_on_the_page_are_those_of_the_code() -> None:
    assert f"newest {LOG_LENGTH:,} events of its channel for {LOG_SECONDS // 3600} hours" in TEXT.replace(
        "\n", " "
    )
    assert f"stays for {HEAD_SECONDS // 86400} days" in TEXT
    assert f"seconds; {REPLY_SECONDS} and {CONNECT_SECONDS} unless given" in TEXT
