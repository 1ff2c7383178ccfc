"""The table of failures: complete, and what it names exists and carries its number."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
NUMBERS = [*range(1, 52), 55]
_TEST = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def rows() -> list[list[str]]:
    lines = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)
    ]


def existing() -> set[str]:
    files = HERE.parent.rglob("test_*.py")
    return {name for file in files for name in _TEST.findall(file.read_text(encoding="utf-8"))}


def test_every_number_has_its_row_in_order() -> None:
    assert [int(number) for number, *_ in rows()] == NUMBERS


def test_every_test_that_is_named_exists() -> None:
    named = {name for *_, held in rows() for name in re.findall(r"`(test_\w+)`", held)}
    assert named - existing() == set()


def test_every_row_names_a_test_that_carries_its_number() -> None:
    for number, _, held in rows():
        names = re.findall(r"`test_(\d\d(?:_and_\d\d)*)_", held)
        carried = {int(one) for name in names for one in name.split("_and_")}
        assert int(number) in carried, number


def test_every_test_of_this_directory_is_in_the_table() -> None:
    table = (HERE / "README.md").read_text(encoding="utf-8")
    here = {
        name for file in HERE.glob("test_*.py") for name in _TEST.findall(file.read_text(encoding="utf-8"))
    }
    assert {name for name in here if re.match(r"test_\d", name) and f"`{name}`" not in table} == set()
