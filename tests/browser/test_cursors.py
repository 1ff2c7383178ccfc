"""receiver/browser/cursors.js."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error

from shared.channels import Channel, customer_channel, topic_channel
from shared.cursors import Place, format_cursors, parse_cursors
from tests.browser.conftest import evaluate
from tests.test_channels import REAL

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

IMPORT = "const { parseCursors, formatCursors, advance, reaches } = await import('/client/v1/cursors.js');"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "customer:alice=1.0",
        "customer:a.b_c@d-e=3.9007199254740991,topic:menu=1.7",
        *(f"{customer_channel(name)}=1.2,{topic_channel(name)}=3.4" for name in REAL),
    ],
)
def test_the_client_reads_and_writes_what_the_servers_do(page: Page, text: str) -> None:
    assert format_cursors(parse_cursors(text)) == text
    assert evaluate(page, f"{IMPORT} return formatCursors(parseCursors(given))", text) == text


@pytest.mark.parametrize(
    "text",
    [
        "alice=1.0",
        "customer:alice=0.1",
        "customer:alice=1",
        "customer:a b=1.0",
        "customer:auth0|5f7c=1.0",
        "customer:auth0%7c5f7c=1.0",
        "customer:%61=1.0",
        "customer:%C0%AF=1.0",
        "customer:%ED%A0%80=1.0",
        "customer:%00=1.0",
        f"customer:{'x' * 129}=1.0",
        "customer:alice=1.9007199254740992",
    ],
)
def test_what_no_event_had_is_refused(page: Page, text: str) -> None:
    with pytest.raises(Error, match="not a cursor"):
        evaluate(page, f"{IMPORT} return parseCursors(given)", text)


def test_places_follow_each_other_by_epoch_then_seq(page: Page) -> None:
    places = [(1, 0), (1, 9), (2, 0), (2, 1)]
    reached = evaluate(
        page,
        f"""{IMPORT}
        const places = given.map(([epoch, seq]) => ({{ epoch, seq }}));
        return places.map((one) => places.map((other) => reaches(one, other)));""",
        places,
    )
    assert reached == [[Place(*one) >= Place(*other) for other in places] for one in places]


def test_a_place_never_goes_back(page: Page) -> None:
    text = evaluate(
        page,
        f"""{IMPORT}
        const places = parseCursors("customer:alice=2.5");
        for (const seq of [4, 6, 5]) advance(places, "customer:alice", {{ epoch: 2, seq }});
        advance(places, "customer:alice", {{ epoch: 1, seq: 99 }});
        return formatCursors(places);""",
    )
    assert parse_cursors(text) == {Channel("customer:alice"): Place(2, 6)}
