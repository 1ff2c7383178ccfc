"""Settings of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import SenderSettings
from tests.settings.values import KEY

if TYPE_CHECKING:
    from tests.settings.conftest import Faults, Set


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///",
        "sqlite+aiosqlite:///",
        "sqlite://x.db",
        "mysql://h/d",
        "x",
    ],
)
def test_database_url_that_is_none(set: Set, faults: Faults, url: str) -> None:
    set(api_keys=KEY, database_url=url)
    (line,) = faults(SenderSettings)
    assert line.startswith("orderbell: ORDERBELL_DATABASE_URL: ")
