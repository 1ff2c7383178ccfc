"""The Lua scripts: they are packaged, and share their numbers with Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.cursors import MAX_NUMBER
from shared.redis import scripts
from shared.redis.channel_log import ADVANCE, PUBLISH, SEE
from shared.redis.scripts import Script

if TYPE_CHECKING:
    from redis.asyncio import Redis

FILES = sorted(Path(scripts.__file__).parent.glob("*.lua"))


@pytest.mark.anyio
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("publish_command", ["PUBLISH", "SPUBLISH"])
async def test_server_compiles_each_script_and_names_it_as_we_do(
    redis: Redis, path: Path, publish_command: str
) -> None:
    text, digest = Script.read(path.stem).using(publish_command)
    assert await redis.script_load(text) == digest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_scripts_know_the_largest_number_of_a_cursor(path: Path) -> None:
    numbers = re.findall(r"local MAX_NUMBER = (\d+)", path.read_text(encoding="utf-8"))
    assert [int(number) for number in numbers] in ([MAX_NUMBER], [])
    assert ("MAX_NUMBER" in path.read_text(encoding="utf-8")) is bool(numbers)


def test_in_a_cluster_live_messages_are_sharded() -> None:
    for script in (PUBLISH, SEE):
        assert "'PUBLISH'" in script.using("PUBLISH")[0]
        text, _ = script.using("SPUBLISH")
        assert "'SPUBLISH'" in text
        assert "'PUBLISH'" not in text
    assert ADVANCE.using("SPUBLISH") == ADVANCE.using("PUBLISH")
