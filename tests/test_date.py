"""shared/process/date.py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shared.process import date

if TYPE_CHECKING:
    import pytest


def test_the_date_is_in_gmt_and_moves_with_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form is RFC 9110's, 5.6.7."""
    found = []
    for now in (784_111_777.0, 784_111_777.9, 784_111_778.1):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        found.append(date.date_now())
    assert found[0] == (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")
    assert found[1] is found[0]
    assert found[2] == (b"date", b"Sun, 06 Nov 1994 08:49:38 GMT")
