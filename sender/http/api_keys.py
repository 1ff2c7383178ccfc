"""The keys of the sender's API, each with its scopes and its limit of requests a minute.

A file of keys is reread when it changes, so that keys can be added and removed while senders run.
"""

from __future__ import annotations

import hmac
import os
import time
from typing import TYPE_CHECKING

import structlog

from shared.api_keys import ApiKey
from shared.settings import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import SecretStr

LOOK_SECONDS = 1.0  # between two checks whether the file has changed
SETTLE_SECONDS = 0.5  # since its last change: half a file may be valid, with its last key cut short

logger = structlog.get_logger(__name__)


class ApiKeys:
    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._take(keys)

    def _take(self, keys: Iterable[SecretStr]) -> None:
        known = [key if isinstance(key, ApiKey) else ApiKey(key.get_secret_value()) for key in keys]
        self._keys = [(key.get_secret_value().encode(), key) for key in known]

    def find(self, presented: str) -> ApiKey | None:
        """The key that is presented; takes equally long if it is none of ours."""
        text = presented.encode(errors="replace")
        found = None
        for key, known in self._keys:  # all are compared
            if hmac.compare_digest(text, key):
                found = known
        return found

    def accept(self, key: str) -> bool:
        """Whether the key is right."""
        return self.find(key) is not None


class ApiKeysOfFile(ApiKeys):
    """The keys of a file, as it is now. While it is unreadable or faulty, the previous keys stay valid."""

    def __init__(
        self,
        keys: Iterable[SecretStr],
        path: str,
        read: Callable[[], Iterable[SecretStr]],
        look_seconds: float = LOOK_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """`read` returns the current keys, or raises `InvalidSettings`."""
        super().__init__(keys)
        self._path = path
        self._read = read
        self._look_seconds = look_seconds
        self._settle_seconds = settle_seconds
        self._looked_at = time.monotonic()
        self._version = self._look()

    def find(self, presented: str) -> ApiKey | None:
        now = time.monotonic()
        if now - self._looked_at >= self._look_seconds:
            self._looked_at = now
            self._refresh()
        return super().find(presented)

    def _refresh(self) -> None:
        version = self._look()
        if version == self._version or self._is_being_written(version):
            return
        self._version = version  # a fault is reported once; the file is reread when it changes again
        try:
            keys = list(self._read())
        except InvalidSettings as error:
            logger.error(
                "the API keys could not be reread; the previous ones stay valid", reason=error.faults
            )
        else:
            self._take(keys)
            logger.info("the API keys were reread", keys=len(keys))

    def _is_being_written(self, version: tuple[int, int, int] | None) -> bool:
        return version is not None and 0 <= time.time() - version[1] / 1e9 < self._settle_seconds

    def _look(self) -> tuple[int, int, int] | None:
        """Changes with the file, even if it or its directory is replaced (Kubernetes)."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
