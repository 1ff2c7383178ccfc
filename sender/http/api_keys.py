"""The keys that open the sender's API."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import SecretStr


class ApiKeys:
    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def accept(self, key: str) -> bool:
        """Takes as long for a wrong key as for a right one."""
        presented = key.encode(errors="replace")
        return any([hmac.compare_digest(presented, key) for key in self._keys])  # noqa: C419 - all are compared
