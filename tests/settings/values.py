"""A key and a secret that are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.settings import Settings

KEY = "k" * 16
SECRET = "s" * 32


def keys_of(settings: Settings) -> list[str]:
    return [key.get_secret_value() for key in settings.api_keys]
