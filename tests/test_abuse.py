"""The foundations of `make bench-abuse`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from websockets.frames import Opcode
from websockets.protocol import SERVER, State
from websockets.protocol import Protocol as Parser

from bench.abuse import BEGIN, COLUMNS, END, PAGE, Attacking, measure
from bench.attackers import Attackers, frame
from bench.attacks import ATTACKS, Target
from bench.load import compile_native
from bench.run import Run
from shared.commands.embedded import path_server, wheel_server
from shared.process.guard import Guard

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("payload", [b"", b"x" * 125, b"x" * 126, b"x" * 16_000])
def test_frames_of_attackers_are_frames(payload: bytes) -> None:
    parser = Parser(SERVER, state=State.OPEN)
    parser.receive_data(frame(Opcode.TEXT, payload) + frame(Opcode.PING))
    first, second = parser.events_received()
    assert (first.opcode, first.data, second.opcode) == (Opcode.TEXT, payload, Opcode.PING)  # type: ignore[union-attr]


def test_every_attack_is_one_that_attackers_know() -> None:
    for attack in ATTACKS:
        assert callable(getattr(Attackers, f"_{attack.kind}"))
        for name in filter(None, (attack.prepare, attack.beside)):
            assert callable(getattr(Attacking, f"_{name.removeprefix('_')}"))


def test_page_has_a_row_for_each_attack() -> None:
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    for attack in ATTACKS:
        assert f"\n| {attack.name} " in f"\n{table}", attack.name


@pytest.mark.long
@pytest.mark.alone
def test_good_clients_lose_nothing_while_others_flood(tmp_path: Path) -> None:
    redis = wheel_server() or path_server()
    assert redis is not None
    attack = next(one for one in ATTACKS if one.name == "floods of frames, 200 sockets, no token")
    with Guard() as guard:
        run = Run(redis, compile_native(tmp_path), tmp_path, guard.group, 1, 2.0, [])
        table = asyncio.run(measure(run, Target, [attack]))
    [row] = table.rows
    values = dict(zip(COLUMNS, row, strict=True))
    assert (values["lost"], values["closed"]) == (0, 0)
    [one] = table.rounds
    assert isinstance(one, dict)
    assert one["done"]["bytes"] > 1_000_000
    assert one["end_seconds"] < 15
