"""receiver/browser/extents.js: the same sets, in the same text, as shared/extents.py."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from shared.channels import Channel
from shared.cursors import Place
from shared.extents import MAX_RANGES, Extent, Range, Seen
from tests.browser.conftest import evaluate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ALICE = Channel("customer:alice")


def any_extent(chance: random.Random) -> Extent:
    ranges = [
        Range(first, first + chance.randrange(4))
        for first in chance.sample(range(1, 60), chance.randrange(9))
    ]
    return Extent.of(Place(chance.choice([1, 1, 1, 2]), chance.randrange(12)), ranges)


def test_unions_of_any_reports_are_the_servers(page: Page) -> None:
    chance = random.Random(16)
    reports = [[any_extent(chance) for _ in range(6)] for _ in range(300)]
    unions = []
    for some in reports:
        union = some[0]
        for report in some[1:]:
            union = union.union(report)
        unions.append(str(Seen(ALICE, union)))
    found = evaluate(
        page,
        """
        const { covers, formatExtent, parseExtents, unite } = await import("/client/v1/extents.js");
        return given.map((texts) => {
          const extents = texts.map((text) => parseExtents(text).get("customer:alice"));
          const all = structuredClone(extents[0]);
          for (const one of extents.slice(1)) unite(all, one);
          return [formatExtent("customer:alice", all), extents.every((one) => covers(all, one))];
        });
        """,
        [[str(Seen(ALICE, report)) for report in some] for some in reports],
    )
    assert found == [[union, True] for union in unions]


def test_extent_that_lacks_one_event_does_not_cover_it(page: Page) -> None:
    covered = evaluate(
        page,
        """
        const { covers, parseExtents } = await import("/client/v1/extents.js");
        const of = (text) => parseExtents(`customer:alice=${text}`).get("customer:alice");
        return given.map(([one, other]) => covers(of(one), of(other)));
        """,
        [
            ["1.4+7", "1.4+7"],
            ["1.4+7", "1.4+8"],
            ["1.4", "1.5"],
            ["1.4+6-9", "1.0+7-8"],
            ["2.0", "1.9+12"],
            ["1.9", "2.0"],
        ],
    )
    assert covered == [True, False, False, True, True, False]


@pytest.mark.parametrize("text", ["1.4+", "1.4+0", "1.4+x", "1.4+7-8-9", "1.4++7"])
def test_what_is_no_extent_is_a_syntax_error(page: Page, text: str) -> None:
    error = evaluate(
        page,
        """
        const { parseExtents } = await import("/client/v1/extents.js");
        try { parseExtents(`customer:alice=${given}`); } catch (error) { return error.name; }
        """,
        text,
    )
    assert error == "SyntaxError"


def test_text_has_no_more_ranges_than_servers_take_and_the_newest_of_them(page: Page) -> None:
    text = evaluate(
        page,
        """
        const { extentUpTo, formatExtent, include } = await import("/client/v1/extents.js");
        const extent = extentUpTo({ epoch: 1, seq: 0 });
        for (let seq = 3; seq < 300; seq += 2) include(extent, 1, seq);
        return formatExtent("customer:alice", extent);
        """,
    )
    assert text.split("+")[1:] == [str(seq) for seq in range(3, 300, 2)][-MAX_RANGES:]
