"""The scripts that run inside Redis. The top of each `.lua` file says what it does, takes and returns."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple


class Script(NamedTuple):
    text: str

    @classmethod
    def read(cls, name: str) -> Script:
        return cls(resources.files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8"))

    @cache  # noqa: B019 - a tuple that lives as long as the process
    def using(self, publish_command: str) -> tuple[str, str]:
        """Its text and digest, for one server (PUBLISH) or for a cluster (SPUBLISH)."""
        text = self.text.replace("'PUBLISH'", f"'{publish_command}'")
        return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
