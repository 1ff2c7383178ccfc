"""receiver/browser/badge.js."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_the_number_stands_before_the_title_and_goes_again(page: Page) -> None:
    titles = evaluate(
        page,
        """
        const { TitleBadge } = await import("/client/v1/badge.js");
        document.title = "Orders";
        const badge = new TitleBadge();
        return [0, 1, 2, 0].map((count) => ((badge.count = count), document.title));
        """,
    )
    assert titles == ["Orders", "(1) Orders", "(2) Orders", "Orders"]
