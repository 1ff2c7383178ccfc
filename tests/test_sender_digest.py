"""Digests of several parts."""

from __future__ import annotations

import pytest

from sender.digest import digest


@pytest.mark.parametrize("parts", [((b"ab", b"c"), (b"a", b"bc")), ((b"a", b""), (b"a",))])
def test_digests_differ_where_parts_end_elsewhere(parts: tuple[tuple[bytes, ...], tuple[bytes, ...]]) -> None:
    assert digest(*parts[0]) != digest(*parts[1])
