"""The imports of the fork server of `tests.commands`, done once for all services that are forked from it."""

from __future__ import annotations

import gc
import pkgutil
from importlib import import_module

from tests.https import read_certificates_once

PACKAGES = ("receiver", "sender", "shared")
_BEGINNINGS = (".__main__", ".cli")  # modules that are run; importing them as well would make two copies
# Modules that those import only when they begin.
_AT_START = (
    "anyio._backends._asyncio",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvloop",
)


def prepare() -> None:
    for name in _modules():
        import_module(name)
    read_certificates_once()
    # A service walks all objects as it starts (`spare_what_lives`). Those of the fork server are the larger
    # part, and walking them copies their memory: three quarters of the processor time of a start.
    gc.collect()
    gc.freeze()


def _modules() -> list[str]:
    """All modules except those that do something when they are imported."""
    walked = (
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(import_module(package).__path__, prefix=f"{package}.")
        if not module.name.startswith("sender.database.migrations")  # Alembic's, which runs them
    )
    return [*PACKAGES, *(name for name in walked if not name.endswith(_BEGINNINGS)), *_AT_START]


prepare()  # the fork server only imports
