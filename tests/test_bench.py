"""The benchmarks' foundations: correct figures, and a load generator that misses nothing."""

from __future__ import annotations

import importlib.util
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from bench.contenders import Event, Floor, Orderbell, RedisPublisher, payload
from bench.load import LoadFailed, compile_native, line, running_load
from bench.run import Run
from bench.stack import start_server
from bench.table import Table, median_ratio, percentile
from bench.unobserved import CUTS, CutFailed, cut, without
from shared.commands.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.load import Load
    from shared.commands.embedded import EmbeddedServer

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([3, 1, 2], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 101), 0.5, 50),
        ([7], 0.99, 7),
        ([1, 2], 1.0, 2),
    ],
)
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], fraction: float, expected: float
) -> None:
    assert percentile(values, fraction) == expected


def test_table_is_written_for_people_and_for_programs(tmp_path: Path) -> None:
    table = Table("name", "Title", ["what", "value"], ["How."])
    table.add("one", 1234.5)
    table.add("none", None)
    text = table.write(tmp_path, {"processor": "two cores"})
    assert "| one  | 1,234 |" in text.replace("1,235", "1,234")
    assert "| none |     – |" in text
    assert "processor two cores" in text
    assert json.loads((tmp_path / "name.json").read_text())["rows"] == [["one", 1234.5], ["none", None]]


def test_ratio_is_the_median_of_each_rounds_own() -> None:
    """The machine was twice as slow in the second round, and the floor slow by chance in the third."""
    assert median_ratio([15.0, 30.0, 15.0], [10.0, 20.0, 14.0]) == 1.5


def test_each_round_measures_the_floor_and_then_the_others(tmp_path: Path) -> None:
    run = Run(tmp_path, tmp_path, tmp_path, 0, rounds=2, seconds=1, contenders=[Floor, Orderbell])
    assert list(run.turns("part")) == [Floor, Orderbell, Floor, Orderbell]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    with running_load(compile_native(tmp_path), tmp_path / "connections", 0) as load:
        yield load


@needs_compiler
@pytest.mark.anyio
async def test_load_counts_each_delivery_of_the_floor_and_reports_what_is_out_of_order(
    load: Load, redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    port = free_port()
    command = [str(tmp_path / "floor"), str(port), str(redis_server.port)]
    server = start_server("floor", command, port, {}, tmp_path, 0, cwd=tmp_path)
    try:
        server.wait_ready(None)
        await load.connect([line(port, f"/customer-{n}") for n in range(20)])
        with RedisPublisher(redis_server.port) as redis:
            redis.publish([("all", payload(Event(None, 1)))])
            counted = await load.wait_all(20, seconds=10)
            assert 0 < counted.p50_ms <= counted.p99_ms <= counted.max_ms < 10_000
            redis.publish([("one:customer-7", payload(Event(7, 2)))])
            await load.wait_all(21, seconds=10)
            redis.publish([("one:customer-7", payload(Event(7, 4)))])  # without 3
            with pytest.raises(LoadFailed, match="1 out of order"):
                await load.wait_all(22, seconds=10)
    finally:
        server.end()


@needs_compiler
@pytest.mark.anyio
async def test_load_reports_refused_connections(load: Load) -> None:
    with pytest.raises(LoadFailed, match="0 of 1 connections are ready"):
        await load.connect([line(free_port(), "/")])


@pytest.mark.parametrize("module", sorted({one.module for one in CUTS}))
def test_gateway_that_observes_nothing_is_the_real_one_without_these_lines(module: str) -> None:
    source = importlib.util.find_spec(module).loader.get_source(module)  # type: ignore[union-attr]
    left = without(module, source)
    assert 0 < len(source.splitlines()) - len(left.splitlines()) < 30
    compile(left, module, "exec")
    for observes in ("self._ages.look", "delivered[", "ways.note(", "connection opened", "note_ending"):
        # What is left of `ways` are the functions that nobody calls any more.
        assert observes not in left or observes == "ways.note("


def test_line_that_is_not_there_can_not_be_cut() -> None:
    with pytest.raises(CutFailed, match="0 lines begin with '    missing'"):
        cut("def f():\n    pass\n", "    missing", "    pass")
    with pytest.raises(CutFailed, match="no line after it"):
        cut("def f():\n    pass\n", "    pass", "    missing")
